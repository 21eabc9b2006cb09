"""The figures, each a function that returns it with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import depth, function
from .function import Curve
from .panel import STYLES, Drawn, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ALPHA0, _ALPHA1 = r"$\alpha_0$", r"$\alpha_1$"
_X, _X_SIZE = "$x$ (dimensionless)", "$|x|$ (dimensionless)"
_SMALLEST = 1e-20  # gradient norm that is drawn; below it, 0 included, it stands for them


def outputs() -> Drawn:
    """HTAF at alpha0 = 1.5 over alpha1."""
    figure, [axes] = panels()
    curves = function.outputs()
    _lines(axes, curves, _ALPHA1)
    axes.set(xlabel=_X, ylabel=r"HTAF($x$; 1.5, $\alpha_1$) (dimensionless)")
    axes.legend(loc="upper left")
    return Drawn(figure, *_columns("x", curves))


def gradient_ratio() -> Drawn:
    """HTAF's derivative over that of HTAF at alpha0 = alpha1 = 1.5."""
    figure, grid = panels(1, 2)
    of_alpha1, of_alpha0 = (
        function.gradient_ratios_of_alpha1(),
        function.gradient_ratios_of_alpha0(),
    )
    _lines(grid[0], of_alpha1, _ALPHA1)
    _lines(grid[1], of_alpha0, _ALPHA0)
    for axes, fixed in zip(grid, (_ALPHA0, _ALPHA1), strict=True):
        axes.axhline(1, color="grey", linewidth=0.8)
        axes.set(xlabel=_X_SIZE, yscale="log", title=f"{fixed} = 1.5")
        axes.set_ylabel(r"HTAF$'$($x$; $\alpha_0$, $\alpha_1$) / HTAF$'$($x$; 1.5, 1.5)")
    grid[0].set_ylim(top=100)  # room for the legend
    grid[0].legend(loc="upper right", ncols=2)
    grid[1].legend(loc="lower left")
    return Drawn(figure, *_columns("|x|", [*of_alpha1, *of_alpha0]))


def tail_ratio() -> Drawn:
    """HTAF's derivative over that of the scaled sigmoid of the same slope at 0."""
    figure, [axes] = panels()
    curves = function.tail_ratios()
    axes.axhline(1, color="grey", linewidth=0.8)
    _lines(axes, curves, _ALPHA1)
    axes.set(xlabel=r"$\alpha_0\alpha_1|x|$ (dimensionless)", yscale="log")
    axes.set_ylabel(r"HTAF$'$($x$) / derivative of sigmoid($\alpha_0\alpha_1x$)")
    axes.legend(loc="upper left")
    return Drawn(figure, *_columns("alpha0 alpha1 |x|", curves))


def tolerance() -> Drawn:
    """The bound of alpha0 and of alpha0 * alpha1 over alpha1."""
    figure, grid = panels(1, 2)
    alpha1, alpha0 = function.bound()
    product, limit = alpha0 * alpha1, function.tolerance_limit()
    chosen = 11.0  # the paper's alpha1
    least = function.least_alpha0(chosen)
    grid[0].plot(alpha1.numpy(), alpha0.numpy(), **STYLES[0])
    grid[1].plot(alpha1.numpy(), product.numpy(), **STYLES[0])
    names = (_ALPHA0, r"$\alpha_0\alpha_1$")
    for axes, value, name in zip(grid, (least, chosen * least), names, strict=True):
        label = f"{value:.4g} at {_ALPHA1} = {chosen:g}"
        axes.plot([chosen], [value], "o", color="#000000", label=label)
        axes.set(xlabel=f"{_ALPHA1} (dimensionless)", ylabel=f"least {name} (dimensionless)")
    grid[1].axhline(limit, **STYLES[1], label=f"limit, {limit:.2f}")
    grid[0].set_ylim(0, 15)
    grid[1].set_ylim(20, 40)
    for axes in grid:
        axes.legend()
    rows = np.stack([alpha1, alpha0, product], axis=1).tolist()
    return Drawn(figure, ("alpha1", "least alpha0", "least alpha0 alpha1"), rows)


def gradient_norms(runs: Sequence[depth.Trained]) -> Drawn:
    """The first layer's gradient norm over epochs, and its ratio to the last layer's.

    Lines are medians over the seeds, bands go from the least to the greatest.
    """
    setups = list(dict.fromkeys(run.setup for run in runs))
    figure, grid = panels(2, len(setups))
    measures = (
        (depth.first_norms, "gradient norm, first layer\n(dimensionless)"),
        (depth.ratios, "gradient norm, first layer\nover last layer"),
    )
    for position, (setup, (measure, name)) in enumerate(
        (setup, measure) for measure in measures for setup in setups
    ):
        axes = grid[position]
        for activation, style in zip(depth.ACTIVATIONS, STYLES, strict=True):
            members = [r for r in runs if (r.setup, r.activation) == (setup, activation)]
            values = np.maximum(measure(members), _SMALLEST)
            epochs = range(values.shape[1])
            axes.plot(epochs, np.median(values, axis=0), label=activation, **style)
            axes.fill_between(
                epochs, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0
            )
        axes.set(yscale="log", xlabel="epoch (0: before any update)")
        least, greatest = axes.get_ylim()
        axes.set_ylim(min(least, greatest / 1e3), greatest)  # what is flat shall look flat
        if position % len(setups) == 0:
            axes.set_ylabel(name)
        if position < len(setups):
            axes.set_title(str(setup))
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    rows = [
        (run.setup.initial, run.setup.lr, run.activation, run.seed, epoch, first, last)
        for run in runs
        for epoch, (first, last) in enumerate(zip(run.first, run.last, strict=True))
    ]
    header = ("initial weights", "lr", "activation", "seed", "epoch", "first layer", "last layer")
    return Drawn(figure, header, rows, depth.table(runs))


def _lines(axes: Axes, curves: Sequence[Curve], varied: str) -> None:
    for curve, style in zip(curves, STYLES, strict=False):
        value = curve.alpha0 if varied == _ALPHA0 else curve.alpha1
        axes.plot(curve.x.numpy(), curve.y.numpy(), label=f"{varied} = {value:g}", **style)


def _columns(x: str, curves: Sequence[Curve]) -> tuple[list[str], list[list[float]]]:
    """The curves, which share their x, as a header and rows."""
    columns = np.stack([curves[0].x, *(curve.y for curve in curves)], axis=1)
    return [x, *(f"alpha0={c.alpha0:g} alpha1={c.alpha1:g}" for c in curves)], columns.tolist()
