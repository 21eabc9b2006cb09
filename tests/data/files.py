"""Files of the data sets' published layouts and formats, with invented contents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[np.int64]]  # x, y, t (microseconds), p (0 or 1)

_DESCRIPTION = """<dv version="2.0"><node name="outInfo"><node name="0">
<attr key="typeIdentifier" type="string">EVTS</attr>
<node name="info"><attr key="sizeX" type="int">{}</attr><attr key="sizeY" type="int">{}</attr>
</node></node></node></dv>"""
_EVENT = np.dtype(
    {
        "names": ["t", "x", "y", "on"],
        "formats": ["<i8", "<i2", "<i2", "?"],
        "offsets": [0, 8, 10, 12],
        "itemsize": 16,
    }
)  # AEDAT 4's struct Event, padded


def events(
    n: int = 40, size: tuple[int, int] = (34, 34), seed: int = 0, t_unit: int = 1
) -> Columns:
    """Random events on a sensor (W, H), over 300 ms, sorted."""
    rng = np.random.default_rng(seed)
    return {
        "x": rng.integers(0, size[0], n), "y": rng.integers(0, size[1], n),
        "t": np.sort(rng.integers(0, 300_000 // t_unit, n)) * t_unit,
        "p": rng.integers(0, 2, n),
    }  # fmt: skip


def aedat4(path: Path, columns: Columns, size: tuple[int, int], compression: int = 0) -> None:
    """An AEDAT 4 file of two packets, as its flatbuffers schemas (inivation's) lay it out."""
    import flatbuffers

    header = flatbuffers.Builder(256)
    description = header.CreateString(_DESCRIPTION.format(*size))
    header.StartObject(3)
    header.PrependInt32Slot(0, compression, 0)
    header.PrependInt64Slot(1, -1, 0)
    header.PrependUOffsetTRelativeSlot(2, description, 0)
    header.FinishSizePrefixed(header.EndObject(), b"IOHE")
    content = b"#!AER-DAT4.0\r\n" + bytes(header.Output())
    for part in np.array_split(np.arange(len(columns["t"])), 2):
        packed = np.zeros(len(part), _EVENT)
        for name, key in (("t", "t"), ("x", "x"), ("y", "y"), ("on", "p")):
            packed[name] = columns[key][part]
        packet = flatbuffers.Builder(256)
        packet.StartVector(_EVENT.itemsize, len(packed), 8)
        packet.head -= packed.nbytes
        packet.Bytes[packet.head : packet.head + packed.nbytes] = packed.tobytes()
        elements = packet.EndVector()
        packet.StartObject(1)
        packet.PrependUOffsetTRelativeSlot(0, elements, 0)
        packet.FinishSizePrefixed(packet.EndObject(), b"EVTS")
        body = bytes(packet.Output())
        if compression:
            import lz4.frame

            body = lz4.frame.compress(body)
        content += (0).to_bytes(4, "little") + len(body).to_bytes(4, "little") + body
    path.write_bytes(content)
