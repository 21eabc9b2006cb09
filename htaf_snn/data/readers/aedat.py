"""AEDAT 2.0 (jAER), 3.1 (cAER, DV) and 4 (DV), whose flatbuffers are read directly.

Of AEDAT 4, the package faery moves times that step back up to those before, where they are refused
or sorted here, and as the package aedat it aborts on damaged files (on 5 of 300).
"""

import struct
from pathlib import Path
from typing import Any, BinaryIO, get_args
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ...extras import needed
from ..options import Camera, Format
from .columns import ALWAYS_READ, RATIO, SIZES, Columns, check_size, text_header, the_one

_ENDS = (b"#!end-header", b"#end of ascii header", b"# end of ascii header")
_PACKET = np.dtype(
    [("type", "<i2"), ("source", "<i2")]
    + [(name, "<i4") for name in ("size", "offset", "overflow", "capacity", "number", "valid")]
)  # AEDAT 3.1's header of a packet
_POLARITY = 1  # its event type

_MAGIC_4 = b"#!AER-DAT4.0\r\n"
_EVENT_4 = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("on", "u1"), ("padding", "V3")])
_SLOTS = (4, 6, 8)  # of a flatbuffers table's fields 0, 1 and 2
_STORED, _LZ4, _ZSTD = (0,), (1, 2), (3, 4)  # kinds of compression


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


def _table(data: bytes, identifier: bytes) -> Any:
    if data[8:12] != identifier:
        raise ValueError(f"{data[8:12]!r} where {identifier!r} is due")
    return needed("flatbuffers").Table(data, 4 + int.from_bytes(data[4:8], "little"))


def _vector(table: Any, slot: int, dtype: Any) -> NDArray[Any]:
    """A field's items, none where it has its default; numpy refuses more than there are."""
    at = table.Offset(slot)
    if not at:
        return np.zeros(0, dtype)
    return np.frombuffer(table.Bytes, dtype, table.VectorLen(at), table.Vector(at))


def _header_4(content: bytes) -> tuple[int, int, int, dict[int, tuple[int, int]]]:
    """Compression, where packets begin and end, and (W, H) of the streams of events."""
    start = len(_MAGIC_4)
    if content[:start] != _MAGIC_4 or len(content) < start + 4:
        raise ValueError(f"begins with {content[:14]!r}, not with {_MAGIC_4!r}")
    end = start + 4 + int.from_bytes(content[start : start + 4], "little")
    if end > len(content):
        raise ValueError("its header is cut short")
    header, types = _table(content[start:end], b"IOHE"), needed("flatbuffers.number_types")
    compression = header.GetSlot(_SLOTS[0], 0, types.Int32Flags)
    stop = header.GetSlot(_SLOTS[1], -1, types.Int64Flags)
    text = _vector(header, _SLOTS[2], np.uint8).tobytes().decode()
    if "<!" in text:
        raise ValueError("its description declares entities, which are not read")
    streams: dict[int, tuple[int, int]] = {}
    for node in ElementTree.fromstring(text).findall(".//node[@name='outInfo']/node"):
        if node.findtext("attr[@key='typeIdentifier']") == "EVTS":
            sides = (node.findtext(f"node[@name='info']/attr[@key='size{s}']") or 0 for s in "XY")
            width, height = map(int, sides)
            streams[int(node.get("name") or 0)] = width, height
    if not streams:
        raise ValueError("no stream of events in the file")
    return compression, end, len(content) if stop < end else min(stop, len(content)), streams


def _unpacked(body: bytes, compression: int) -> bytes:
    if compression in _STORED:
        return body
    most = ALWAYS_READ + RATIO * len(body)
    if compression in _LZ4:
        unpacked: bytes = needed("lz4.frame").LZ4FrameDecompressor().decompress(body, most)
    elif compression in _ZSTD:
        unpacked = needed("zstandard").ZstdDecompressor().stream_reader(body).read(most)
    else:
        raise ValueError(f"compression of the unknown kind {compression}")
    if len(unpacked) == most:
        check_size(most + 1, len(body), "a packet")
    return unpacked


def read_4(path: Path, _: Format) -> Columns:
    """Events of an .aedat4 file: its first stream of events."""
    content, packets = path.read_bytes(), [np.zeros(0, _EVENT_4)]
    compression, at, stop, streams = _header_4(content)
    while at + 8 <= stop:
        stream, size = struct.unpack_from("<ii", content, at)
        at += 8
        if size < 0 or at + size > len(content):
            raise ValueError(f"a packet of {size} bytes ends after the file; it is cut short")
        if stream == min(streams):
            body = _unpacked(content[at : at + size], compression)
            packets.append(_vector(_table(body, b"EVTS"), _SLOTS[0], _EVENT_4))
        at += size
    events = np.concatenate(packets)
    return Columns(events["x"], events["y"], events["t"], events["on"], "us")


def sensor_size_4(path: Path, _: Format) -> tuple[int, int] | None:
    """(W, H) of the first stream of events of an .aedat4 file."""
    with path.open("rb") as file:
        streams = _header_4(file.read(1 << 20))[3]
    return streams[min(streams)]
