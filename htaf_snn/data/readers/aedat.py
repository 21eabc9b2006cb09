"""AEDAT 2.0 (jAER) and 3.1 (cAER, DV)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Columns, Format

_SIZES = {
    "dvs128": (128, 128),
    "davis128": (128, 128),
    "davis208": (208, 192),
    "davis240": (240, 180),
    "davis346": (346, 260),
    "davis640": (640, 480),
    "dvxplorer": (640, 480),
}
_PACKET = np.dtype(
    [("type", "<i2"), ("source", "<i2")]
    + [(name, "<i4") for name in ("size", "offset", "overflow", "capacity", "number", "valid")]
)  # AEDAT 3.1's header of a packet
_POLARITY = 1  # its event type


def read(path: Path, _: Format) -> Columns:
    """Events of an .aedat file: 2.0 or 3.1, by its first line.

    2.0 counts y from below and x from the right, and has 1 for OFF on a DVS128: they are turned
    into the picture that jAER shows, as those of 3.1 and 4 are.
    """
    header, body = _split(path.read_bytes())
    if header.startswith("#!AER-DAT2"):
        return _read_2(header, body)
    if header.startswith("#!AER-DAT3"):
        return _read_3(body)
    raise ValueError(f"begins with {header[:20]!r}, not with #!AER-DAT2.0 or #!AER-DAT3.1")


def sensor_size(path: Path) -> tuple[int, int] | None:
    """(W, H) of the chip that the header of an .aedat file names; a DVS128 where 2.0 names none."""
    with path.open("rb") as file:
        header, _ = _split(file.read(1 << 16))
    size = _size(header)
    return (128, 128) if size is None and header.startswith("#!AER-DAT2") else size


def _size(header: str) -> tuple[int, int] | None:
    lowered = header.lower()
    return next((size for name, size in _SIZES.items() if name in lowered), None)


def _split(content: bytes) -> tuple[str, bytes]:
    """Header and body. The header ends at #!END-HEADER, else before the first line without #."""
    end = content.find(b"#!END-HEADER")
    if content.startswith(b"#!AER-DAT3") and end >= 0:
        start = content.find(b"\n", end) + 1
    else:
        start = 0
        while content[start : start + 1] == b"#":
            # an event may begin with the byte of #: a line of text has no byte of 0
            line = content[start : content.find(b"\n", start) + 1]
            if not line or b"\0" in line:
                break
            start += len(line)
    return content[:start].decode("latin-1"), content[start:]


def _read_2(header: str, body: bytes) -> Columns:
    if len(body) % 8:
        raise ValueError(f"{len(body)} bytes of events, not a multiple of 8; it is cut short")
    words = np.frombuffer(body, [("address", ">u4"), ("t", ">i4")])
    address, size = words["address"].astype(np.int64), _size(header) or (128, 128)
    if "davis" in header.lower():
        # bit 31: frames and inertial data; bit 10: an external input
        kept = (address >> 31 == 0) & (address >> 10 & 1 == 0)
        address, t = address[kept], words["t"][kept]
        x, y, p = address >> 12 & 0x3FF, address >> 22 & 0x1FF, address >> 11 & 1
    else:
        kept = address < 1 << 15  # bit 15: an external input
        address, t = address[kept], words["t"][kept]
        x, y, p = address >> 1 & 0x7F, address >> 8 & 0x7F, 1 - (address & 1)
    return Columns(size[0] - 1 - x, size[1] - 1 - y, t, p, "us")


def _read_3(body: bytes) -> Columns:
    parts: list[NDArray[Any]] = []
    at = 0
    while at < len(body):
        if len(body) - at < _PACKET.itemsize:
            raise ValueError("a packet's header is cut short")
        (packet,) = np.frombuffer(body, _PACKET, 1, at)
        size, number, at = int(packet["size"]), int(packet["number"]), at + _PACKET.itemsize
        if size < 1 or number < 0 or at + size * number > len(body):
            raise ValueError(f"a packet of {number} events of {size} bytes ends after the file")
        if packet["type"] == _POLARITY:
            if size != 8:
                raise ValueError(f"polarity events of {size} bytes, not 8")
            words = np.frombuffer(body, [("data", "<u4"), ("t", "<i4")], number, at)
            times = words["t"].astype(np.int64) + (int(packet["overflow"]) << 31)
            valid = words["data"] & 1 == 1
            parts.append(np.stack([words["data"][valid].astype(np.int64), times[valid]]))
        at += size * number
    data, t = np.concatenate(parts, axis=1) if parts else np.zeros((2, 0), np.int64)
    return Columns(data >> 17 & 0x7FFF, data >> 2 & 0x7FFF, t, data >> 1 & 1, "us")
