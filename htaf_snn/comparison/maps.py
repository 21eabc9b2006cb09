"""Heat maps: gradient norms by layer and epoch, sensitivity to (alpha0, alpha1)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, LogLocator
from numpy.typing import NDArray

from .record import Run
from .statistics import Summary
from .style import MAP, SIGNED_MAP, broken, new_figure, whole_epochs

_POINT = re.compile(r"htaf:alpha0=(?P<alpha0>[^:@]+):alpha1=(?P<alpha1>[^:@]+)")
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


def sensitivity(runs: Sequence[Run]) -> Figure:
    """Hard accuracy and gap over (alpha0, alpha1), means over seeds.

    Args:
        runs: of one data set; labels ``htaf:alpha0=A:alpha1=B``, not necessarily a full grid.

    Raises:
        ValueError: a label of another form.
    """
    points: dict[tuple[float, float], list[Run]] = {}
    for run in runs:
        points.setdefault(grid_point(run.spike), []).append(run)
    figure = new_figure(1.2 + 2 * (0.3 + 0.24 * len({alpha1 for _, alpha1 in points})))
    panels: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("hard_accuracy", "hard test accuracy", ".3f", {"cmap": MAP}),
        ("gap_pp", "gap (pp)", "+z.1f", {"cmap": SIGNED_MAP, "norm": CenteredNorm()}),
    )
    for axes, (field, title, form, look) in zip(
        figure.subplots(2, 1, sharex=True), panels, strict=True
    ):
        means = {p: float(np.mean([getattr(r, field) for r in rs])) for p, rs in points.items()}
        over_alphas(axes, means, title, form, **look)
    axes.set_xlabel(r"$\alpha_0$")
    return figure


def over_alphas(
    axes: Axes, points: Mapping[tuple[float, float], float], title: str, form: str, **look: Any
) -> None:
    """Draws a map over (alpha0, alpha1) with each cell's number; an absent pair stays empty.

    Args:
        axes: where; its x axis gets no label, so that maps may stand above each other.
        points: the value at each (alpha0, alpha1), at least one.
        title: of the axes.
        form: format of the numbers.
        **look: arguments of ``Axes.imshow``.
    """
    alpha0s, alpha1s = (sorted({point[axis] for point in points}) for axis in (0, 1))
    values = np.full((len(alpha1s), len(alpha0s)), np.nan)
    for (alpha0, alpha1), value in points.items():
        values[alpha1s.index(alpha1), alpha0s.index(alpha0)] = value
    image = axes.imshow(values, aspect="auto", origin="lower", **look)
    _write_values(axes, image, values, form)
    axes.set_yticks(range(len(alpha1s)), [f"{a:g}" for a in alpha1s])
    axes.set_xticks(range(len(alpha0s)), [f"{a:g}" for a in alpha0s])
    axes.set_title(title)
    axes.set_ylabel(r"$\alpha_1$")
    axes.grid(visible=False)


def _write_values(axes: Axes, image: AxesImage, values: NDArray[np.float64], form: str) -> None:
    """Each cell's number, in black or white, whichever the cell's colour lets one read."""
    colors = image.to_rgba(values)
    for (row, column), value in np.ndenumerate(values):
        if math.isfinite(value):
            red, green, blue, _ = colors[row, column]
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            axes.text(
                column, row, format(value, form), ha="center", va="center", fontsize=6,
                color="white" if dark else "black",
            )  # fmt: skip


def grid_point(spike: str) -> tuple[float, float]:
    """The (alpha0, alpha1) of a label ``htaf:alpha0=A:alpha1=B``.

    Raises:
        ValueError: a label of another form.
    """
    if (found := _POINT.fullmatch(spike.partition("@")[0])) is None:
        raise ValueError(
            f"{spike!r} is no point of a sensitivity grid; it must read htaf:alpha0=A:alpha1=B"
        )
    return float(found["alpha0"]), float(found["alpha1"])
