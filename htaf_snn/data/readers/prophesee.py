"""Prophesee's .dat, and .raw in EVT2 and EVT3, as Metavision's documentation defines them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Columns, Format

_LARGEST = 1 << 30  # bytes of a file that is decoded at once
_SIZE = re.compile(
    r"geometry[ :]+(?P<w>\d+)x(?P<h>\d+)|width[ =](?P<w2>\d+)|height[ =](?P<h2>\d+)", re.I
)


def header_of(content: bytes) -> tuple[str, int]:
    """The header, lines that begin with %, and its length in bytes."""
    start = 0
    while content[start : start + 1] == b"%":
        end = content.find(b"\n", start) + 1
        if end == 0 or b"\0" in content[start:end]:
            break
        start = end
        if content[:start].endswith((b"% end\n", b"% end\r\n")):
            break
    return content[:start].decode("latin-1"), start


def size_in(header: str) -> tuple[int, int] | None:
    """(W, H) that a header names, or None."""
    found: dict[str, int] = {}
    for match in _SIZE.finditer(header):
        for name, value in match.groupdict().items():
            if value is not None:
                found[name[0]] = int(value)
    return (found["w"], found["h"]) if len(found) == 2 else None


def sensor_size(path: Path) -> tuple[int, int] | None:
    """(W, H) that the header of a .dat or .raw file names."""
    with path.open("rb") as file:
        return size_in(header_of(file.read(1 << 16))[0])


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _LARGEST:
        raise ValueError(
            f"{size} bytes, more than the {_LARGEST} that are decoded at once; cut the recording "
            "by the camera's tool"
        )
    return path.read_bytes()


def read_dat(path: Path, _: Format) -> Columns:
    """Events of a .dat file of CD events."""
    content = _content(path)
    start = header_of(content)[1]
    if start:
        if len(content) < start + 2:
            raise ValueError("it ends with its header")
        kind, size = content[start], content[start + 1]
        start += 2
        if size != 8 or kind not in (0, 12):
            raise ValueError(f"events of type {kind} and {size} bytes, not CD events of 8")
    if (len(content) - start) % 8:
        raise ValueError(f"{len(content) - start} bytes of events, not a multiple of 8")
    words = np.frombuffer(content, [("t", "<u4"), ("xy", "<u4")], offset=start)
    xy = words["xy"].astype(np.int64)
    return Columns(xy & 0x3FFF, xy >> 14 & 0x3FFF, words["t"].astype(np.int64), xy >> 28, "us")


def read_raw(path: Path, _: Format) -> Columns:
    """CD events of a .raw file in EVT2 or EVT3."""
    content = _content(path)
    header, start = header_of(content)
    version = re.search(r"(?:evt |EVT)(\d)(?:\.(\d))?", header)
    if version is None or version[1] not in "23" or version[2] not in (None, "0"):
        raise ValueError(
            "its header names no EVT2 or EVT3 encoding; convert it by Metavision's "
            "metavision_file_to_hdf5"
        )
    two = version[1] == "2"
    length = (len(content) - start) // (4 if two else 2)  # cameras are stopped within a word
    words = np.frombuffer(content, "<u4" if two else "<u2", length, start)
    return _evt2(words) if two else _evt3(words)


def _last(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """At each word the index of the last one in ``mask``, -1 before the first."""
    last: NDArray[np.int64] = np.maximum.accumulate(np.where(mask, np.arange(len(mask)), -1))
    return last


def _loops(high: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """How often a counter of so many bits began anew before each of its values."""
    back = np.diff(high, prepend=high[:1]) < -(1 << bits - 1)
    loops: NDArray[np.int64] = np.cumsum(back)
    return loops


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
