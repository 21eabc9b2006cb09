"""Data sets by name: the name here is the name on the command line."""

from __future__ import annotations

from ..arguments import one_of
from . import audio_sets, event_folder, event_sets, image_sets
from .definition import DataSet

DATA_SETS: dict[str, DataSet] = {
    entry.name: entry
    for sets in (event_sets, audio_sets, event_folder, image_sets)
    for entry in sets.data_sets()
}


def data_set(name: str) -> DataSet:
    """The registered data set of that name.

    Raises:
        ValueError: there is none; the message lists the known ones.
    """
    one_of("data set", name, DATA_SETS)
    return DATA_SETS[name]
