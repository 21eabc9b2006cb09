"""MATLAB files: up to version 7 by SciPy, in a process of its own; version 7.3 is HDF5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...extras import needed
from ..options import Format
from . import hdf5
from .columns import Columns, by_name, keys_of, of_array
from .guarded import guarded


def read(path: Path, format: Format) -> Columns:
    """Events of four variables, of a structure's four fields, or of an [N, 4] matrix."""
    with path.open("rb") as file:
        is_hdf5 = file.read(520)[512:] == b"\x89HDF\r\n\x1a\n"
    return hdf5.read(path, format) if is_hdf5 else _read(path, format)


@guarded("scipy.io", limited=True)
def _read(path: Path, format: Format) -> Columns:
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
