"""Data sets: what they are, and what they are under options."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

from .augment import Kind
from .framing import Framing, Shape
from .options import DataConfig, EventOptions, FolderOptions
from .splits import Splits

EVENT_OPTIONS = frozenset(one.name for one in fields(EventOptions))
FOLDER_OPTIONS = frozenset(one.name for one in fields(FolderOptions))
_OF_ALL = (
    {one.name for one in fields(DataConfig)} - EVENT_OPTIONS - FOLDER_OPTIONS
    - {"root", "download", "encoder", "first_saccade", "size"}
)  # fmt: skip


@dataclass(eq=False)
class Opened:
    """A data set under options; what is found out about its files is kept for what comes next."""

    shape: Shape  # (C, H, W) of a frame
    num_classes: int
    load: Callable[[], Splits]  # gives the three parts
    framing: Framing | None = None  # of recordings, how they become frames

    @property
    def classes(self) -> list[str]:
        """The names of the classes of recordings, in order of their labels."""
        return []


@dataclass(frozen=True)
class DataSet:
    """A registered data set. One whose files tell its shape has an `open` of its own.

    Args:
        name: also on the command line.
        kind: images or events.
        source: what it is and where it comes from.
        shape: (C, H, W) of a frame; None where the files say.
        num_classes: number of labels; None where the folders say.
        load: gives its three parts; None where `open` does.
        options: the names of those of `DataConfig` that apply, beside what applies to all.
    """

    name: str
    kind: Kind
    source: str
    shape: Shape | None
    num_classes: int | None
    load: Callable[[DataConfig], Splits] | None = field(default=None, repr=False)
    options: frozenset[str] = field(default=frozenset(), kw_only=True)

    def open(self, options: DataConfig) -> Opened:
        """Returns the data set under options, of which no sample is loaded yet."""
        if self.shape is None or self.num_classes is None or self.load is None:
            raise TypeError(f"{self.name} needs shape, num_classes and load, or an open of its own")
        return Opened(self.shape, self.num_classes, functools.partial(self.load, options))

    def check(self, options: DataConfig) -> None:
        """Raises a ValueError if an option is set that does not apply to this data set."""
        for option in fields(DataConfig):
            value = getattr(options, option.name)
            if option.name not in _OF_ALL | self.options and value != option.default:
                raise ValueError(
                    f"`{option.name}` (={value}) does not apply to {self.name} ({self.kind}); "
                    f"these do: {', '.join(sorted(self.options))}"
                )

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape or ())) or "by file"
        classes = "by folder" if self.num_classes is None else self.num_classes
        return f"{self.name:14} {shape:9} {classes!s:>9} classes  {self.kind}: {self.source}"


def root_of(options: DataConfig, name: str) -> Path:
    """``options.root``, a folder or an archive."""
    if options.root is None:
        raise ValueError(f"`data.root` is needed: the folder that holds, or shall hold, {name}")
    root = options.root.expanduser()
    if not root.exists() and not options.download:
        raise FileNotFoundError(f"`data.root` (={options.root}): there is no such folder")
    return root
