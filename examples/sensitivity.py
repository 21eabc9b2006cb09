"""How much HTAF's two parameters matter: a network trained over a grid of (alpha0, alpha1).

    python examples/sensitivity.py --data digits --epochs 12 --out runs/sensitivity
    python examples/sensitivity.py --model common.deep.Deep --trials 3 --seeds 0 1 2

Hardened as by default, each pair with the best of ``--trials`` learning rates on validation, beside
hardened scaled sigmoids of several slopes that are tuned alike. It goes on where it was stopped,
prints where HTAF is better and where worse, and draws a map of hard accuracy and one of what HTAF
gains over the best sigmoid into ``--out``.
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
from htaf_snn.comparison.seed_statistics import estimate
from htaf_snn.data import DataConfig
from htaf_snn.files import save_figure
from htaf_snn.training import ModelConfig

ALPHA0, ALPHA1 = (0.17, 0.33, 0.67, 1.33, 2.0, 3.0), (1.5, 2.0, 3.0, 6.0, 11.0)
SIGMOIDS = tuple(f"sigmoid:alpha={alpha}@hardening=[0,0.8]" for alpha in (2, 4, 8))
_POINT = re.compile(r"htaf:alpha0=([^:@]+):alpha1=([^:@]+)")


def parted(runs: Sequence[Run]) -> tuple[dict[tuple[float, float], list[Run]], list[Run]]:
    """The runs of each (alpha0, alpha1), and those of the control that is best on validation."""
    points: dict[tuple[float, float], list[Run]] = {}
    controls: dict[str, list[Run]] = {}
    for run in runs:
        found = _POINT.match(run.spike)
        if found is None:
            controls.setdefault(run.spike, []).append(run)
        else:
            points.setdefault((float(found[1]), float(found[2])), []).append(run)
    return points, max(controls.values(), key=_validation)


def _validation(runs: Sequence[Run]) -> float:
    return float(np.mean([run.val_accuracy for run in runs]))


def verdict(runs: Sequence[Run]) -> str:
    """Says at how many pairs HTAF is better than the best sigmoid, and at how many worse.

    Better or worse is a pair that is so on every seed. The pair that is best on validation gets its
    difference with an interval over seeds.
    """
    points, controls = parted(runs)
    base = {run.seed: run.hard_accuracy for run in controls}
    gains = {
        point: [100 * (run.hard_accuracy - base[run.seed]) for run in own if run.seed in base]
        for point, own in points.items()
    }
    better, worse = (
        sum(all(sign * g > 0 for g in own) for own in gains.values()) for sign in (1, -1)
    )
    (alpha0, alpha1), _ = max(points.items(), key=lambda item: _validation(item[1]))
    best = estimate(gains[alpha0, alpha1])
    return (
        f"Of {len(points)} pairs HTAF fires better than {_short(controls)}, the best sigmoid, on "
        f"every seed at {better}, worse on every seed at {worse}; the pair that is best on "
        f"validation, ({alpha0:g}, {alpha1:g}), by {best:+z.1f} pp."
    )


def _short(controls: Sequence[Run]) -> str:
    return controls[0].spike.partition("@")[0]


def draw(runs: Sequence[Run]) -> Figure:
    """Hard accuracy over (alpha0, alpha1), and what it gains over the best control's: means."""
    points, controls = parted(runs)
    figure = plots.new_figure(1.2 + 2 * (0.3 + 0.24 * len({alpha1 for _, alpha1 in points})))
    above, below = figure.subplots(2, 1, sharex=True)
    means = {p: float(np.mean([run.hard_accuracy for run in own])) for p, own in points.items()}
    over_alphas(above, means, "hard test accuracy", ".3f", cmap=plots.MAP)
    base = float(np.mean([run.hard_accuracy for run in controls]))
    gains = {p: 100 * (mean - base) for p, mean in means.items()}
    title = f"gain over {_short(controls)}, {base:.3f} (pp)"
    over_alphas(below, gains, title, "+z.1f", cmap="PuOr", norm=CenteredNorm())
    below.set_xlabel(r"$\alpha_0$")
    return figure


def main(argv: Sequence[str] | None = None) -> Path:
    """Trains over the grid and draws it; returns the picture's path."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="a data set that htaf-snn data lists")
    parser.add_argument("--root", type=Path, help="folder of the data, where it needs one")
    parser.add_argument("--model", help="a network's name, or common.deep.Deep or Deeper")
    parser.add_argument("--T", type=int, default=4, help="time steps")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--trials", type=int, default=0, help="learning rates tried for each")
    parser.add_argument("--alpha0", type=float, nargs="+", default=ALPHA0)
    parser.add_argument("--alpha1", type=float, nargs="+", default=ALPHA1)
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/sensitivity"))
    chosen = parser.parse_args(argv)
    contenders = [f"htaf:alpha0={a}:alpha1={b}" for a in chosen.alpha0 for b in chosen.alpha1]
    data = DataConfig(chosen.data, chosen.root, chosen.T, batch_size=chosen.batch_size)
    contenders += SIGMOIDS
    model = ModelConfig(model=chosen.model)
    study = Study(contenders, chosen.seeds, chosen.epochs, data, model, trials=chosen.trials)
    runs = compare([study], chosen.out, chosen.workers)
    with plots.drawing():
        save_figure(draw(runs), chosen.out, "sensitivity")
    print(verdict(runs))
    return Path(chosen.out) / "sensitivity.png"


if __name__ == "__main__":
    print(main())
