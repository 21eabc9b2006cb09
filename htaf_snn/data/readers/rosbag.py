"""ROS 1 bags of event messages (dvs_msgs, prophesee_event_msgs), such as MVSEC's, by rosbags."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...extras import needed
from ..options import Format
from .columns import Columns, the_one
from .guarded import guarded

_TYPES = ("dvs_msgs/msg/EventArray", "prophesee_event_msgs/msg/EventArray")
_EVENT = np.dtype([("x", "<u2"), ("y", "<u2"), ("s", "<u4"), ("ns", "<u4"), ("p", "u1")])


@guarded("rosbags.rosbag1", limited=True)
def read(path: Path, format: Format) -> Columns:
    """Events of a bag's only topic of event messages, or of the one that ``events_path`` names."""
    with needed("rosbags.rosbag1").Reader(path) as bag:
        topics = _topics(bag)
        chosen = topics[the_one(list(topics), format.events_path)]
        parts = [_decoded(message)[1] for _, _, message in bag.messages(chosen)]
    events = np.concatenate([np.zeros(0, _EVENT), *parts])
    t = events["s"].astype(np.int64) * 1_000_000_000 + events["ns"]
    return Columns(events["x"], events["y"], t, events["p"], "ns")


@guarded("rosbags.rosbag1", limited=True)
def sensor_size(path: Path, _: Format) -> tuple[int, int] | None:
    """(W, H) that all topics of event messages name; None where they differ, or have none."""
    with needed("rosbags.rosbag1").Reader(path) as bag:
        firsts = (next(bag.messages(chosen), None) for chosen in _topics(bag).values())
        sizes = {_decoded(first[2])[0] for first in firsts if first is not None}
    return sizes.pop() if len(sizes) == 1 else None


def _topics(bag: Any) -> dict[str, list[Any]]:
    """The connections of each topic of event messages: one for each node that wrote to it."""
    found: dict[str, list[Any]] = {}
    for one in bag.connections:
        if one.msgtype in _TYPES:
            found.setdefault(one.topic, []).append(one)
    if not found:
        others = ", ".join(sorted({f"{one.topic} ({one.msgtype})" for one in bag.connections}))
        raise ValueError(f"no topic of event messages; there are {others or 'none at all'}")
    return found


def _decoded(message: bytes) -> tuple[tuple[int, int], NDArray[Any]]:
    at = 12 + 4 + struct.unpack_from("<I", message, 12)[0]  # number, time and frame of the header
    height, width, count = struct.unpack_from("<III", message, at)
    if len(message) != at + 12 + count * _EVENT.itemsize:
        raise ValueError(f"a message of {len(message)} bytes with {count} events; it is damaged")
    return (width, height), np.frombuffer(message, _EVENT, count, at + 12)
