"""Draws the figures of README and docs into ``docs/figures``: ``python docs/figures.py``.

They come from HTAF's formula and from the records in ``docs/results``; none is made by hand.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from htaf_snn import HTAFSpike
from htaf_snn.comparison import Run, plots, read_results
from htaf_snn.comparison.seed_statistics import Estimate, estimate
from htaf_snn.data.digits_events import encode
from htaf_snn.data.inspection import inspect
from htaf_snn.files import save_figure

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import sensitivity  # the study's own

FOLDER = Path(__file__).parent / "figures"
RESULTS = Path(__file__).parent / "results"
BLUE, RED, GREY = "#0b3c8c", "#cc6677", "#7a7a7a"


def runs_of(folder: str) -> list[Run]:
    """The runs of a record in ``docs/results``."""
    return list(read_results(RESULTS / folder).runs.values())


def accuracy(runs: Sequence[Run], data: str, spike: str, form: str = "hard") -> Estimate:
    """Mean test accuracy of a contender on a data set, and its interval over seeds."""
    own = [r for r in runs if r.data == data and r.spike == spike]
    return estimate([getattr(run, f"{form}_accuracy") for run in own])


def hardening(above: Axes, below: Axes) -> None:
    """A neuron's output in training, as hardness rises from 0 to 1, and its derivative."""
    x = torch.linspace(-2, 2, 801, dtype=torch.float64)
    for hardness, color in zip((0.0, 0.35, 0.7, 1.0), ("#9db7e4", "#6c8fd0", "#3a63b0", BLUE),
                               strict=True):  # fmt: skip
        function = HTAFSpike(mode="soft").double().train()
        function.hardness = hardness
        points = x.clone().requires_grad_()
        output = function(points)
        above.plot(x, output.detach(), color=color, label=f"hardness {hardness:g}")
    (slope,) = torch.autograd.grad(output.sum(), points)
    below.plot(x, slope, color=BLUE)
    above.set(ylabel="output", title="in training")
    below.set(ylabel="derivative", xlabel="potential minus threshold")
    above.legend(loc="upper left", handlelength=1.2)


def gap() -> Figure:
    """What hardening does to the output, and what it spares: the loss at the swap."""
    figure = plots.new_figure(2.6, 7.2)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.35))
    hardening(*left.subplots(2, 1, sharex=True, height_ratios=(1.5, 1)))
    axes = right.subplots()
    runs = runs_of("ablation")
    rows = {
        "smooth to the end": "htaf@hardening=null",
        "smooth, norms calibrated": "htaf@hardening=null@calibrate=50",
        "a surrogate throughout": "htaf:mode=hard",
        "hardened (default)": "htaf",
    }
    for row, spike in enumerate(rows.values()):
        soft = accuracy(runs, "Fashion-MNIST", spike, "soft")
        hard = accuracy(runs, "Fashion-MNIST", spike)
        axes.plot([hard.mean, soft.mean], [row, row], color=GREY, linewidth=1, zorder=1)
        axes.plot(soft.mean, row, "D", mfc="white", mec=BLUE, markersize=8)
        axes.plot(hard.mean, row, "o", color=BLUE, markersize=5)
    axes.plot([], [], "D", mfc="white", mec=BLUE, label="as trained")
    axes.plot([], [], "o", color=BLUE, label="as fired, the exact step")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set(xlabel="test accuracy, Fashion-MNIST, three seeds", title="at the end")
    axes.grid(axis="y", visible=False)
    right.legend(loc="outside lower center", ncols=2)
    return figure


def fair() -> Figure:
    """Each function hardened and as a surrogate, on four data sets."""
    runs = runs_of("fair")
    functions = ("htaf", "sigmoid", "atan", "piecewise_quadratic")
    figure = plots.new_figure(2.1, 7.2)
    sets = list(dict.fromkeys(run.data for run in runs))
    for axes, data in zip(figure.subplots(1, len(sets), sharey=True), sets, strict=True):
        for row, function in enumerate(reversed(functions)):
            surrogate, hardened = (
                ("htaf:mode=hard", "htaf")
                if function == "htaf"
                else (function, f"{function}@hardening=[0,0.8]")
            )
            for spike, shift, color in ((surrogate, -0.13, RED), (hardened, 0.13, BLUE)):
                found = accuracy(runs, data, spike)
                axes.hlines(row + shift, found.low, found.high, color, linewidth=1)
                axes.plot(found.mean, row + shift, "o", color=color)
        axes.set_yticks(range(len(functions)), functions[::-1])
        axes.set(title=data)
        axes.grid(axis="y", visible=False)
    figure.supxlabel("test accuracy, mean and 95 % interval over ten seeds", fontsize=8)
    for color, label in ((BLUE, "hardened"), (RED, "as a surrogate")):
        axes.plot([], [], "o", color=color, label=label)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def depth() -> Figure:
    """Accuracy over the number of time steps, by network."""
    runs = runs_of("depth")
    found = {(*run.data.split(", T = "), run.spike): run.hard_accuracy for run in runs}
    nets = list(dict.fromkeys(net for net, _, _ in found))
    looks = plots.looks(list(dict.fromkeys(spike for _, _, spike in found)))
    figure = plots.new_figure(2.2, 7.2)
    for axes, net in zip(figure.subplots(1, len(nets), sharey=True), nets, strict=True):
        for spike, look in looks.items():
            own = sorted((int(T), a) for (n, T, s), a in found.items() if (n, s) == (net, spike))
            axes.plot(*np.array(own).T, label=spike, **look)
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        axes.set(title=net, xlabel="T")
    figure.axes[0].set_ylabel("test accuracy, one seed")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def recordings(folder: Path) -> None:
    """Draws what ``htaf-snn data inspect`` draws, of two recordings made here."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as made:
        for name, slope in (("left", -1), ("right", 1)):
            t = np.sort(rng.integers(0, 300_000, 4000))
            x = np.clip(17 + slope * (t / 300_000 - 0.5) * 26 + rng.normal(0, 1.5, 4000), 0, 33)
            columns = {"x": x.astype(int), "y": rng.integers(4, 30, 4000), "t": t,
                       "p": (rng.random(4000) < 0.5 + 0.2 * slope).astype(int)}  # fmt: skip
            path = Path(made, name, "bar.bin")
            path.parent.mkdir()
            path.write_bytes(encode(columns))
        inspect(Path(made), out=folder / "inspect.png")


def tail() -> Figure:
    """Accuracy over HTAF's two parameters where its tail should matter."""
    return sensitivity.draw(runs_of("tail"))


FIGURES: dict[str, Callable[[], Figure]] = {"gap": gap, "fair": fair, "depth": depth, "tail": tail}


def main(folder: Path = FOLDER) -> None:
    """Draws every figure."""
    folder.mkdir(exist_ok=True)
    with plots.drawing():
        for name, draw in FIGURES.items():
            save_figure(draw(), folder, name)
            (folder / f"{name}.pdf").unlink()
    recordings(folder)


if __name__ == "__main__":
    main()
