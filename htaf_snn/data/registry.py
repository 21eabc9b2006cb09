"""Data sets by name: the name here is the name on the command line."""

from __future__ import annotations

from ..registry import find
from . import audio_sets, event_folder, event_sets, image_sets
from .definition import DataSet

DATA_SETS: dict[str, DataSet] = {
    entry.name: entry
    for sets in (event_sets, audio_sets, event_folder, image_sets)
    for entry in sets.data_sets()
}


def sets() -> str:
    """The data sets, a line each: shape of a frame, classes, kind and source."""
    lines = []
    for entry in DATA_SETS.values():
        shape = "x".join(map(str, entry.shape or ())) or "by file"
        classes = "by folder" if entry.num_classes is None else entry.num_classes
        lines.append(
            f"{entry.name:14} {shape:9} {classes!s:>9} classes  {entry.kind}: {entry.source}"
        )
    return "\n".join(lines)


def data_set(name: str) -> DataSet:
    """The registered data set of that name, or a `DataSet` of one's own by its import path.

    Raises:
        ValueError: there is none; the message lists the known ones.
    """
    return find("data set", name, DATA_SETS, is_data_set, "htaf_snn.data.DataSet")


def is_data_set(found: object) -> bool:
    """Returns True for what `data_set` gives."""
    return isinstance(found, DataSet)
