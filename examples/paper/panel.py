"""What the figures look like, and how one is written: PNG and PDF, and its numbers as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from htaf_snn.files import save_figure, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of Okabe and Ito, which the colour-blind can tell apart; the line styles, a printer.
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-"},
    {"color": "#D55E00", "linestyle": (0, (6, 2))},
    {"color": "#009E73", "linestyle": (0, (6, 1.5, 1, 1.5))},
    {"color": "#CC79A7", "linestyle": (0, (1, 1))},
    {"color": "#000000", "linestyle": (0, (3, 1, 1, 1, 1, 1))},
)


@dataclass(frozen=True)
class Drawn:
    """A figure, the numbers behind it, and what is to be said of it."""

    figure: Figure
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    text: str = ""


def panels(rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure that needs no display, and its axes, row by row, each 4 by 3.2 inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid: list[Axes] = list(np.ravel(figure.subplots(rows, columns)))
    for axes in grid:
        axes.grid(alpha=0.3)
    return figure, grid


def save(drawn: Drawn, folder: Path, name: str) -> list[Path]:
    """Writes ``name``.png (300 dots an inch), .pdf and .csv, each whole or not at all.

    Args:
        drawn: the figure.
        folder: where to; made if absent.
        name: of the files, without an ending.

    Returns:
        the paths of the three.

    Raises:
        OSError: a file can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = folder / f"{name}.csv"
    pictures = save_figure(drawn.figure, folder, name)
    write_whole(numbers, partial(_write_csv, drawn))
    return [*pictures, numbers]


def _write_csv(drawn: Drawn, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([drawn.header, *drawn.rows])
