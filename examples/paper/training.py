"""Figures of how contenders trained, beside those of the report, from a comparison's records.

    python examples/paper/training.py docs/results/fair

For each data set of ``results.json`` in that folder, as PNG and PDF in its ``figures/``: accuracy
against the transfer gap, firing rates by layer, the distribution of outputs, and gradient norms by
layer and epoch. Those with nothing to show are left out.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from numpy.typing import NDArray

from htaf_snn.comparison import Run, plots, read_results
from htaf_snn.comparison.plots import Looks, Picture, broken, new_figure, over_legend
from htaf_snn.comparison.seed_statistics import Summary, summarize


def accuracy_against_gap(summaries: Sequence[Summary], looks: Looks) -> Figure:
    """Hard accuracy over the gap: mean with intervals, and every seed; up and 0 is best."""
    figure, (axes,) = over_legend({s.spike: looks[s.spike] for s in summaries}, 2.5)
    axes.axvline(0, color="#999999", linewidth=0.8, zorder=1)
    for summary in summaries:
        look = looks[summary.spike]
        gaps = [run.gap_pp for run in summary.runs]
        hard = [run.hard_accuracy for run in summary.runs]
        axes.scatter(gaps, hard, s=7, color=look["color"], alpha=0.35, linewidths=0, zorder=2)
        gap, mean = summary.estimate("gap_pp"), summary.estimate("hard_accuracy")
        axes.errorbar(
            gap.mean, mean.mean, xerr=gap.half_width, yerr=mean.half_width, color=look["color"],
            marker=look["marker"], markersize=4.5, elinewidth=0.7, zorder=look["zorder"],
        )  # fmt: skip
    axes.set(xlabel="gap: soft minus hard accuracy (pp)", ylabel="hard test accuracy")
    return figure


def firing_rates(summaries: Sequence[Summary], looks: Looks) -> Figure:
    """Spikes a neuron and time step, layer by layer, mean over seeds."""
    figure, (axes,) = over_legend({s.spike: looks[s.spike] for s in summaries}, 2.6)
    layers = list(summaries[0].runs[0].firing_rate_by_layer)
    for summary in summaries:
        rates = [[run.firing_rate_by_layer[layer] for layer in layers] for run in summary.runs]
        axes.plot(np.mean(rates, 0), **looks[summary.spike] | {"markersize": 3})
    crowded = len(layers) > 8 or max(map(len, layers)) > 8
    turned: dict[str, Any] = {"rotation": 45, "ha": "right"} if crowded else {}
    axes.set_xticks(range(len(layers)), layers, **turned)
    axes.set(xlabel="layer", ylabel="firing rate, exact step")
    axes.set_ylim(bottom=0)
    return figure


def output_shares(summaries: Sequence[Summary], looks: Looks) -> Figure:
    """Share of the neurons' outputs by value, on a log axis; what lies inside is not yet binary."""
    figure, (axes,) = over_legend({s.spike: looks[s.spike] for s in summaries}, 2.5)
    for summary in summaries:
        shares: NDArray[np.float64] = np.mean([run.outputs for run in summary.runs], 0)
        centres = (np.arange(len(shares)) + 0.5) / len(shares)
        shown = np.where(shares > 0, shares, np.nan)
        axes.plot(centres, shown, markevery=[0, -1], **looks[summary.spike])
    axes.set(
        xlabel="output of a neuron in the last training step",
        ylabel="share of outputs",
        yscale="log",
        xlim=(0, 1),
    )
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
            values, norm=norm, cmap=plots.MAP, aspect="auto", interpolation="nearest",
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
    plots.whole_epochs(grid[0, 0])
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


def of_data_set(data: str, summaries: Sequence[Summary], looks: Looks) -> Iterator[Picture]:
    """The figures of one data set, but for those with nothing to show."""
    prefix = plots.file_name(data)
    if any(run.gap_pp for summary in summaries for run in summary.runs):
        yield Picture(
            f"{prefix}-gap",
            "Accuracy against gap",
            "Mean with 95 % t-intervals over seeds, and each seed as a dot. Without a gap, the "
            "step costs nothing; a surrogate gradient has none by definition.",
            accuracy_against_gap(summaries, looks),
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


def main(folder: Path) -> str:
    """Draws the figures of the comparison in a folder; returns what they are."""
    runs = list(read_results(folder).runs.values())
    (folder / "figures").mkdir(exist_ok=True)
    said = []
    with plots.drawing():
        looks = plots.looks(list(dict.fromkeys(run.spike for run in runs)))
        for data, summaries in summarize(runs).items():
            for picture in of_data_set(data, summaries, looks):
                picture.save(folder / "figures")
                said.append(f"{folder}/figures/{picture.name}.png: {picture.caption}")
    return "\n".join(said)


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
