"""Data sets by name: the name here is the name on the command line."""

from __future__ import annotations

from . import event_sets, image_sets
from .definition import DataSet

DATA_SETS: dict[str, DataSet] = {
    entry.name: entry for entry in (*event_sets.data_sets(), *image_sets.data_sets())
}


def data_set(name: str) -> DataSet:
    """The registered data set of that name.

    Raises:
        ValueError: there is none; the message lists the known ones.
    """
    if name not in DATA_SETS:
        raise ValueError(f"unknown data set {name!r}; the known ones are {', '.join(DATA_SETS)}")
    return DATA_SETS[name]
