"""Columns of events, found by their names or their contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...arguments import Options
from .cameras import Camera

UNITS = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}  # microseconds in one

_NAMES = {
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "t": ("t", "ts", "timestamp", "timestamps", "time", "times"),
    "p": ("p", "ps", "on", "pol", "pols", "polarity", "polarities"),
}
ALWAYS_READ = 64 << 20  # bytes; a column of one value compresses without bound
RATIO = 100  # of bytes in memory to bytes stored, above that


@dataclass(frozen=True, kw_only=True)
class FormatOptions(Options):
    """Options for what files of recordings do not tell.

    Args:
        ordering: of event_folder: the columns of a plain [N, 4] table, a permutation of
            "xytp"; "auto" knows time and polarity by their values, and takes x to stand before y.
        time_unit: of event_folder: of the files' times, "us", "ms", "ns", "s", or "auto": what
            the format says, else fractions are seconds and whole numbers microseconds.
        sort: of event_folder: whether events that are not in order of time are sorted.
        events_path: of event_folder: the events' name where a file has several: a group or data
            set in HDF5, a topic in a ROS bag, a source's number in AEDAT 3.1.
        camera: of event_folder: of AEDAT 2.0 files whose header does not name it.
    """

    ordering: str = "auto"
    time_unit: Literal["auto", "us", "ms", "ns", "s"] = "auto"
    sort: bool = False
    events_path: str | None = None
    camera: Camera | None = None

    def check(self) -> None:
        super().check()
        if self.ordering != "auto" and sorted(self.ordering) != sorted("xytp"):
            raise ValueError(f"`ordering` (={self.ordering}) must be auto or a permutation of xytp")


@dataclass(frozen=True, kw_only=True)
class Format(FormatOptions):
    """The format of recordings: `FormatOptions`, and what is known of a published set.

    Args:
        t_unit: microseconds in one unit of the file's t, where ``time_unit`` is "auto".
        flip_y: whether y counts from the lower edge.
        to_origin: whether the smallest x and y become 0.
    """

    t_unit: int = 1
    flip_y: bool = False
    to_origin: bool = False


def the_one(names: Sequence[str], wanted: str | None, others: Sequence[str] = ()) -> str:
    """The name, in a file, of the events to read: ``wanted``, or the only one.

    Args:
        names: of what can be events, at least one unless ``wanted`` is given.
        wanted: `Format.events_path`.
        others: what else the file has, for an error where there are no events.

    Raises:
        ValueError: there is no such name, or there are several and none is wanted.
    """
    if wanted is None:
        if len(names) > 1:
            raise ValueError(f"events at {', '.join(names)}; set `data.events_path` to one of them")
        return names[0]
    found = [name for name in names if name.strip("/") == wanted.strip("/")]
    if not found:
        raise ValueError(
            f"no events at `data.events_path` (={wanted}); there are "
            f"{', '.join(names or others) or 'no data sets'}"
        )
    return found[0]


@dataclass(frozen=True)
class Columns:
    """The columns of a recording as its file holds them.

    Args:
        x, y, t, p: of equal length.
        unit: of t, where the format defines it.
        clock_bits: of the camera's clock, which begins anew after its largest time.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    t: NDArray[Any]
    p: NDArray[Any]
    unit: str | None = None
    clock_bits: int = 32


def check_size(declared: int, stored: int, what: str) -> None:
    """Refuses, before it is read, what would fill the memory out of a small file.

    Args:
        declared: bytes in memory.
        stored: bytes in the file.
        what: for the message.
    """
    if declared > ALWAYS_READ + RATIO * stored:
        raise ValueError(
            f"{what} claims {declared} bytes in memory, and only {stored} are stored; the file is "
            "damaged or no recording"
        )


def keys_of(names: Any) -> dict[str, str] | None:
    """Returns the names of x, y, t and p among ``names``; None if one is missing."""
    by_lower = {str(name).lower(): str(name) for name in names}
    found = {
        field: next((by_lower[o] for o in others if o in by_lower), None)
        for field, others in _NAMES.items()
    }
    complete = {field: name for field, name in found.items() if name is not None}
    return complete if len(complete) == 4 else None


def by_name(columns: Mapping[str, Any]) -> Columns:
    """The four columns under any of their usual names.

    Raises:
        ValueError: one is missing; the message lists what there is.
    """
    keys = keys_of(columns)
    if keys is None:
        lower = {str(name).lower() for name in columns}
        missing = next(o for o in _NAMES.values() if not lower & set(o))
        raise ValueError(f"no field {' or '.join(missing)}, only {', '.join(map(str, columns))}")
    x, y, t, p = (np.asarray(columns[keys[field]]).ravel() for field in "xytp")
    return Columns(x, y, t, p)


def of_structured(array: NDArray[Any]) -> Columns:
    """The columns of a structured array."""
    assert array.dtype.names is not None
    return by_name({name: array[name] for name in array.dtype.names})


def of_table(table: NDArray[Any], ordering: str) -> Columns:
    """The columns of an [N, 4] table.

    Raises:
        ValueError: another shape, or an "auto" ordering that the values don't settle.
    """
    if table.ndim != 2 or table.shape[1] != 4:
        raise ValueError(f"an array {list(table.shape)}, neither structured nor [N, 4]")
    if ordering == "auto":
        ordering = _ordering(table)
    x, y, t, p = (table[:, ordering.index(name)] for name in "xytp")
    return Columns(x, y, t, p)


def _ordering(table: NDArray[Any]) -> str:
    polarity = [i for i in range(4) if len(table) and np.isin(table[:, i], (-1, 0, 1)).all()]
    rest = [i for i in range(4) if i not in polarity]
    time = [i for i in rest if (table[1:, i] >= table[:-1, i]).all()]
    if len(polarity) != 1 or len(time) != 1:
        raise ValueError(
            "the values of an [N, 4] table do not tell its columns apart: "
            f"{len(polarity)} hold only -1, 0 and 1, {len(time)} of the others are in order of "
            "time; set `data.ordering` (such as txyp)"
        )
    names = dict.fromkeys(range(4), "") | {polarity[0]: "p", time[0]: "t"}
    x, y = (i for i in rest if i != time[0])
    names |= {x: "x", y: "y"}
    return "".join(names[i] for i in range(4))
