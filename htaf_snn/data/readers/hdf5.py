"""Events in HDF5 files, wherever they lie: v2e, DSEC, MVSEC, Prophesee and others; and MATLAB's.

A file of SHD or SSC holds many recordings, of which ``file.h5/17`` is one.
"""

import contextlib
import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...extras import needed
from ..options import Format
from .columns import Columns, by_name, check_size, keys_of, of_array, the_one
from .guarded import guarded

CHANNELS = 700  # of SHD and SSC
SUFFIXES = (".h5", ".hdf5")
_MOST_OBJECTS = 10_000  # that a file is searched for


def file_of(path: Path) -> Path:
    """The file that a recording lies in: itself, or the one that holds it among others."""
    holds = path.parent.suffix.lower() in SUFFIXES and path.parent.is_file()
    return path.parent if holds else path


@guarded("h5py")
def read(path: Path, format: Format) -> Columns:
    """Events of a group of four columns, of a compound data set, or of an [N, 4] table.

    Where several fit, ``/events`` and Prophesee's ``/CD/events`` come first. Columns of seconds
    and of microseconds both occur; the caller settles that.
    """
    with contextlib.suppress(ModuleNotFoundError):
        needed("hdf5plugin")  # DSEC's and others' compression
    with needed("h5py").File(file_of(path)) as file:
        many = _many(file)
        if many is not None or file_of(path) != path:
            return _one_of_many(many, None if file_of(path) == path else path.name)
        name = _chosen(file, format)
        if _is_group(file[name]):
            columns = by_name({key: _values(file[name][key]) for key in keys_of(file[name]) or ()})
        else:
            columns = of_array(_values(file[name]), format.ordering)
        return replace(columns, unit="us") if name.endswith("CD/events") else columns


@guarded("h5py")
def sensor_size(path: Path, _: Format) -> Any:
    """(W, H) by the attribute ``sensor_size``, ``geometry`` or ``width`` and ``height``; or None.

    They may stand at the file or at ``/events`` or ``/CD``. SHD and SSC have 700 channels.
    """
    with needed("h5py").File(file_of(path)) as file:
        if _many(file) is not None:
            return CHANNELS, 1
        for place in (file, *(file[n] for n in ("events", "CD") if file.get(n, getlink=True))):
            told = place.attrs
            if "sensor_size" in told:
                return told["sensor_size"]
            geometry = re.fullmatch(r"(\d+)x(\d+)", str(told.get("geometry", "")))
            if geometry:
                return int(geometry[1]), int(geometry[2])
            if "width" in told and "height" in told:
                return told["width"], told["height"]
    return None


@guarded("h5py")
def count_of_many(path: Path) -> int | None:
    """The number of recordings in a file of SHD or SSC; None of another file."""
    with needed("h5py").File(path) as file:
        many = _many(file)
        return None if many is None else len(many[0])


@guarded("h5py")
def labels_of_many(path: Path) -> tuple[list[int], list[str]]:
    """The labels of the recordings in a file of SHD or SSC, and the names of the classes."""
    with needed("h5py").File(path) as file:
        many, labels, keys = _many(file), _own(file, "labels"), _own(file, "extra/keys")
        if many is None or labels is None or keys is None:
            raise ValueError("no spikes/times, spikes/units, labels and extra/keys, as SHD has")
        if labels.shape != many[0].shape or labels.dtype.kind not in "iu":
            raise ValueError(
                f"labels {list(labels.shape)} {labels.dtype} of {len(many[0])} recordings"
            )
        return _values(labels).tolist(), [str(name) for name in keys.asstr()[()]]


def _many(file: Any) -> tuple[Any, Any] | None:
    """Times and units of the recordings of SHD's layout, an array each."""
    times, units = _own(file, "spikes/times"), _own(file, "spikes/units")
    if times is None or units is None or times.shape != units.shape or times.ndim != 1:
        return None
    return times, units


def _own(file: Any, name: str) -> Any:
    """A data set that lies in the file itself; None where there is none."""
    h5py = needed("h5py")
    for part in itertools.accumulate(name.split("/"), "{}/{}".format):
        if not isinstance(file.get(part, getlink=True), h5py.HardLink):
            return None
    found = file[name]
    return None if _is_group(found) or found.is_virtual or found.external else found


def _one_of_many(many: tuple[Any, Any] | None, number: str | None) -> Columns:
    count = 0 if many is None else len(many[0])
    if many is None or number is None or not (number.isdecimal() and int(number) < count):
        raise ValueError(f"it holds {count} recordings by number, from FILE/0 on, no {number}")
    t, x = (column[int(number)] for column in many)
    return Columns(x, np.zeros(len(x), np.int64), t, np.ones(len(x), np.int64), "s")


def _is_group(thing: Any) -> bool:
    return hasattr(thing, "keys")


def _candidates(file: Any) -> tuple[list[str], list[str]]:
    """Names of what can be events, and of all data sets; links are not followed."""
    fit = ["/"] if keys_of(file) else []
    seen: list[str] = []

    def visit(name: str, thing: Any) -> object:
        if _is_group(thing):
            fits = keys_of(thing) is not None
        else:
            seen.append(f"{name} {list(thing.shape or ())} {thing.dtype}")
            names = thing.dtype.names
            fits = bool(keys_of(names)) if names else thing.ndim == 2 and thing.shape[1] == 4
        if fits:
            fit.append(name)
        return True if len(seen) + len(fit) > _MOST_OBJECTS else None

    file.visititems(visit)
    return fit, seen


def _chosen(file: Any, format: Format) -> str:
    fit, seen = _candidates(file)
    if format.events_path is None:
        for name in ("events", "CD/events"):
            if name in fit:
                return name
        if not fit:
            raise ValueError(
                "no x, y, t and p, and no [N, 4] table, under names that are known; the file has "
                + ("; ".join(seen[:20]) or "no data sets")
            )
    return the_one(fit, format.events_path, seen)


def _values(data: Any) -> Any:
    if data.is_virtual or data.external:
        raise ValueError(f"{data.name} lies in other files, which are not read")
    check_size(data.size * data.dtype.itemsize, data.id.get_storage_size(), data.name)
    values = data[()]
    if data.ndim == 2 and 1 in data.shape:
        return np.asarray(values).ravel()  # MATLAB's vectors
    return values


def read_mat(path: Path, format: Format) -> Columns:
    """Events of four variables, of a structure's four fields, or of an [N, 4] matrix.

    Files up to version 7 are read by SciPy; version 7.3 is HDF5.
    """
    with path.open("rb") as file:
        is_hdf5 = file.read(520)[512:] == b"\x89HDF\r\n\x1a\n"
    return read(path, format) if is_hdf5 else _read_mat(path, format)


@guarded("scipy.io", limited=True)
def _read_mat(path: Path, format: Format) -> Columns:
    found: dict[str, Any] = needed("scipy.io").loadmat(path)
    variables = {name: value for name, value in found.items() if not name.startswith("__")}
    structures = [
        {name: value[name][0, 0] for name in value.dtype.names}
        for value in variables.values()
        if value.dtype.names is not None and value.shape == (1, 1)
    ]
    for candidate in (variables, *structures):
        if keys_of(candidate) is not None:
            return by_name(candidate)
    for value in variables.values():
        if value.ndim == 2 and value.shape[1] == 4:
            return of_array(value, format.ordering)
    return by_name(variables)  # says what is missing
