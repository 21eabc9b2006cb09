"""Prophesee's .dat, and .raw in EVT2 and EVT3, as Metavision's documentation defines them.

The package faery reads them too, but moves times of EVT3 that step back, and takes any such step of
EVT2 for the end of the clock, 17,180 s later.
"""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..options import Format
from .columns import Columns, fields_of, size_in, text_header

_LARGEST = 1 << 30  # bytes of a file that is decoded at once
# after "% evt" and "% format"
_ENCODINGS = {"2": 2, "2.0": 2, "EVT2": 2, "3": 3, "3.0": 3, "EVT3": 3}


def _header(file: BinaryIO) -> dict[str, str]:
    return fields_of(text_header(file, b"%", (b"% end",)))


def sensor_size(path: Path, _: Format) -> tuple[int, int] | None:
    """(W, H) that the header of a .dat or .raw file names."""
    with path.open("rb") as file:
        return size_in(_header(file))


def _content(path: Path) -> tuple[dict[str, str], bytes]:
    """The header's fields, and what follows."""
    size = path.stat().st_size
    if size > _LARGEST:
        raise ValueError(
            f"{size} bytes, more than the {_LARGEST} that are decoded at once; cut the recording "
            "by the camera's tool"
        )
    with path.open("rb") as file:
        return _header(file), file.read()


def read_dat(path: Path, _: Format) -> Columns:
    """Events of a .dat file of CD events."""
    header, content = _content(path)
    start = 0
    if header:
        if len(content) < 2:
            raise ValueError("it ends with its header")
        kind, size, start = content[0], content[1], 2
        if size != 8 or kind not in (0, 12):
            raise ValueError(f"events of type {kind} and {size} bytes, not CD events of 8")
    if (len(content) - start) % 8:
        raise ValueError(f"{len(content) - start} bytes of events, not a multiple of 8")
    words = np.frombuffer(content, [("t", "<u4"), ("xy", "<u4")], offset=start)
    xy = words["xy"].astype(np.int64)
    return Columns(xy & 0x3FFF, xy >> 14 & 0x3FFF, words["t"], xy >> 28, "us")


def read_raw(path: Path, _: Format) -> Columns:
    """CD events of a .raw file in EVT2 or EVT3."""
    header, content = _content(path)
    told = [header[key] for key in ("evt", "format") if key in header]
    versions = {_ENCODINGS.get(name.upper()) for name in told}
    version = versions.pop() if len(versions) == 1 else None
    if version is None:
        raise ValueError(
            f"its header names {', '.join(told) or 'no encoding'}, where EVT2 and EVT3 are read; "
            "convert it by Metavision's metavision_file_to_hdf5"
        )
    kind = "<u4" if version == 2 else "<u2"
    length = len(content) // np.dtype(kind).itemsize  # cameras are stopped within a word
    words = np.frombuffer(content, kind, length)
    return _evt2(words) if version == 2 else _evt3(words)


def _last(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """At each word the index of the last one in ``mask``, -1 before the first."""
    return np.asarray(np.maximum.accumulate(np.where(mask, np.arange(len(mask)), -1)))


def _loops(high: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Counts how often a counter of so many bits began anew before each of its values."""
    back = np.diff(high, prepend=high[:1]) < -(1 << bits - 1)
    return np.cumsum(back)


def _evt2(words: NDArray[Any]) -> Columns:
    kind = words >> 28
    highs = np.flatnonzero(kind == 8)
    high = (words[highs] & 0xFFFFFFF).astype(np.int64)
    high += _loops(high, 28) << 28
    at = np.flatnonzero(kind < 2)
    base = np.searchsorted(highs, at) - 1  # of the time's upper part
    at, base = at[base >= 0], base[base >= 0]
    event = words[at].astype(np.int64)
    t = (high[base] << 6) + (event >> 22 & 0x3F)
    return Columns(event >> 11 & 0x7FF, event & 0x7FF, t, event >> 28, "us")


def _evt3(words: NDArray[Any]) -> Columns:
    kind, value = words >> 12, (words & 0xFFF).astype(np.int64)
    highs = np.flatnonzero(kind == 8)
    high = value[highs]
    changed = np.zeros(len(words), bool)
    changed[highs[np.diff(high, prepend=-1) != 0]] = True
    high = high + (_loops(high, 12) << 12)
    vector = (kind == 4) | (kind == 5)
    step = np.where(kind == 4, 12, np.where(kind == 5, 8, 0))
    before = np.cumsum(step) - step  # pixels of vectors before each word
    base_at, y_at, low_at = _last(kind == 3), _last(kind == 0), _last(kind == 6)
    change_at = _last(changed)
    ready = (y_at >= 0) & (change_at >= 0)

    single = np.flatnonzero((kind == 2) & ready)
    at = np.flatnonzero(vector & ready & (base_at >= 0))
    bits = value[at, None] >> np.arange(12) & 1
    bits[kind[at] == 5, 8:] = 0
    row, column = np.nonzero(bits)
    at, base = at[row], base_at[at][row]
    word = np.concatenate([single, at])
    x = np.concatenate([value[single] & 0x7FF, (value[base] & 0x7FF) + before[at] - before[base]
                        + column])  # fmt: skip
    p = np.concatenate([value[single] >> 11, value[base] >> 11])
    order = np.argsort(word, kind="stable")
    word, x, p = word[order], x[order], p[order]
    upper = high[np.searchsorted(highs, word) - 1] if len(word) else word
    low = np.where(low_at[word] > change_at[word], value[low_at[word]], 0)
    return Columns(x, value[y_at[word]] & 0x7FF, (upper << 12) + low, p, "us")
