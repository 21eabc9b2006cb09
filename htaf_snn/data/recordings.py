"""Event recordings as structured arrays, whatever their files' format."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extras import needed
from ..files import is_hidden
from .readers import READERS as READERS
from .readers import SENSOR_SIZES
from .readers.columns import UNITS, Columns
from .readers.columns import Format as Format
from .readers.hdf5 import SUFFIXES, count_of_many
from .readers.hdf5 import file_of as file_of

SensorSize = tuple[int, int, int]  # W, H, P
Events = NDArray[np.void]  # of `EVENT`, in order of time

EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.bool_)])

_LATEST_US = 1 << 62  # two such times have a difference that fits 64 bits


def import_tonic() -> Any:
    """Tonic, or an error that says how to install it."""
    return needed("tonic")


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
    with _named(path, "; the file can't be read as events"):
        columns = READERS[suffix](path, format)
    with _named(path):
        return _checked(columns, sensor_size, format)


def sensor_in_header(path: Path, format: Format | None = None) -> tuple[int, int] | None:
    """(W, H) that a recording's file names, or None where it names none.

    .aedat and .aedat4 files do; .raw and .dat files mostly; .npz and .h5 files do by
    ``sensor_size``, a (W, H) or (W, H, P).

    Raises:
        ValueError: a damaged file.
    """
    suffix = file_of(path).suffix.lower()
    if suffix not in SENSOR_SIZES:
        return None
    with _named(path, "; the file can't be read as events"):
        size = SENSOR_SIZES[suffix](path, format or Format())
        if size is None:
            return None
        numbers = np.asarray(size).ravel()
        if len(numbers) < 2 or not all(0 < n < 1 << 15 and n == int(n) for n in numbers[:2]):
            raise ValueError(f"a sensor of size {numbers.tolist()}")
        return int(numbers[0]), int(numbers[1])


def files_at(where: Path) -> list[Path]:
    """One file of recordings, or those anywhere in a folder, in the order in which people count.

    Raises:
        FileNotFoundError: there is none.
    """
    files = [where]
    if where.is_dir():
        files = [
            path
            for path in where.rglob("*")
            if path.suffix.lower() in READERS
            and not any(map(is_hidden, path.relative_to(where).parts))
            and path.is_file()
        ]
        files.sort(
            key=lambda path: [
                int(part) if place % 2 else part  # 2 before 10
                for place, part in enumerate(re.split(r"(\d+)", str(path)))
            ]
        )
    if not files or not file_of(files[0]).is_file():
        raise FileNotFoundError(f"no event recording ({', '.join(READERS)}) at {where}")
    return files


def recordings_in(path: Path) -> list[Path]:
    """The recordings in a file: ``path/0``, ``path/1``, ... if it holds many, else ``path``."""
    count = None
    if path.suffix.lower() in SUFFIXES:
        with contextlib.suppress(ValueError):  # which reading it raises anew
            count = count_of_many(path)
    return [path] if count is None else [path / str(number) for number in range(count)]


@contextlib.contextmanager
def _named(path: Path, remedy: str = "") -> Iterator[None]:
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
    if not len(columns.x) == len(columns.y) == len(columns.t) == len(columns.p):
        raise ValueError(
            f"x, y, t and p differ in length ({len(columns.x)}, {len(columns.y)}, "
            f"{len(columns.t)}, {len(columns.p)})"
        )
    if len(columns.t) == 0:
        raise ValueError("no event in the recording")
    x, y = _coordinates("x", columns.x), _coordinates("y", columns.y)
    t = _microseconds(columns, format)
    p = _polarities(columns.p)
    if format.flip_y and sensor_size is not None:
        y = sensor_size[1] - 1 - y
    if format.to_origin:
        x, y = x - x.min(), y - y.min()
    width, height = (1 << 15, 1 << 15) if sensor_size is None else sensor_size[:2]
    row = _first((x < 0) | (x >= width) | (y < 0) | (y >= height))
    if row is not None:
        sensor = "a sensor" if sensor_size is None else f"the {width}x{height} sensor"
        raise ValueError(
            f"row {row}: event at x={x[row]}, y={y[row]} lies outside {sensor}; the file is "
            "corrupt or from another sensor, or `data.sensor_size` or `data.ordering` is not its"
        )
    row = _first(np.diff(t) < 0)
    order: Any = slice(None)
    if row is not None:
        if not format.sort:
            raise ValueError(
                f"row {row + 1}: timestamps run backwards, from {t[row]} to {t[row + 1]} us; the "
                "file is corrupt, or its events are not in order: set `data.sort` to sort them"
            )
        order = np.argsort(t, kind="stable")
    if t.min() < 0:
        t = t - t.min()
    events = np.empty(len(t), EVENT)
    for name, column in (("x", x), ("y", y), ("t", t), ("p", p)):
        events[name] = column[order]
    return events


def _first(wrong: NDArray[np.bool_]) -> int | None:
    return int(np.argmax(wrong)) if wrong.any() else None


def _numbers(name: str, column: NDArray[Any]) -> NDArray[Any]:
    if column.dtype.kind not in "biuf":
        raise ValueError(f"{name} are of type {column.dtype}, which is no real number")
    if column.dtype.kind == "f":
        row = _first(~np.isfinite(column))
        if row is not None:
            raise ValueError(f"row {row}: {name}={column[row]}")
    return column


def _coordinates(name: str, column: NDArray[Any]) -> NDArray[np.int64]:
    column = _numbers(name, column)
    if column.dtype.kind == "f":
        row = _first(column != np.floor(column))
        if row is not None:
            raise ValueError(
                f"row {row}: {name}={column[row]} is no pixel; round the coordinates first"
            )
    row = _first(np.abs(column.astype(np.float64)) >= 1 << 31)
    if row is not None:
        raise ValueError(f"row {row}: {name}={column[row]} lies outside any sensor")
    return column.astype(np.int64)


def _polarities(column: NDArray[Any]) -> NDArray[np.bool_]:
    column = _numbers("p", column)
    row = _first(~np.isin(column, (-1, 0, 1)))
    if row is not None:
        raise ValueError(f"row {row}: p={column[row]}; polarities must be 0 and 1, or -1 and 1")
    negative = column < 0
    if negative.any() and (column == 0).any():
        raise ValueError(
            f"row {_first(column == 0)}: p=0, and row {_first(negative)}: p=-1; polarities must be "
            "0 and 1, or -1 and 1"
        )
    positive: NDArray[np.bool_] = column > 0
    return positive


def _microseconds(columns: Columns, format: Format) -> NDArray[np.int64]:
    t = _numbers("t", columns.t)
    if format.time_unit != "auto":
        factor = UNITS[format.time_unit]
    elif columns.unit is not None:
        factor = UNITS[columns.unit] * format.t_unit
    elif t.dtype.kind == "f" and (t != np.floor(t)).any():
        factor = UNITS["s"]
    else:
        factor = float(format.t_unit)
    t = _unwrapped(t, 1 << columns.clock_bits)
    row = _first(np.abs(t.astype(np.float64)) * factor >= _LATEST_US)
    if row is not None:
        raise ValueError(
            f"row {row}: t={t[row]} in units of {factor:g} us is past what 64 bits hold; set "
            "`data.time_unit` to the file's"
        )
    if t.dtype.kind == "f":
        return np.rint(t.astype(np.float64) * factor).astype(np.int64)
    whole = t.astype(np.int64)
    if factor < 1:
        return whole // round(1 / factor)
    return whole * round(factor)


def _unwrapped(t: NDArray[Any], clock: int) -> NDArray[Any]:
    """Whole-numbered times of a clock that begins anew at ``clock``, or at half as a negative.

    It has where they jump back by nearly its range, and nowhere by less that is not little.
    """
    if t.dtype.kind == "f" and (t != np.floor(t)).any():
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
