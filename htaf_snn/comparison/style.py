"""How a comparison is drawn: one look a contender, the same in every figure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from .conclusion import is_built_in
from .statistics import REFERENCE

COLUMN = 3.5  # inches: a column of a two-column paper, and about a phone's width
MAP = "cividis"  # reads the same with every kind of colour vision
SIGNED_MAP = "PuOr"  # white at 0, safe for the colour-blind

_HTAF = ("#0b3c8c", "#2f7fd6", "#7fb3e6", "#1aa7c4", "#7d5fd3")  # one hue family, default first
_BASELINES = ("#000000", "#7a7a7a")
# Paul Tol's "muted" scheme without its blues (personal.sron.nl/~pault), sand darkened for white.
_BUILT_IN = ("#cc6677", "#117733", "#c9a227", "#882255", "#44aa99", "#999933", "#aa4499")
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
    """A look for each contender; HTAF and its variants in blues, on top of the others.

    Baselines are black and grey. Where a family has more members than colours, its colours come
    again with the next dashes.

    Args:
        spikes: labels, each once; the order decides the colours within a family.
    """
    found: dict[str, Look] = {}
    families = {_HTAF: 0, _BASELINES: 0, _BUILT_IN: 0}
    ordered = sorted(spikes, key=lambda spike: spike != REFERENCE)  # the default takes the first
    for spike in ordered:
        colors = _family(spike)
        number = families[colors]
        families[colors] += 1
        if colors is _BUILT_IN:
            dashes = _DASHES[number // len(colors) % len(_DASHES)]
        else:  # the first is solid, no other
            dashes = _DASHES[(number - 1) % (len(_DASHES) - 1) + 1 if number else 0]
        width, zorder = (1.0, 3.0) if colors is not _HTAF else (1.2, 4.0)
        if spike == REFERENCE:  # a wide line under its variants' dashes: seen where they coincide
            width, zorder = 2.2, 3.5
        found[spike] = Look(
            color=colors[number % len(colors)],
            dashes=dashes,
            marker=_MARKERS[number % len(_MARKERS)],
            width=width,
            zorder=zorder,
        )
    return {spike: found[spike] for spike in spikes}


def _family(spike: str) -> tuple[str, ...]:
    if spike.startswith(REFERENCE):
        return _HTAF
    return _BUILT_IN if is_built_in(spike) else _BASELINES


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
