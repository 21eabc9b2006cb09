"""Events in HDF5 files, wherever they lie: v2e, DSEC, MVSEC, Prophesee, MATLAB 7.3 and others."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from ...extras import needed
from .columns import Columns, Format, by_name, check_size, keys_of, of_table
from .guarded import guarded

_MOST_OBJECTS = 10_000  # that a file is searched for


def read(path: Path, format: Format) -> Columns:
    """Events of a group of four columns, of a compound data set, or of an [N, 4] table.

    Where several fit, ``/events`` and Prophesee's ``/CD/events`` come first. Columns of seconds
    and of microseconds both occur; the caller settles that.
    """
    needed("h5py")
    with contextlib.suppress(ModuleNotFoundError):
        needed("hdf5plugin")  # DSEC's and others' compression
    return guarded(_read, path, format)


def _read(path: Path, format: Format) -> Columns:
    with needed("h5py").File(path) as file:
        name = _chosen(file, format)
        found = file[name]
        if _is_group(found):
            keys = keys_of(found)
            assert keys is not None
            columns = by_name({key: _values(found[key]) for key in keys.values()})
        elif found.dtype.names is not None:
            values = _values(found)
            columns = by_name({key: values[key] for key in found.dtype.names})
        else:
            columns = of_table(_values(found), format.ordering)
        prophesee = name.endswith("CD/events")
        return Columns(columns.x, columns.y, columns.t, columns.p, "us" if prophesee else None)


def sensor_size(path: Path) -> Any:
    """(W, H) by the attribute ``sensor_size``, ``geometry`` or ``width`` and ``height``; or None.

    They may stand at the file or at ``/events`` or ``/CD``.
    """
    needed("h5py")
    return guarded(_sensor_size, path)


def _sensor_size(path: Path) -> Any:
    with needed("h5py").File(path) as file:
        places = [file, *(file[n] for n in ("events", "CD") if file.get(n, getlink=True))]
        for attributes in (place.attrs for place in places):
            if "sensor_size" in attributes:
                return attributes["sensor_size"]
            geometry = re.fullmatch(r"(\d+)x(\d+)", str(attributes.get("geometry", "")))
            if geometry:
                return int(geometry[1]), int(geometry[2])
            if "width" in attributes and "height" in attributes:
                return attributes["width"], attributes["height"]
    return None


def _is_group(thing: Any) -> bool:
    return hasattr(thing, "keys")


def _candidates(file: Any) -> tuple[list[str], list[str]]:
    """Names of what can be events, and of all data sets; links are not followed."""
    fit: list[str] = []
    seen: list[str] = []

    def visit(name: str, thing: Any) -> object:
        if _is_group(thing):
            keys = keys_of(thing)
            if keys is not None:
                fit.append(name)
        else:
            seen.append(f"{name} {list(thing.shape or ())} {thing.dtype}")
            compound = thing.dtype.names is not None and keys_of(thing.dtype.names) is not None
            if compound or (thing.ndim == 2 and thing.shape[1] == 4 and thing.dtype.names is None):
                fit.append(name)
        return True if len(seen) + len(fit) > _MOST_OBJECTS else None

    if keys_of(file) is not None:
        fit.append("/")
    file.visititems(visit)
    return fit, seen


def _chosen(file: Any, format: Format) -> str:
    fit, seen = _candidates(file)
    if format.events_path is not None:
        if format.events_path.strip("/") not in [name.strip("/") for name in fit]:
            raise ValueError(
                f"no events at `data.events_path` (={format.events_path}); there are "
                f"{', '.join(fit or seen) or 'no data sets'}"
            )
        return format.events_path
    for name in ("events", "CD/events"):
        if name in fit:
            return name
    if len(fit) == 1:
        return fit[0]
    if fit:
        raise ValueError(f"events at {', '.join(fit)}; set `data.events_path` to one of them")
    raise ValueError(
        "no x, y, t and p, and no [N, 4] table, under names that are known; the file has "
        + ("; ".join(seen[:20]) or "no data sets")
    )


def _values(data: Any) -> Any:
    if data.is_virtual or data.external:
        raise ValueError(f"{data.name} lies in other files, which are not read")
    check_size(data.size * data.dtype.itemsize, data.id.get_storage_size(), data.name)
    values = data[()]
    if data.ndim == 2 and 1 in data.shape:
        return np.asarray(values).ravel()  # MATLAB's vectors
    return values
