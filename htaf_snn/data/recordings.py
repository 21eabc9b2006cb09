"""Event recordings as structured arrays, whatever their files' format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

SensorSize = tuple[int, int, int]  # W, H, P
Events = NDArray[np.void]  # of `EVENT`, in order of time

EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.bool_)])

_BYTES_AN_EVENT = 5  # of N-MNIST's format
_OTHER_NAMES = {"x": ("x",), "y": ("y",), "t": ("t", "ts"), "p": ("p", "on", "pol", "polarity")}


@dataclass(frozen=True)
class Format:
    """What a data set's files leave unsaid.

    Args:
        ordering: the columns of a plain [N, 4] array, a permutation of "xytp".
        t_unit: microseconds in one unit of the file's t.
        flip_y: whether y counts from the lower edge.
        to_origin: whether the smallest x and y become 0.
    """

    ordering: str = "xytp"
    t_unit: int = 1
    flip_y: bool = False
    to_origin: bool = False

    def __post_init__(self) -> None:
        if sorted(self.ordering) != sorted("xytp"):
            raise ValueError(f"`ordering` (={self.ordering}) must be a permutation of xytp")


XYTP = Format()


def import_tonic() -> Any:
    """Tonic, or an error that says how to install it."""
    return _import("tonic")


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModuleNotFoundError(
            f"event data is read by the package {name}, which is not installed: "
            "pip install 'htaf-snn[events]'",
            name=name,
        ) from error


def read_recording(path: Path, sensor_size: SensorSize, format: Format = XYTP) -> Events:
    """The events of a recording, checked.

    Args:
        path: a file whose suffix is one of `READERS`.
        sensor_size: (W, H, P) of the sensor, in pixels and polarities.
        format: what the file leaves unsaid.

    Returns:
        a structured array with the fields x, y, t (microseconds) and p (False or True).

    Raises:
        ValueError: an unknown format, a damaged, empty or unsorted file, or an event outside the
            sensor; the message names the file.
        ModuleNotFoundError: the package that reads the format is not installed.
    """
    if path.suffix.lower() not in READERS:
        raise ValueError(
            f"{path}: not an event recording by its suffix; the known ones are {', '.join(READERS)}"
        )
    try:
        fields = READERS[path.suffix.lower()](path, format)
        x, y, t, p = (np.asarray(fields[name]).ravel() for name in "xytp")
    except ImportError:
        raise
    except Exception as error:  # whatever the formats' readers raise
        raise _unreadable(path, error) from error
    if not len(x) == len(y) == len(t) == len(p):
        raise ValueError(f"{path}: x, y, t and p differ in length")
    if len(t) == 0:
        raise ValueError(f"{path}: no event in the recording")
    width, height, _ = sensor_size
    x, y, t = x.astype(np.int64), y.astype(np.int64), t.astype(np.int64) * format.t_unit
    if format.flip_y:
        y = height - 1 - y
    if format.to_origin:
        x, y = x - x.min(), y - y.min()
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    if outside.any():
        first = np.argmax(outside)
        raise ValueError(
            f"{path}: event at x={x[first]}, y={y[first]} lies outside the "
            f"{width}x{height} sensor; the file is corrupt or from another sensor"
        )
    if (np.diff(t) < 0).any():
        raise ValueError(f"{path}: timestamps run backwards; the file is corrupt")
    if not np.isin(p, (-1, 0, 1)).all():
        raise ValueError(f"{path}: polarities must be 0 and 1, or -1 and 1")
    events: Events = import_tonic().io.make_structured_array(x, y, t, p > 0, dtype=EVENT)
    return events


def sensor_in_header(path: Path) -> tuple[int, int] | None:
    """(W, H) that a recording's file names, or None where it names none.

    .aedat4 files always do; .npz and .h5 files do by ``sensor_size``, a (W, H) or (W, H, P).

    Raises:
        ValueError: a damaged file.
    """
    try:
        size = _header(path)
    except ImportError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    if size is None:
        return None
    width, height = np.asarray(size).tolist()[:2]
    return int(width), int(height)


def _header(path: Path) -> ArrayLike | None:
    if path.suffix == ".aedat4":
        streams = _import("aedat").Decoder(str(path)).id_to_stream()
        events = [stream for _, stream in sorted(streams.items()) if stream["type"] == "events"]
        return (events[0]["width"], events[0]["height"]) if events else None
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return arrays.get("sensor_size")  # type: ignore[no-any-return]
    if path.suffix in (".h5", ".hdf5"):
        with _import("h5py").File(path) as file:
            return file.attrs.get("sensor_size")  # type: ignore[no-any-return]
    return None


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: {error}; the file can't be read as events")


def _bin(path: Path, _: Format) -> Any:
    size = path.stat().st_size
    if size == 0 or size % _BYTES_AN_EVENT:
        raise ValueError(
            f"{size} bytes, which is not a positive multiple of {_BYTES_AN_EVENT}; the file is "
            "empty or cut short, fetch it again"
        )
    return import_tonic().io.read_mnist_file(str(path), EVENT)


def _aedat4(path: Path, _: Format) -> Any:
    _import("aedat")
    events = import_tonic().io.read_aedat4(str(path))
    return _by_name({name: events[name] for name in events.dtype.names})


def _npy(path: Path, format: Format) -> Any:
    array = np.load(path)
    if array.dtype.names is not None:
        return _by_name({name: array[name] for name in array.dtype.names})
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"an array {list(array.shape)}, neither structured nor [N, 4]")
    return {name: array[:, i] for i, name in enumerate(format.ordering)}


def _npz(path: Path, _: Format) -> Any:
    with np.load(path) as arrays:
        return _by_name(dict(arrays))


def _h5(path: Path, _: Format) -> Any:
    with _import("h5py").File(path) as file:
        group = file.get("events", file)
        if not hasattr(group, "keys"):  # one compound data set
            return _by_name({name: group[name] for name in group.dtype.names})
        return _by_name({name: group[name][()] for name in group})


def _mat(path: Path, _: Format) -> Any:
    from scipy.io import loadmat

    return _by_name(loadmat(path))


def _by_name(columns: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, names in _OTHER_NAMES.items():
        known = [other for other in names if other in columns]
        if not known:
            raise ValueError(f"no field {' or '.join(names)}, only {', '.join(columns)}")
        found[name] = columns[known[0]]
    return found


READERS: dict[str, Callable[[Path, Format], Any]] = {
    ".bin": _bin,
    ".aedat4": _aedat4,
    ".npy": _npy,
    ".npz": _npz,
    ".h5": _h5,
    ".hdf5": _h5,
    ".mat": _mat,
}
