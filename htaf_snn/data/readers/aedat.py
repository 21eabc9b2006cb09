"""AEDAT 2.0 (jAER) and 3.1 (cAER, DV)."""

from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np
from numpy.typing import NDArray

from ..options import Camera, Format
from .columns import SIZES, Columns, text_header, the_one

_ENDS = (b"#!end-header", b"#end of ascii header", b"# end of ascii header")
_PACKET = np.dtype(
    [("type", "<i2"), ("source", "<i2")]
    + [(name, "<i4") for name in ("size", "offset", "overflow", "capacity", "number", "valid")]
)  # AEDAT 3.1's header of a packet
_POLARITY = 1  # its event type


def read(path: Path, format: Format) -> Columns:
    """Events of an .aedat file: 2.0 or 3.1, by its first line.

    2.0 counts y from below and x from the right, and has 1 for OFF on a DVS128: they are turned
    into the picture that jAER shows, as those of 3.1 and 4 are.
    """
    with path.open("rb") as file:
        version, camera = _header(file, format)
        body = file.read()
    return _read_2(camera, body) if version == 2 else _read_3(body, format)


def sensor_size(path: Path, format: Format) -> tuple[int, int] | None:
    """(W, H) of the camera that an .aedat file is of; None where 3.1 names none that is known."""
    with path.open("rb") as file:
        return SIZES.get(_header(file, format)[1])


def _header(file: BinaryIO, format: Format) -> tuple[int, str]:
    """The version, 2 or 3, and the camera, "" where 3.1 names none that is known."""
    lines = text_header(file, b"#", _ENDS)
    first = lines[0] if lines else ""
    version = {"#!AER-DAT2": 2, "#!AER-DAT3": 3}.get(first[:10])
    if version is None:
        raise ValueError(f"begins with {first[:20]!r}, not with #!AER-DAT2.0 or #!AER-DAT3.1")
    # "# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C", "#Source 1: DVS128"
    key = "aechip" if version == 2 else "source"
    pairs = (line.lstrip("#-! ").partition(":") for line in lines)
    told = [value.strip() for name, _, value in pairs if name.lower().startswith(key)]
    words = [value.rpartition(".")[2].lower() for value in told]
    known = {camera for camera in SIZES if any(word.startswith(camera) for word in words)}
    if version == 3:
        return version, known.pop() if len(known) == 1 else ""
    if format.camera is None and len(known) != 1:
        raise ValueError(
            f"its header names {'the camera ' + ', '.join(told) if told else 'no camera'}: set "
            f"`data.camera` to the one that it is of, or is like: {', '.join(get_args(Camera))}"
        )
    if format.camera is not None and known - {format.camera}:
        raise ValueError(
            f"its header names the camera {', '.join(told)}, and `data.camera` is {format.camera}; "
            "leave it out"
        )
    return version, format.camera or known.pop()


def _read_2(camera: str, body: bytes) -> Columns:
    if len(body) % 8:
        raise ValueError(f"{len(body)} bytes of events, not a multiple of 8; it is cut short")
    words = np.frombuffer(body, [("address", ">u4"), ("t", ">i4")])
    address = words["address"].astype(np.int64)
    if camera == "dvs128":
        kept = address < 1 << 15  # bit 15: an external input
        x, y, p = address >> 1 & 0x7F, address >> 8 & 0x7F, 1 - (address & 1)
    else:
        # bit 31: frames and inertial data; bit 10: an external input
        kept = (address >> 31 == 0) & (address >> 10 & 1 == 0)
        x, y, p = address >> 12 & 0x3FF, address >> 22 & 0x1FF, address >> 11 & 1
    width, height = SIZES[camera]
    return Columns(width - 1 - x[kept], height - 1 - y[kept], words["t"][kept], p[kept], "us")


def _read_3(body: bytes, format: Format) -> Columns:
    parts: dict[str, list[NDArray[Any]]] = {}  # by the camera's number
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
            words = words[words["data"] & 1 == 1]  # the valid ones
            times = words["t"].astype(np.int64) + (int(packet["overflow"]) << 31)
            part = np.stack([words["data"].astype(np.int64), times])
            parts.setdefault(str(packet["source"]), []).append(part)
        at += size * number
    if not parts:
        raise ValueError("no event in the recording")
    data, t = np.concatenate(parts[the_one(list(parts), format.events_path)], axis=1)
    return Columns(data >> 17 & 0x7FFF, data >> 2 & 0x7FFF, t, data >> 1 & 1, "us")
