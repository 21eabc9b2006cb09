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
import between_recipes  # the studies' own
import sensitivity

FOLDER = Path(__file__).parent / "figures"
RESULTS = Path(__file__).parent / "results"
BLUE, RED, GREEN, GREY = "#0b3c8c", "#cc6677", "#228833", "#7a7a7a"


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


def _by_data(
    runs: Sequence[Run], contenders: dict[str, dict[str, str]], colors: dict[str, str], seeds: str
) -> Figure:
    """Test accuracies on each data set, by function and, in colours, by treatment."""
    figure = plots.new_figure(2.1, 7.2)
    sets = list(dict.fromkeys(run.data for run in runs))
    for axes, data in zip(figure.subplots(1, len(sets), sharey=True), sets, strict=True):
        for row, spikes in enumerate(reversed(contenders.values())):
            for place, (treatment, color) in enumerate(colors.items()):
                at = row + 0.26 * (place - (len(colors) - 1) / 2)
                found = accuracy(runs, data, spikes[treatment])
                axes.hlines(at, found.low, found.high, color, linewidth=1)
                axes.plot(found.mean, at, "o", color=color)
        axes.set_yticks(range(len(contenders)), list(contenders)[::-1])
        axes.set(title=data)
        axes.grid(axis="y", visible=False)
    figure.supxlabel(f"test accuracy, mean and 95 % interval over {seeds} seeds", fontsize=8)
    for treatment, color in colors.items():
        axes.plot([], [], "o", color=color, label=treatment)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def fair() -> Figure:
    """Each function hardened and as a surrogate, on four data sets."""
    contenders = {"htaf": {"as a surrogate": "htaf:mode=hard", "hardened": "htaf"}} | {
        function: {"as a surrogate": function, "hardened": f"{function}@hardening=[0,0.8]"}
        for function in ("sigmoid", "atan", "piecewise_quadratic")
    }
    colors = {"as a surrogate": RED, "hardened": BLUE}
    return _by_data(runs_of("fair"), contenders, colors, "ten")


def recipes() -> Figure:
    """HTAF and the sigmoid in three recipes, on four data sets."""
    contenders = {
        "htaf": {"surrogate": "htaf:mode=hard", "surrogate-free": "htaf@recipe=surrogate_free",
                 "hardened": "htaf"},
        "sigmoid": {"surrogate": "sigmoid", "surrogate-free": "sigmoid@recipe=surrogate_free",
                    "hardened": "sigmoid@hardening=[0,0.8]"},
    }  # fmt: skip
    colors = {"surrogate": RED, "surrogate-free": GREEN, "hardened": BLUE}
    return _by_data(runs_of("recipes"), contenders, colors, "the")


def between() -> Figure:
    """The true gradient beside the surrogate's, and what the recipes' parts cost."""
    figure = plots.new_figure(2.3, 7.2)
    cosine, length, points = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    found = between_recipes.angles(RESULTS / "between")
    layers = list(found[0][0]["cosine"])
    epochs = range(1, len(found[0]) + 1)
    for layer, color in zip(layers, ("#0b3c8c", "#3a63b0", "#6c8fd0", "#9db7e4"), strict=True):
        for axes, what in ((cosine, "cosine"), (length, "quotient")):
            each = np.array([[epoch[what][layer] for epoch in one] for one in found])
            axes.plot(epochs, np.median(each, 0), color=color, label=layer)
            axes.fill_between(epochs, each.min(0), each.max(0), alpha=0.2, linewidth=0, color=color)
    cosine.set(ylabel="cosine to the surrogate's", ylim=(0, 1.05), xlabel="epoch")
    length.set(ylabel="length over the surrogate's", yscale="log", xlabel="epoch")
    cosine.set_title("the true gradient")
    length.legend(loc="lower left", title="weights of")
    pairs = between_recipes.pairs_of(runs_of("between"))
    for row, own in enumerate(reversed(pairs.values())):
        less = between_recipes.points(own, "hard_accuracy")
        points.hlines(row, less.low, less.high, BLUE, linewidth=1)
        points.plot(less.mean, row, "o", color=BLUE)
    points.axvline(0, color=GREY, linewidth=1)
    points.set_yticks(range(len(pairs)), [v.replace(", ", ",\n") for v in reversed(pairs)])
    points.set(xlabel="pp from hardened, test", ylim=(-0.6, len(pairs) - 0.4))
    points.grid(axis="y", visible=False)
    for axes in (cosine, length):
        plots.whole_epochs(axes)
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


FIGURES: dict[str, Callable[[], Figure]] = {
    "gap": gap, "fair": fair, "recipes": recipes, "between": between, "depth": depth, "tail": tail,
}  # fmt: skip


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
