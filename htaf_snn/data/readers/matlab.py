"""MATLAB files up to version 7.

They are read without SciPy, whose reader a damaged file crashes: to guard it would take a process
for each of ASL-DVS's 100,800 files.

"MAT-File Format" (MathWorks): a header of 128 bytes, then elements of tag and data; of these the
real numeric arrays and the structures of them are read. Version 7.3 is HDF5.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..options import Format
from . import hdf5
from .columns import ALWAYS_READ, RATIO, Columns, by_name, check_size, keys_of, of_array

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8",
            13: "u8"}  # fmt: skip
_MATRIX, _COMPRESSED = 14, 15
_STRUCTURE = 2
_CLASSES = range(6, 16)  # of numeric arrays
_COMPLEX = 0x800
_HEADER = 128
_DEEPEST = 4


def read(path: Path, format: Format) -> Columns:
    """Events of four variables, of a structure's four fields, or of an [N, 4] matrix."""
    content = path.read_bytes()
    if len(content) > 512 and content[512:520] == b"\x89HDF\r\n\x1a\n":
        return hdf5.read(path, format)
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise ValueError("no MATLAB file of version 5 to 7.3; save it by save(..., '-v7')")
    variables: dict[str, Any] = {}
    for element in _elements(content[_HEADER:], order):
        packed = element[0] == _COMPRESSED
        for kind, data in _elements(_unpacked(element[1]), order) if packed else [element]:
            if kind == _MATRIX:
                variables.update(_matrix(data, order, 0))
    for candidate in (variables, *(v for v in variables.values() if isinstance(v, dict))):
        if keys_of(candidate) is not None:
            return by_name(candidate)
    for value in variables.values():
        if not isinstance(value, dict) and value.ndim == 2 and value.shape[1] == 4:
            return of_array(value, format.ordering)
    return by_name(variables)  # says what is missing


def _unpacked(data: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    unpacked = unpacking.decompress(data, ALWAYS_READ + RATIO * len(data))
    if unpacking.unconsumed_tail:
        check_size(2 * len(unpacked), len(data), "a compressed variable")
    if not unpacking.eof:
        raise ValueError("a compressed variable is cut short")
    return unpacked


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, data) of each element."""
    at = 0
    while at + 8 <= len(data):
        kind, size = (int(i) for i in np.frombuffer(data, f"{order}u4", 2, at))
        if kind >> 16:  # a small element: size, type and data in 8 bytes
            kind, size, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            start = at + 8
            after = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data) or (start == at + 4 and size > 4):
            raise ValueError(f"an element of {size} bytes ends after the file; it is cut short")
        yield kind, data[start : start + size]
        at = after


def _numbers(element: tuple[int, bytes], order: str) -> NDArray[Any]:
    kind, data = element
    if kind not in _NUMBERS:
        raise ValueError(f"numbers of the unknown type {kind}")
    dtype = np.dtype(order + _NUMBERS[kind])
    return np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)


def _matrix(data: bytes, order: str, depth: int) -> dict[str, Any]:
    """One variable by its name; empty where it is neither numbers nor one structure of them."""
    parts = list(_elements(data, order))
    if len(parts) < 3:
        return {}
    flags, shape = _numbers(parts[0], order), _numbers(parts[1], order)
    if not len(flags):
        raise ValueError("an array without flags")
    name, kind = parts[2][1].decode("latin-1"), int(flags[0]) & 0xFF
    if kind == _STRUCTURE and depth < _DEEPEST and len(parts) >= 5:
        width = int(_numbers(parts[3], order)[0])
        if width < 1:
            raise ValueError("a structure whose field names have no length")
        text = parts[4][1]
        names = [
            text[i : i + width].split(b"\0")[0].decode("latin-1")
            for i in range(0, len(text), width)
        ]
        fields: dict[str, Any] = {}
        for field, (inner, matrix) in zip(names, parts[5:], strict=False):
            if inner == _MATRIX:
                fields[field] = next(iter(_matrix(matrix, order, depth + 1).values()), None)
        return {name: {field: value for field, value in fields.items() if value is not None}}
    if kind not in _CLASSES or len(parts) < 4:
        return {}
    if int(flags[0]) & _COMPLEX:
        raise ValueError(f"{name} is complex")
    values, sides = _numbers(parts[3], order), shape.tolist()
    if math.prod(sides) != len(values):
        raise ValueError(f"{name} is {'x'.join(map(str, sides))}, but has {len(values)} values")
    return {name: values.reshape(sides, order="F")}
