"""Event recordings as structured arrays, whatever their files' format."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import is_hidden
from .options import Format as Format
from .readers import READERS as READERS
from .readers.columns import Columns
from .readers.hdf5 import SUFFIXES, count_of_many
from .readers.hdf5 import file_of as file_of

SensorSize = tuple[int, int, int]  # W, H, P
Events = NDArray[np.void]  # of `EVENT`, in order of time

EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.bool_)])

UNITS = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}  # microseconds in one
_LATEST_US = 1 << 62  # two such times have a difference that fits 64 bits


def read_recording(
    path: Path, sensor_size: SensorSize | None = None, format: Format | None = None
) -> Events:
    """The events of a recording, checked.

    A clock that began anew after its word's largest time runs on. Negative times are shifted, all
    alike, so that the first is 0.

    Args:
        path: a file whose suffix is one of `READERS`, or ``file.h5/17`` of one that holds many.
        sensor_size: (W, H, P) of the sensor, in pixels and polarities; None takes any.
        format: what the file leaves unsaid.

    Returns:
        a structured array with the fields x, y, t (microseconds) and p (False or True).

    Raises:
        ValueError: an unknown format, a damaged, empty or unsorted file, an event outside the
            sensor, or a number that is no time, coordinate or polarity; the message names the
            file, and the row where there is one.
        ModuleNotFoundError: the package that reads the format is not installed.
    """
    suffix = file_of(path).suffix.lower()
    if suffix not in READERS:
        raise ValueError(
            f"{path}: not an event recording by its suffix; the known ones are {', '.join(READERS)}"
        )
    format = Format() if format is None else format
    with naming(path, "; the file can't be read as events"):
        columns = READERS[suffix].read(path, format)
    with naming(path):
        return _checked(columns, sensor_size, format)


def sensor_in_header(path: Path, format: Format | None = None) -> tuple[int, int] | None:
    """(W, H) that a recording's file names, or None where it names none.

    .aedat and .aedat4 files do; .raw and .dat files mostly; .npz and .h5 files do by
    ``sensor_size``, a (W, H) or (W, H, P).
    """
    reader = READERS.get(file_of(path).suffix.lower())
    if reader is None or reader.size is None:
        return None
    with naming(path, "; the file can't be read as events"):
        size = reader.size(path, format or Format())
        if size is None:
            return None
        numbers = np.asarray(size).ravel()
        if len(numbers) < 2 or not all(0 < n < 1 << 15 and n == int(n) for n in numbers[:2]):
            raise ValueError(f"a sensor of size {numbers.tolist()}")
        return int(numbers[0]), int(numbers[1])


def files_at(where: Path) -> list[Path]:
    """One file of recordings, or those anywhere in a folder, in the order in which people count."""
    files = [where] if file_of(where).is_file() else []
    if where.is_dir():
        files = [
            path
            for path in where.rglob("*")
            if path.suffix.lower() in READERS
            and not any(map(is_hidden, path.relative_to(where).parts))
            and path.is_file()
        ]
    if not files:
        raise FileNotFoundError(f"no event recording ({', '.join(READERS)}) at {where}")
    return sorted(
        files,
        key=lambda path: [
            int(part) if place % 2 else part  # 2 before 10
            for place, part in enumerate(re.split(r"(\d+)", str(path)))
        ],
    )


def recordings_in(path: Path) -> list[Path]:
    """The recordings in a file: ``path/0``, ``path/1``, ... if it holds many, else ``path``."""
    count = None
    if path.suffix.lower() in SUFFIXES:
        with contextlib.suppress(ValueError):  # which reading it raises anew
            count = count_of_many(path)
    return [path] if count is None else [path / str(number) for number in range(count)]


@contextlib.contextmanager
def naming(path: Path, remedy: str = "") -> Iterator[None]:
    """Gives whatever a reader raises the file's name, and what follows from it."""
    try:
        yield
    except (ImportError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise  # they name what is missing
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if isinstance(error, MemoryError):
            reason = f"it needs more memory than there is ({reason})"
        raise ValueError(f"{path}: {reason}{remedy}") from error


def _checked(columns: Columns, sensor_size: SensorSize | None, format: Format) -> Events:
    lengths = [len(column) for column in (columns.x, columns.y, columns.t, columns.p)]
    if len(set(lengths)) > 1:
        raise ValueError(f"x, y, t and p differ in length ({', '.join(map(str, lengths))})")
    if lengths[0] == 0:
        raise ValueError("no event in the recording")
    x, y = _coordinates("x", columns.x), _coordinates("y", columns.y)
    t = _microseconds(columns, format)
    p = _polarities(columns.p)
    if format.flip_y and sensor_size is not None:
        y = sensor_size[1] - 1 - y
    if format.to_origin:
        x, y = x - x.min(), y - y.min()
    width, height = (1 << 15, 1 << 15) if sensor_size is None else sensor_size[:2]
    sensor = "a sensor" if sensor_size is None else f"the {width}x{height} sensor"
    _refuse(
        (x < 0) | (x >= width) | (y < 0) | (y >= height),
        lambda row: (
            f"event at x={x[row]}, y={y[row]} lies outside {sensor}; the file is corrupt "
            "or from another sensor, or `data.sensor_size` or `data.ordering` is not its"
        ),
    )
    if format.sort:
        order = np.argsort(t, kind="stable")
        x, y, t, p = x[order], y[order], t[order], p[order]
    _refuse(
        np.diff(t, prepend=t[0]) < 0,
        lambda row: (
            f"timestamps run backwards, from {t[row - 1]} to {t[row]} us; the file is "
            "corrupt, or its events are not in order: set `data.sort` to sort them"
        ),
    )
    events = np.empty(len(t), EVENT)
    events["x"], events["y"], events["t"], events["p"] = x, y, t - min(t[0], 0), p
    return events


def extent(events: Events) -> tuple[int, int]:
    """(W, H) of the smallest sensor that has these events."""
    return int(events["x"].max()) + 1, int(events["y"].max()) + 1


def _refuse(wrong: NDArray[np.bool_], message: Callable[[int], str]) -> None:
    """Raises a ValueError with the first wrong row and what ``message`` says of it, if any is."""
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"row {row}: {message(row)}")


def _numbers(name: str, column: NDArray[Any]) -> NDArray[Any]:
    if column.dtype.kind not in "biuf":
        raise ValueError(f"{name} are of type {column.dtype}, which is no real number")
    if column.dtype.kind == "f":
        _refuse(~np.isfinite(column), lambda row: f"{name}={column[row]}")
    return column


def _is_fraction(column: NDArray[Any]) -> NDArray[np.bool_]:
    if column.dtype.kind != "f":  # the largest integers are no floats
        return np.zeros(len(column), np.bool_)
    return np.asarray(column != np.floor(column))


def _coordinates(name: str, column: NDArray[Any]) -> NDArray[np.int64]:
    column = _numbers(name, column)
    _refuse(
        _is_fraction(column),
        lambda row: f"{name}={column[row]} is no pixel; round the coordinates first",
    )
    _refuse(
        np.abs(column.astype(np.float64)) >= 1 << 31,
        lambda row: f"{name}={column[row]} lies outside any sensor",
    )
    return column.astype(np.int64)


def _polarities(column: NDArray[Any]) -> NDArray[np.bool_]:
    column = _numbers("p", column)
    allowed = "polarities must be 0 and 1, or -1 and 1"
    _refuse(~np.isin(column, (-1, 0, 1)), lambda row: f"p={column[row]}; {allowed}")
    negative = np.flatnonzero(column < 0)
    if len(negative):
        _refuse(column == 0, lambda _: f"p=0, and row {negative[0]}: p=-1; {allowed}")
    return np.asarray(column > 0)


def _microseconds(columns: Columns, format: Format) -> NDArray[np.int64]:
    t = _numbers("t", columns.t)
    if format.time_unit != "auto":
        factor = UNITS[format.time_unit]
    elif columns.unit is not None:
        factor = UNITS[columns.unit] * format.t_unit
    else:
        factor = UNITS["s"] if _is_fraction(t).any() else float(format.t_unit)
    t = _unwrapped(t, 1 << columns.clock_bits)
    _refuse(
        np.abs(t.astype(np.float64)) * factor >= _LATEST_US,
        lambda row: (
            f"t={t[row]} in units of {factor:g} us is past what 64 bits hold; set "
            "`data.time_unit` to the file's"
        ),
    )
    if t.dtype.kind == "f":
        return np.rint(t.astype(np.float64) * factor).astype(np.int64)
    whole = t.astype(np.int64)
    return whole // round(1 / factor) if factor < 1 else whole * round(factor)


def _unwrapped(t: NDArray[Any], clock: int) -> NDArray[Any]:
    """Whole-numbered times of a clock that begins anew at ``clock``, or at half as a negative.

    A jump back by nearly its whole range is taken for that, unless there are jumps back by less
    that are not small either: then the events are out of order.
    """
    if _is_fraction(t).any():
        return t
    least, most = int(t.min()), int(t.max())
    if not (0 <= least <= most < clock or -clock // 2 <= least <= most < clock // 2):
        return t
    jumps = np.diff(t.astype(np.int64))
    near, disorder = clock - clock // 16, clock // 16
    if not (jumps <= -near).any() or ((jumps < -disorder) & (jumps > -near)).any():
        return t
    loops = np.cumsum((jumps <= -near).astype(np.int64) - (jumps >= near))
    whole: NDArray[np.int64] = t.astype(np.int64)
    whole[1:] += loops * clock
    return whole
