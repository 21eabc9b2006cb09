"""The report's figures: one look a contender, the same in every figure."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray
from torch import Tensor

from ..files import save_figure
from ..surrogates import spike_function, trains_smooth
from .contender import Contender, Epoch, Run
from .statistics import REFERENCE, Summary

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
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.2,
    "lines.markersize": 3.5,
    "figure.constrained_layout.w_pad": 0.07,
    "figure.constrained_layout.h_pad": 0.06,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # embedded TrueType, which publishers ask for
    "svg.hashsalt": "htaf_snn",  # the same figure is the same file
}


@dataclass(frozen=True)
class Look:
    """A contender's colour, line and place above or below the others."""

    color: str
    dashes: Any
    marker: str
    width: float  # points
    zorder: float

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of ``Axes.plot``."""
        return {
            "color": self.color,
            "linestyle": self.dashes,
            "linewidth": self.width,
            "zorder": self.zorder,
        }


def looks(spikes: Sequence[str]) -> dict[str, Look]:
    """A look for each contender; HTAF's default in blue. Colours come again with other dashes.

    Args:
        spikes: labels, each once; the order decides the colours.
    """
    found: dict[str, Look] = {}
    rest = iter(range(1, len(spikes) + 1))
    for spike in spikes:
        number = 0 if spike == REFERENCE else next(rest)
        lap, place = divmod(number, len(_COLORS))
        found[spike] = Look(
            color=_COLORS[place],
            dashes=_DASHES[lap % len(_DASHES)],
            marker=_MARKERS[number % len(_MARKERS)],
            # a wide line under the others: seen where they coincide
            width=2.2 if spike == REFERENCE else 1.1,
            zorder=2.9 if spike == REFERENCE else 3.0,
        )
    return found


@contextmanager
def drawing() -> Iterator[None]:
    """Within it matplotlib draws in the report's style."""
    with mpl.rc_context(_RC):
        yield


def new_figure(height: float, width: float = COLUMN) -> Figure:
    """An empty figure, in inches, that lays itself out."""
    return Figure(figsize=(width, height), layout="constrained")


def legend_height(spikes: Collection[str]) -> float:
    """Inches that `legend_below` takes."""
    return 0.14 * math.ceil(len(spikes) / _legend_columns(spikes)) + 0.1


def legend_below(figure: Figure, shown: Mapping[str, Look], markers: bool = True) -> None:
    """A legend under the axes, where it covers no data."""
    handles = [
        Line2D([], [], marker=look.marker if markers else "", label=spike, **look.line)
        for spike, look in shown.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=_legend_columns(shown),
        labelspacing=0.25,
        borderaxespad=0,
    )


def _legend_columns(spikes: Collection[str]) -> int:
    return 1 if max(map(len, spikes)) > _LABEL_WIDTH else 2


def broken(spike: str) -> str:
    """A label in lines that fit beside axes, broken before a ``:`` or ``@``."""
    lines = [""]
    for part in re.split("(?=[:@])", spike):
        if lines[-1] and len(lines[-1] + part) > _LABEL_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def whole_epochs(axes: Axes) -> None:
    """Ticks at whole epochs only."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def log_scale(axes: Axes) -> None:
    """A logarithmic y axis with its ticks as plain numbers, ``0.02`` and not ``2 x 10^-2``.

    Linear if nothing on it is positive, as the losses of runs that diverged.
    """
    if not math.isfinite(axes.dataLim.minposy):
        return
    axes.set_yscale("log", nonpositive="clip")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


Looks = Mapping[str, Look]


def accuracies(summaries: Sequence[Summary], looks: Looks) -> Figure:
    """Test accuracy of each contender, best above: interval, every seed, and as trained."""
    ordered = sorted(summaries, key=lambda s: s.estimate("hard_accuracy").mean)
    labels = [broken(summary.spike) for summary in ordered]
    lines = max(label.count("\n") for label in labels) + 1
    figure = new_figure(0.75 + len(ordered) * (0.09 + 0.1 * lines))
    axes = figure.subplots()
    for row, summary in enumerate(ordered):
        look = looks[summary.spike]
        hard = summary.estimate("hard_accuracy")
        axes.hlines(row, hard.low, hard.high, look.color, linewidth=look.width)
        axes.plot(hard.mean, row, "o", color=look.color, markersize=5, zorder=4)
        own = [run.hard_accuracy for run in summary.runs]
        axes.plot(own, [row - 0.28] * len(own), "|", color=look.color, markersize=3.5)
        if any(run.gap_pp != 0 for run in summary.runs):
            soft = summary.estimate("soft_accuracy").mean
            axes.plot(soft, row, "D", mfc="white", mec=look.color, markersize=4, zorder=3)
    axes.set_yticks(range(len(ordered)), labels)
    axes.set_ylim(-0.7, len(ordered) - 0.4)
    axes.set_xlabel("test accuracy")
    axes.grid(axis="y", visible=False)
    keys = (
        Line2D([], [], marker="o", color="#444444", label="exact step, 95 % interval"),
        Line2D([], [], marker="|", linestyle="", color="#444444", label="each seed"),
        Line2D([], [], marker="D", linestyle="", mfc="white", mec="#444444", label="as trained"),
    )
    figure.legend(handles=keys, loc="outside lower center", ncols=3, handlelength=1.4)
    return figure


def learning_curves(summaries: Sequence[Summary], looks: Looks) -> Figure:
    """Validation error at the exact step and training loss by epoch, band over seeds."""
    figure = new_figure(3.6 + legend_height([s.spike for s in summaries]))
    above, below = figure.subplots(2, 1, sharex=True)
    for summary in summaries:
        look = looks[summary.spike]
        _band(above, summary.runs, lambda epoch: 1 - epoch["val_accuracy"], look)
        _band(below, summary.runs, lambda epoch: epoch["train_loss"], look)
    above.set(ylabel="validation error, exact step")
    below.set(ylabel="training loss", xlabel="epoch")
    log_scale(above)
    log_scale(below)
    whole_epochs(below)
    figure.align_ylabels()
    legend_below(figure, {s.spike: looks[s.spike] for s in summaries}, markers=False)
    return figure


def _band(axes: Axes, runs: Sequence[Run], read: Callable[[Epoch], float], look: Look) -> None:
    """The mean over seeds, and the range from the least to the greatest seed."""
    length = min(len(run.history) for run in runs)
    values = np.array([[read(epoch) for epoch in run.history[:length]] for run in runs])
    epochs = np.arange(1, length + 1)
    axes.plot(epochs, values.mean(0), **look.line)
    if len(runs) > 1:
        axes.fill_between(
            epochs, values.min(0), values.max(0), color=look.color, alpha=0.12, linewidth=0
        )


def accuracy_against_gap(summaries: Sequence[Summary], looks: Looks) -> Figure:
    """Hard accuracy over the gap: mean with intervals, and every seed; up and 0 is best."""
    figure = new_figure(2.5 + legend_height([s.spike for s in summaries]))
    axes = figure.subplots()
    axes.axvline(0, color="#999999", linewidth=0.8, zorder=1)
    for summary in summaries:
        look = looks[summary.spike]
        gaps = [run.gap_pp for run in summary.runs]
        hard = [run.hard_accuracy for run in summary.runs]
        axes.scatter(gaps, hard, s=7, color=look.color, alpha=0.35, linewidths=0, zorder=2)
        gap, mean = summary.estimate("gap_pp"), summary.estimate("hard_accuracy")
        axes.errorbar(
            gap.mean, mean.mean, xerr=gap.half_width, yerr=mean.half_width, color=look.color,
            marker=look.marker, markersize=4.5, elinewidth=0.7, zorder=look.zorder,
        )  # fmt: skip
    axes.set(xlabel="gap: soft minus hard accuracy (pp)", ylabel="hard test accuracy")
    legend_below(figure, {s.spike: looks[s.spike] for s in summaries})
    return figure


def firing_rates(summaries: Sequence[Summary], looks: Looks) -> Figure:
    """Spikes a neuron and time step, layer by layer, mean over seeds."""
    figure = new_figure(2.6 + legend_height([s.spike for s in summaries]))
    axes = figure.subplots()
    layers = list(summaries[0].runs[0].firing_rate_by_layer)
    for summary in summaries:
        look = looks[summary.spike]
        rates = [[run.firing_rate_by_layer[layer] for layer in layers] for run in summary.runs]
        axes.plot(np.mean(rates, 0), marker=look.marker, markersize=3, **look.line)
    crowded = len(layers) > 8 or max(map(len, layers)) > 8
    axes.set_xticks(
        range(len(layers)),
        layers,
        rotation=45 if crowded else 0,
        ha="right" if crowded else "center",
    )
    axes.set(xlabel="layer", ylabel="firing rate, exact step")
    axes.set_ylim(bottom=0)
    legend_below(figure, {s.spike: looks[s.spike] for s in summaries})
    return figure


def output_shares(summaries: Sequence[Summary], looks: Looks) -> Figure:
    """Share of the neurons' outputs by value, on a log axis; what lies inside is not yet binary."""
    figure = new_figure(2.5 + legend_height([s.spike for s in summaries]))
    axes = figure.subplots()
    for summary in summaries:
        look = looks[summary.spike]
        shares: NDArray[np.float64] = np.mean([run.outputs for run in summary.runs], 0)
        centres = (np.arange(len(shares)) + 0.5) / len(shares)
        shown = np.where(shares > 0, shares, np.nan)
        axes.plot(centres, shown, marker=look.marker, markevery=[0, -1], **look.line)
    axes.set(
        xlabel="output of a neuron in the last training step",
        ylabel="share of outputs",
        yscale="log",
        xlim=(0, 1),
    )
    legend_below(figure, {s.spike: looks[s.spike] for s in summaries})
    return figure


_TINIEST = 1e-12  # a gradient norm below this is drawn as this


def gradient_norms(summaries: Sequence[Summary]) -> Figure:
    """A map a contender, first layer above, on one colour scale; geometric means over seeds."""
    maps = {s.spike: _norms(s.runs) for s in summaries}
    columns = 2
    rows = math.ceil(len(maps) / columns)
    layers = list(summaries[0].runs[0].history[0]["gradient_norms"])
    lines = max(broken(spike).count("\n") for spike in maps) + 1
    figure = new_figure(0.8 + rows * (0.1 + 0.1 * lines + 0.11 * len(layers)))
    figure.set_layout_engine("constrained", h_pad=0.02, hspace=0.0)
    finite = np.concatenate([m[np.isfinite(m)] for m in maps.values()])
    low, high = (finite.min(), finite.max()) if finite.size else (_TINIEST, 1.0)
    norm = LogNorm(low, high if high > low else 10 * low)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, (spike, values) in zip(grid.flat, maps.items(), strict=False):
        image = axes.imshow(
            values, norm=norm, cmap=MAP, aspect="auto", interpolation="nearest",
            extent=(0.5, values.shape[1] + 0.5, len(layers) - 0.5, -0.5),
        )  # fmt: skip
        axes.set_title(broken(spike), fontsize=6.5, pad=2)
        axes.set_yticks(range(len(layers)), layers, fontsize=6)
        axes.grid(visible=False)
    for axes in grid.flat[len(maps) :]:
        axes.set_visible(False)
    for axes in grid.flat[max(len(maps) - columns, 0) : len(maps)]:
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)
    whole_epochs(grid[0, 0])
    bar = figure.colorbar(
        image, ax=grid, location="bottom", label="gradient norm", aspect=40,
        ticks=LogLocator(subs=(1, 2, 5)), format=FuncFormatter(lambda value, _: f"{value:g}"),
    )  # fmt: skip
    bar.ax.minorticks_off()
    return figure


def _norms(runs: Sequence[Run]) -> NDArray[np.float64]:
    """Geometric means over the runs [layers, epochs]; NaN where a run has no finite norm."""
    length = min(len(run.history) for run in runs)
    layers = list(runs[0].history[0]["gradient_norms"])
    values = np.array(
        [
            [[epoch["gradient_norms"][layer] for epoch in run.history[:length]] for layer in layers]
            for run in runs
        ]
    )
    logs = np.log(np.where(np.isfinite(values), np.maximum(values, _TINIEST), np.nan))
    means: NDArray[np.float64] = np.exp(logs.mean(0))
    return means


def spike_functions(looks: Looks, reach: float = 2.0) -> Figure:
    """What each contender outputs in training, and the derivative that its backward pass takes.

    Contenders that differ only in how they are trained (after the ``@``) are drawn once.

    Args:
        looks: by label.
        reach: largest |x| drawn, > 0; x is the charged potential minus the threshold.

    Raises:
        ValueError: a label that `spike_function` can't build.
    """
    shown: dict[str, str] = {}  # the first label of each function
    for spike in looks:
        shown.setdefault(Contender(spike).spike, spike)
    figure = new_figure(4.0 + legend_height(shown.values()))
    above, below = figure.subplots(2, 1, sharex=True)
    x = torch.linspace(-reach, reach, 801, dtype=torch.float64)
    above.step([-reach, 0, reach], [0, 1, 1], where="post", color="#bbbbbb", linewidth=3, zorder=1)
    above.annotate(
        "exact step",
        (0.62 * reach, 1),
        (0, -9),
        textcoords="offset points",
        color="#777777",
        fontsize=6.5,
        ha="center",
    )
    for spec, spike in shown.items():
        value, slope = value_and_derivative(spec, x)
        if trains_smooth(spike_function(spec)):
            above.plot(x.numpy(), value, **looks[spike].line)
        below.plot(x.numpy(), slope, **looks[spike].line)
    above.set(ylabel="output in training", ylim=(-0.05, 1.08))
    below.set(ylabel="derivative in training", xlabel="potential minus threshold")
    figure.align_ylabels()
    legend_below(figure, {spike: looks[spike] for spike in shown.values()}, markers=False)
    return figure


def value_and_derivative(spec: str, x: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A spike function's output in training and the gradient that it passes back, at ``x``.

    Args:
        spec: as `spike_function` reads it.
        x: float64.
    """
    function = spike_function(spec).train()
    points = x.detach().requires_grad_()
    output = function(points)
    (slope,) = torch.autograd.grad(output.sum(), points)
    return output.detach().numpy(), slope.numpy()


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


def of_data_set(data: str, summaries: Sequence[Summary], looks: Looks) -> Iterator[Picture]:
    """The figures of one data set, but for those with nothing to show."""
    prefix = file_name(data)
    yield Picture(
        f"{prefix}-accuracy",
        "Test accuracy",
        "Mean and 95 % t-interval over seeds of the network that fires with the exact step; a tick "
        "is a seed; an open diamond is the mean of the network as it was trained, smooth.",
        accuracies(summaries, looks),
    )
    if any(run.gap_pp for summary in summaries for run in summary.runs):
        yield Picture(
            f"{prefix}-gap",
            "Accuracy against gap",
            "Mean with 95 % t-intervals over seeds, and each seed as a dot. Without a gap, the "
            "step costs nothing; a surrogate gradient has none by definition.",
            accuracy_against_gap(summaries, looks),
        )
    yield Picture(
        f"{prefix}-learning",
        "Learning curves",
        "Validation error (1 - accuracy) of the network that fires with the exact step, and "
        "training loss. Line: mean over seeds; band: from the least to the greatest seed.",
        learning_curves(summaries, looks),
    )
    yield Picture(
        f"{prefix}-rates",
        "Firing rates by layer",
        "Spikes a neuron and time step on the test split, exact step, mean over seeds.",
        firing_rates(summaries, looks),
    )
    if any(any(run.outputs[1:-1]) for summary in summaries for run in summary.runs):
        yield Picture(
            f"{prefix}-outputs",
            "Distribution of outputs",
            "Share of the neurons' outputs in 50 equal bins, in the last training step, mean over "
            "seeds. What lies between the ends is not yet a spike or none; a surrogate gradient "
            "has the two ends only.",
            output_shares(summaries, looks),
        )
    yield Picture(
        f"{prefix}-gradients",
        "Gradient norms by layer and epoch",
        "L2 norm of the gradient of each layer's weights, mean over the steps of an epoch, "
        "geometric mean over seeds; one colour scale for all contenders.",
        gradient_norms(summaries),
    )


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
