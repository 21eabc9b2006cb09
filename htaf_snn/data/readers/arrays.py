"""N-MNIST's .bin, numpy's .npy and .npz, and text."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..options import Format
from .columns import Columns, by_name, check_size, fields_of, keys_of, of_array, size_in

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
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":  # numpy would take it for a pickle
            raise ValueError("no numpy array")
    array = np.load(path, mmap_mode="r")  # which compares the size with the header's first
    return of_array(array, format.ordering)


def read_npz(path: Path, format: Format) -> Columns:
    """Events of four arrays under their usual names, or of one structured or [N, 4] array."""
    with _archive(path) as arrays:
        keys = keys_of(arrays.files)
        if keys is not None:
            return by_name({key: _member(arrays, key) for key in keys})
        for array in (_member(arrays, key) for key in arrays.files):
            if array.dtype.names is not None or (array.ndim == 2 and array.shape[1] == 4):
                return of_array(array, format.ordering)
        return by_name(dict.fromkeys(arrays.files))  # says what is missing


def npz_size(path: Path, _: Format) -> Any:
    """Returns an .npz file's entry ``sensor_size``, or None."""
    with _archive(path) as arrays:
        return _member(arrays, "sensor_size") if "sensor_size" in arrays.files else None


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[Any]:
    if not zipfile.is_zipfile(path):  # numpy would take it for a pickle
        raise ValueError("no .npz archive")
    with path.open("rb") as file, np.load(file) as arrays:  # numpy would leave a bad file open
        yield arrays


def _member(arrays: Any, key: str) -> Any:
    """One array of an archive, which is as large in memory as its member says."""
    archive = arrays.zip
    info = archive.getinfo(key if key in archive.namelist() else f"{key}.npy")
    check_size(info.file_size, info.compress_size, key)
    return arrays[key]


def _layout(path: Path) -> tuple[int, list[str] | None, str | None, tuple[int, int] | None]:
    """Finds the lines before the first event: how many, the columns' names, separator, (W, H)."""
    names = size = None
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if not line.strip() or line.startswith(("#", "%")):
                size = size or size_in(fields_of([line]))
                continue
            separator = next((s for s in ",;" if s in line), None)
            # faery writes x@1280
            cells = [cell.strip().partition("@")[0] for cell in line.split(separator)]
            if len(cells) == 2 and all(cell.isdecimal() for cell in cells):
                size = size or (int(cells[0]), int(cells[1]))
            elif names is None and cells[0].replace("_", "").isalpha():
                names = cells
            else:
                return number, names, separator, size
    raise ValueError("no event in the recording")


def read_text(path: Path, format: Format) -> Columns:
    """Events of a text file, a line each, between spaces, tabs, commas or semicolons.

    A first line of words names the columns, one of two numbers is (W, H), and lines that begin
    with # or % are comments.
    """
    skip, names, separator, _ = _layout(path)
    with path.open(encoding="utf-8") as file:
        table = np.loadtxt(file, comments=["#", "%"], delimiter=separator, skiprows=skip, ndmin=2)
    if names is None:
        return of_array(table, format.ordering)
    if len(names) != table.shape[1]:
        raise ValueError(f"{table.shape[1]} columns under {len(names)} names, {', '.join(names)}")
    return by_name({name: table[:, i] for i, name in enumerate(names)})


def text_size(path: Path, _: Format) -> tuple[int, int] | None:
    """(W, H) of a line of two numbers before the events, or of a comment ``geometry:WxH``."""
    return _layout(path)[3]
