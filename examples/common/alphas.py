"""Maps over HTAF's two sharpness parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from numpy.typing import NDArray


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
