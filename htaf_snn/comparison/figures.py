"""The figures of one data set, contender beside contender."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from .record import Epoch, Run
from .statistics import Summary
from .style import Look, broken, legend_below, legend_height, log_scale, new_figure, whole_epochs

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
