"""How much HTAF's two parameters matter: a network trained over a grid of (alpha0, alpha1).

    python examples/sensitivity.py --data digits --epochs 12 --out runs/sensitivity

One untuned run a pair and seed, hardened as by default. It goes on where it was stopped, and draws
a map of hard accuracy and one of the gap into ``--out``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common.alphas import over_alphas
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure

from htaf_snn.comparison import Run, Study, compare, plots
from htaf_snn.data import DataConfig
from htaf_snn.files import save_figure
from htaf_snn.training import ModelConfig

ALPHA0, ALPHA1 = (0.33, 0.67, 1.0, 1.5, 2.0, 3.0), (3.0, 6.0, 11.0)
_POINT = re.compile(r"htaf:alpha0=([^:@]+):alpha1=([^:@]+)")


def draw(runs: Sequence[Run]) -> Figure:
    """Hard accuracy and gap over (alpha0, alpha1), means over seeds."""
    points: dict[tuple[float, float], list[Run]] = {}
    for run in runs:
        found = _POINT.match(run.spike)
        assert found is not None
        points.setdefault((float(found[1]), float(found[2])), []).append(run)
    figure = plots.new_figure(1.2 + 2 * (0.3 + 0.24 * len({alpha1 for _, alpha1 in points})))
    above, below = figure.subplots(2, 1, sharex=True)
    means = {p: float(np.mean([run.hard_accuracy for run in own])) for p, own in points.items()}
    over_alphas(above, means, "hard test accuracy", ".3f", cmap=plots.MAP)
    gaps = {p: float(np.mean([run.gap_pp for run in own])) for p, own in points.items()}
    over_alphas(below, gaps, "gap (pp)", "+z.1f", cmap="PuOr", norm=CenteredNorm())
    below.set_xlabel(r"$\alpha_0$")
    return figure


def main(argv: Sequence[str] | None = None) -> Path:
    """Trains over the grid and draws it; returns the picture's path."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="a data set that htaf-snn data lists")
    parser.add_argument("--root", type=Path, help="folder of the data, where it needs one")
    parser.add_argument("--T", type=int, default=4, help="time steps")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--alpha0", type=float, nargs="+", default=ALPHA0)
    parser.add_argument("--alpha1", type=float, nargs="+", default=ALPHA1)
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/sensitivity"))
    chosen = parser.parse_args(argv)
    contenders = [f"htaf:alpha0={a}:alpha1={b}" for a in chosen.alpha0 for b in chosen.alpha1]
    data = DataConfig(chosen.data, chosen.root, chosen.T)
    study = Study(contenders, chosen.seeds, chosen.epochs, data, ModelConfig())
    runs = compare([study], chosen.out, chosen.workers)
    with plots.drawing():
        save_figure(draw(runs), chosen.out, "sensitivity")
    return Path(chosen.out) / "sensitivity.png"


if __name__ == "__main__":
    print(main())
