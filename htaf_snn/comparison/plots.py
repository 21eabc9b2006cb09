"""The report's figures: one look a contender, the same in every figure."""

import base64
import io
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ..files import save_figure
from ..surrogates import spike_function, trains_smooth
from .results import Epoch, Run
from .seed_statistics import REFERENCE, Summary
from .study import Contender

COLUMN = 3.5  # inches: a column of a two-column paper, and about a phone's width
MAP = "cividis"  # reads the same with every kind of colour vision

# HTAF's blue, then Paul Tol's "muted" scheme (personal.sron.nl/~pault) without its own, sand
# darkened for white, and five more.
_COLORS = (
    "#0b3c8c", "#cc6677", "#117733", "#c9a227", "#882255", "#44aa99", "#000000", "#e07b00",
    "#aa4499", "#7a7a7a", "#999933", "#6a3d9a", "#8c564b",
)  # fmt: skip
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
_MARKERS = "osD^vPX<>h"
_LABEL_WIDTH = 24  # characters

_RC: dict[Any, Any] = {
    "font.size": 8, "axes.titlesize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 6.5, "legend.frameon": False, "legend.handlelength": 2.4,
    "legend.columnspacing": 1.2, "legend.labelspacing": 0.25, "legend.borderaxespad": 0,
    "figure.constrained_layout.w_pad": 0.07, "figure.constrained_layout.h_pad": 0.06,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.5, "lines.markersize": 3.5,
    "pdf.fonttype": 42,  # embedded TrueType, which publishers ask for
    "svg.hashsalt": "htaf_snn",  # the same figure is the same file
}  # fmt: skip

Looks = Mapping[str, dict[str, Any]]  # arguments of `Axes.plot` for each contender


def looks(spikes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A look for each contender; HTAF's default in blue. Colours come again with other dashes."""
    marker = itertools.cycle(_MARKERS)
    first, *others = (
        {"color": color, "linestyle": dashes, "marker": next(marker), "linewidth": 1.1, "zorder": 3}
        for dashes in _DASHES
        for color in _COLORS
    )
    first |= {"linewidth": 2.2, "zorder": 2.9}  # seen where others coincide with it
    rest = itertools.cycle(others)
    return {spike: first if spike == REFERENCE else next(rest) for spike in spikes}


def drawing() -> AbstractContextManager[None]:
    """Sets matplotlib to the report's style within the block."""
    return mpl.rc_context(_RC)


def new_figure(height: float, width: float = COLUMN) -> Figure:
    """An empty figure, in inches, that lays itself out."""
    return Figure(figsize=(width, height), layout="constrained")


def over_legend(looks: Looks, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Makes so many axes, one below the other, and a legend under them, where it covers no data.

    ``height`` is in inches, without the legend.
    """
    columns = 1 if max(map(len, looks)) > _LABEL_WIDTH else 2
    figure = new_figure(height + 0.14 * math.ceil(len(looks) / columns) + 0.1)
    handles = [Line2D([], [], label=spike, **look) for spike, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    axes = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    figure.align_ylabels()
    return figure, axes


def broken(spike: str) -> str:
    """A label in lines that fit beside axes, broken before a ``:`` or ``@``."""
    lines = [""]
    for part in re.split("(?=[:@])", spike):
        if lines[-1] and len(lines[-1] + part) > _LABEL_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def whole_epochs(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def accuracies(summaries: Sequence[Summary], looks: Looks) -> Figure:
    """Test accuracy of each contender, best above: interval, every seed, and as trained."""
    ordered = sorted(summaries, key=lambda s: s.estimate("hard_accuracy").mean)
    labels = [broken(summary.spike) for summary in ordered]
    lines = max(label.count("\n") for label in labels) + 1
    figure = new_figure(0.75 + len(ordered) * (0.09 + 0.1 * lines))
    axes = figure.subplots()
    for row, summary in enumerate(ordered):
        look = looks[summary.spike]
        color, hard = look["color"], summary.estimate("hard_accuracy")
        axes.hlines(row, hard.low, hard.high, color, linewidth=look["linewidth"])
        axes.plot(hard.mean, row, "o", color=color, markersize=5, zorder=4)
        own = [run.hard_accuracy for run in summary.runs]
        axes.plot(own, [row - 0.28] * len(own), "|", color=color)
        if any(run.gap_pp for run in summary.runs):
            soft = summary.estimate("soft_accuracy").mean
            axes.plot(soft, row, "D", mfc="white", mec=color, markersize=4, zorder=3)
    axes.set_yticks(range(len(ordered)), labels)
    axes.set(ylim=(-0.7, len(ordered) - 0.4), xlabel="test accuracy")
    axes.grid(axis="y", visible=False)
    grey: dict[str, Any] = {"color": "#444444", "linestyle": ""}
    keys = (
        Line2D([], [], **grey | {"linestyle": "-"}, marker="o", label="exact step, 95 % interval"),
        Line2D([], [], **grey, marker="|", label="each seed"),
        Line2D([], [], **grey, marker="D", mfc="white", label="as trained"),
    )
    figure.legend(handles=keys, loc="outside lower center", ncols=3, handlelength=1.4)
    return figure


def learning_curves(summaries: Sequence[Summary], looks: Looks) -> Figure:
    """Validation error at the exact step and training loss by epoch, band over seeds."""
    shown = {s.spike: looks[s.spike] | {"marker": ""} for s in summaries}
    figure, (above, below) = over_legend(shown, 3.6, rows=2)
    for summary in summaries:
        look = shown[summary.spike]
        _band(above, summary.runs, lambda epoch: 1 - epoch["val_accuracy"], look)
        _band(below, summary.runs, lambda epoch: epoch["train_loss"], look)
    above.set(ylabel="validation error, exact step")
    below.set(ylabel="training loss", xlabel="epoch")
    whole_epochs(below)
    for axes in (above, below):
        if math.isfinite(axes.dataLim.minposy):  # not so of runs that diverged
            axes.set_yscale("log", nonpositive="clip")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
    return figure


def _band(
    axes: Axes, runs: Sequence[Run], read: Callable[[Epoch], float], look: dict[str, Any]
) -> None:
    """The mean over seeds, and the range from the least to the greatest seed."""
    length = min(len(run.history) for run in runs)
    values = np.array([[read(epoch) for epoch in run.history[:length]] for run in runs])
    epochs = np.arange(1, length + 1)
    axes.plot(epochs, values.mean(0), **look)
    if len(runs) > 1:
        least, greatest = values.min(0), values.max(0)
        axes.fill_between(epochs, least, greatest, color=look["color"], alpha=0.12, linewidth=0)


def spike_functions(looks: Looks) -> Figure:
    """Draws each contender's output in training, and the derivative of its backward pass.

    Contenders that differ only in how they are trained (after the ``@``) are drawn once.
    """
    labels: dict[str, str] = {}  # the first of each function
    for label in looks:
        labels.setdefault(Contender(label).spike, label)
    shown = {label: looks[label] | {"marker": ""} for label in labels.values()}
    figure, (above, below) = over_legend(shown, 4.0, rows=2)
    above.step([-2, 0, 2], [0, 1, 1], where="post", color="#bbbbbb", linewidth=3, zorder=1)
    above.annotate(
        "exact step", (1.24, 1), (0, -9), textcoords="offset points", color="#777777",
        fontsize=6.5, ha="center",
    )  # fmt: skip
    for spec, label in labels.items():
        function = spike_function(spec).train()
        x = torch.linspace(-2.0, 2.0, 801, dtype=torch.float64, requires_grad=True)
        output = function(x)
        (slope,) = torch.autograd.grad(output.sum(), x)
        if trains_smooth(function):
            above.plot(x.detach(), output.detach(), **shown[label])
        below.plot(x.detach(), slope, **shown[label])
    above.set(ylabel="output in training", ylim=(-0.05, 1.08))
    below.set(ylabel="derivative in training", xlabel="potential minus threshold")
    return figure


@dataclass(frozen=True)
class Picture:
    """A figure with the name of its files, and what it shows."""

    name: str
    title: str
    caption: str
    figure: Figure

    def save(self, folder: Path) -> None:
        """Writes ``<name>.png`` and ``<name>.pdf`` into ``folder``."""
        save_figure(self.figure, folder, self.name)

    def data_uri(self) -> str:
        """The figure as an SVG within a ``data:`` address."""
        file = io.BytesIO()
        self.figure.savefig(file, format="svg", metadata={"Date": None})
        return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"


def of_data_set(data: str, summaries: Sequence[Summary], looks: Looks) -> list[Picture]:
    """The figures of one data set."""
    return [
        Picture(
            f"{file_name(data)}-accuracy",
            "Test accuracy",
            "Mean and 95 % t-interval over seeds of the network that fires with the exact step; a "
            "tick is a seed; an open diamond is the mean of the network as it was trained, smooth.",
            accuracies(summaries, looks),
        ),
        Picture(
            f"{file_name(data)}-learning",
            "Learning curves",
            "Validation error (1 - accuracy) of the network that fires with the exact step, and "
            "training loss. Line: mean over seeds; band: from the least to the greatest seed.",
            learning_curves(summaries, looks),
        ),
    ]


def of_functions(looks: Looks) -> Picture:
    """The spike functions and their derivatives."""
    return Picture(
        "functions",
        "Spike functions and derivatives",
        "Above, what a neuron outputs in training: smooth functions as curves, all others are the "
        "exact step. Below, the derivative that training uses.",
        spike_functions(looks),
    )


def file_name(data: str) -> str:
    """The data set's name with nothing in it that a path could stumble over."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", data).strip(".")
