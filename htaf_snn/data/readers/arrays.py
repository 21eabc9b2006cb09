"""N-MNIST's .bin, numpy's .npy and .npz, and text."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Columns, Format, by_name, check_size, keys_of, of_structured, of_table
from .prophesee import fields_of, size_in

_BYTES_AN_EVENT = 5  # of N-MNIST's format
_CLOCK_BITS = 23
_OVERFLOW_ROW, _OVERFLOW_US = 240, 1 << 13  # y of N-MNIST's overflow events, and what each adds


def read_bin(path: Path, _: Format) -> Columns:
    """Events of N-MNIST's and N-Caltech101's format, as Tonic's ``read_mnist_file`` reads them."""
    size = path.stat().st_size
    if size == 0 or size % _BYTES_AN_EVENT:
        raise ValueError(
            f"{size} bytes, which is not a positive multiple of {_BYTES_AN_EVENT}; the file is "
            "empty or cut short, fetch it again"
        )
    x, y, upper, middle, lower = np.fromfile(path, np.uint8).reshape(-1, 5).T.astype(np.int64)
    overflow = y == _OVERFLOW_ROW
    t = ((upper & 127) << 16 | middle << 8 | lower) + np.cumsum(overflow) * _OVERFLOW_US
    kept = ~overflow
    return Columns(x[kept], y[kept], t[kept], upper[kept] >> 7, "us", _CLOCK_BITS)


def read_npy(path: Path, format: Format) -> Columns:
    """Events of a structured or an [N, 4] array."""
    array = np.load(path, mmap_mode="r")  # which compares the size with the header's first
    return _of_array(array, format)


def _of_array(array: NDArray[Any], format: Format) -> Columns:
    if array.dtype.names is not None:
        return of_structured(array.ravel())
    return of_table(array, format.ordering)


def read_npz(path: Path, format: Format) -> Columns:
    """Events of four arrays under their usual names, or of one structured or [N, 4] array."""
    with path.open("rb") as file, np.load(file) as arrays:  # numpy would leave a bad file open
        keys = keys_of(arrays.files)
        if keys is not None:
            for key in keys.values():
                _check_member(arrays, key)
            return by_name({key: arrays[key] for key in keys.values()})
        for key in arrays.files:
            _check_member(arrays, key)
            array = arrays[key]
            if array.dtype.names is not None or (array.ndim == 2 and array.shape[1] == 4):
                return _of_array(array, format)
        return by_name(dict.fromkeys(arrays.files))  # says what is missing


def npz_size(path: Path, _: Format) -> Any:
    """Returns an .npz file's entry ``sensor_size``, or None."""
    with path.open("rb") as file, np.load(file) as arrays:
        if "sensor_size" not in arrays.files:
            return None
        _check_member(arrays, "sensor_size")
        return arrays["sensor_size"]


def _check_member(arrays: Any, key: str) -> None:
    archive: zipfile.ZipFile = arrays.zip
    names = archive.namelist()
    info = archive.getinfo(key if key in names else f"{key}.npy")
    check_size(info.file_size, info.compress_size, key)
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        reading = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = reading(member)
    count = 1
    for side in shape:
        count *= int(side)
    if count * dtype.itemsize > info.file_size:
        raise ValueError(f"{key} has an array {list(shape)}, but is cut short")


def read_text(path: Path, format: Format) -> Columns:
    """Events of a text file, a line each, between spaces, tabs, commas or semicolons.

    A first line of words names the columns, one of two numbers is (W, H), and lines that begin
    with # or % are comments.
    """
    skip, names, separator = _layout(path)
    with path.open(encoding="utf-8", errors="strict") as file:
        table = np.loadtxt(
            file, np.float64, comments=["#", "%"], delimiter=separator, skiprows=skip, ndmin=2
        )
    if names is None:
        return of_table(table, format.ordering)
    if len(names) != table.shape[1]:
        raise ValueError(f"{table.shape[1]} columns under {len(names)} names, {', '.join(names)}")
    return by_name({name: table[:, i] for i, name in enumerate(names)})


def text_size(path: Path, _: Format) -> tuple[int, int] | None:
    """(W, H) of a first line of two numbers, or of a comment ``geometry:WxH``."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.strip() or line.startswith(("#", "%")):
                size = size_in(fields_of([line]))
                if size is not None:
                    return size
                continue
            cells = line.replace(",", " ").split()
            if len(cells) == 2 and all(cell.isdecimal() for cell in cells):
                return int(cells[0]), int(cells[1])
            return None
    return None


def _layout(path: Path) -> tuple[int, list[str] | None, str | None]:
    """Lines before the first event, the columns' names, if there are any, and the separator."""
    names = None
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if not line.strip() or line.startswith(("#", "%")):
                continue
            separator = next((s for s in ",;" if s in line), None)
            # faery writes x@1280
            cells = [cell.strip().partition("@")[0] for cell in line.split(separator)]
            if len(cells) == 2 and all(cell.isdecimal() for cell in cells):
                continue
            if names is None and cells[0].replace("_", "").isalpha():
                names = cells
                continue
            return number, names, separator
    raise ValueError("no event in the recording")
