"""Tools of the readers: columns of events by their names or contents, and headers of text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_NAMES = {
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "t": ("t", "ts", "timestamp", "timestamps", "time", "times"),
    "p": ("p", "ps", "on", "pol", "pols", "polarity", "polarities"),
}
ALWAYS_READ = 64 << 20  # bytes; a column of one value compresses without bound
RATIO = 100  # of bytes in memory to bytes stored, above that

_LONGEST_LINE = 1 << 16
_CONTROLS = set(range(32)) - set(b"\t\r")
_READ = ("evt", "format", "geometry", "width", "height")  # of what `fields_of` finds

SIZES: dict[str, tuple[int, int]] = {
    "dvs128": (128, 128),
    "davis128": (128, 128),
    "davis208": (208, 192),
    "davis240": (240, 180),
    "davis346": (346, 260),
    "davis640": (640, 480),
    "dvxplorer": (640, 480),
}  # (W, H) of cameras
_OTHERS = ((28, 28), (34, 34), (304, 240), (320, 240), (640, 480), (1280, 720))
_FILLED = 0.9  # of each side, from which on events are taken to be of a known sensor


@dataclass(frozen=True)
class Columns:
    """The columns of a recording as its file holds them."""

    x: NDArray[Any]
    y: NDArray[Any]
    t: NDArray[Any]
    p: NDArray[Any]
    unit: str | None = None  # of t, where the format defines it
    clock_bits: int = 32  # of the camera's clock, which begins anew after its largest time


def check_size(declared: int, stored: int, what: str) -> None:
    """Refuses what would fill the memory out of a small file: bytes declared, and bytes stored."""
    if declared > ALWAYS_READ + RATIO * stored:
        raise ValueError(
            f"{what} claims {declared} bytes in memory, and only {stored} are stored; the file is "
            "damaged or no recording"
        )


def the_one(names: Sequence[str], wanted: str | None, others: Sequence[str] = ()) -> str:
    """The name of the events to read: ``wanted``, which is `Format.events_path`, or the only one.

    ``others`` are what else the file has, for an error where there are no events.
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


def keys_of(names: Iterable[Any]) -> list[str] | None:
    """Returns the names of x, y, t and p among ``names``; None if one is missing."""
    by_lower = {str(name).lower(): str(name) for name in names}
    found = [[by_lower[o] for o in usual if o in by_lower] for usual in _NAMES.values()]
    return [first for first, *_ in found] if all(found) else None


def by_name(columns: Mapping[str, Any]) -> Columns:
    """The four columns under any of their usual names."""
    keys = keys_of(columns)
    if keys is None:
        missing = next(o for o in _NAMES.values() if not {str(n).lower() for n in columns} & set(o))
        raise ValueError(f"no field {' or '.join(missing)}, only {', '.join(map(str, columns))}")
    x, y, t, p = (np.asarray(columns[key]).ravel() for key in keys)
    return Columns(x, y, t, p)


def of_array(array: NDArray[Any], ordering: str) -> Columns:
    """The columns of a structured or an [N, 4] array."""
    if array.dtype.names is not None:
        return by_name({name: array[name] for name in array.dtype.names})
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"an array {list(array.shape)}, neither structured nor [N, 4]")
    if ordering == "auto":
        ordering = _ordering(array)
    x, y, t, p = (array[:, ordering.index(name)] for name in "xytp")
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
    coordinates = iter("xy")
    return "".join(
        "p" if i in polarity else "t" if i in time else next(coordinates) for i in range(4)
    )


def text_header(file: BinaryIO, mark: bytes, last: tuple[bytes, ...]) -> list[str]:
    """Reads the lines that begin with ``mark``, up to one of ``last``; the file stands after them.

    An event may begin with the byte of ``mark``: a line of text has no control characters, and
    ends as the first one does.
    """
    lines: list[bytes] = []
    while not lines or lines[-1].strip().lower() not in last:
        at, line = file.tell(), file.readline(_LONGEST_LINE)
        end = b"\r\n" if lines and lines[0].endswith(b"\r\n") else b"\n"
        is_text = line.endswith(end) and not set(line[: -len(end)]) & _CONTROLS
        if not (line.startswith(mark) and is_text):
            file.seek(at)
            break
        lines.append(line)
    return [line.decode("latin-1").strip() for line in lines]


def fields_of(lines: list[str]) -> dict[str, str]:
    """Keys and values of a header's lines, such as ``% format EVT3;height=720;width=1280``."""
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.lstrip("%# ").replace(":", " ").partition(" ")
        first, *more = value.split(";")
        for name, _, one in ((key, "", first), *(pair.partition("=") for pair in more)):
            name, one = name.lower().strip(), one.strip()
            if found.setdefault(name, one) != one and name in _READ:
                raise ValueError(f"its header names {name} {found[name]}, and {one}")
    return found


def size_in(fields: dict[str, str]) -> tuple[int, int] | None:
    """(W, H) that a header's fields name, or None."""
    width, _, height = fields.get("geometry", "").replace(",", "x").partition("x")
    sides = fields.get("width", width).strip(), fields.get("height", height).strip()
    return (int(sides[0]), int(sides[1])) if all(map(str.isdecimal, sides)) else None


def sensor_around(extent: tuple[int, int]) -> tuple[int, int]:
    """The smallest known (W, H) that events up to ``extent`` nearly fill; else the extent."""
    for size in sorted({*SIZES.values(), *_OTHERS}):
        if all(_FILLED * side <= used <= side for side, used in zip(size, extent, strict=True)):
            return size
    return extent
