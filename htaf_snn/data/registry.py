"""Data sets by name: the name here is the name on the command line."""

from ..arguments import find
from .data_set import DataSet
from .event_folder import EventFolder
from .event_sets import EVENT_SETS
from .images import IMAGE_SETS

DATA_SETS: dict[str, DataSet] = {
    entry.name: entry for entry in (*EVENT_SETS.values(), EventFolder(), *IMAGE_SETS)
}


def sets() -> str:
    """The data sets, a line each: shape of a frame, classes, kind and source."""
    return "\n".join(map(str, DATA_SETS.values()))


def data_set(name: str) -> DataSet:
    """The registered data set of that name, or a `DataSet` of one's own by its import path.

    Raises:
        ValueError: there is none; the message lists the known ones.
    """
    return find("data set", name, DATA_SETS, is_data_set, "htaf_snn.data.DataSet")


def is_data_set(found: object) -> bool:
    return isinstance(found, DataSet)
