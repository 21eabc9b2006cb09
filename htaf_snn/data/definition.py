"""What a registered data set is, and what it is loaded with."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

from .augment import Kind
from .framing import Framing
from .recordings import Format
from .splits import Splits

Shape = tuple[int, int, int]  # C, H, W of a frame

SOURCE_OPTIONS = frozenset({"root", "download"})
EVENT_OPTIONS = frozenset(
    {
        "frames_by", "downsample", "event_augment", "start", "duration", "denoise", "hot_pixels",
        "skip_bad",
    }
)  # fmt: skip
FOLDER_OPTIONS = frozenset(
    {
        "sensor_size", "ordering", "time_unit", "sort", "events_path", "window", "group",
        "split_file",
    }
)  # fmt: skip


@dataclass(frozen=True)
class LoadOptions:
    """What every data set is loaded with; see `SpikingDataModule` for the meanings.

    Those with a default apply to some sets only.
    """

    T: int
    validation: float
    test: float
    split_seed: int
    root: Path | None = None
    download: bool = False
    encoder: str = "direct"
    frames_by: str = "time"
    downsample: int | None = None
    first_saccade: bool = False
    size: int | None = None
    sensor_size: tuple[int, int] | None = None
    ordering: str = "auto"
    time_unit: str = "auto"
    sort: bool = False
    events_path: str | None = None
    start: int = 0
    duration: int | None = None
    window: int | None = None
    denoise: int | None = None
    hot_pixels: float | None = None
    skip_bad: bool = False
    group: str | None = None
    split_file: Path | None = None
    event_augment: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _ = self.format  # checks it, before folders are searched
        if self.group is not None:
            try:
                re.compile(self.group)
            except re.error as error:
                raise ValueError(f"`group` (={self.group}) is no pattern: {error}") from error

    @property
    def format(self) -> Format:
        """What a folder's files leave unsaid."""
        return Format(
            ordering=self.ordering,
            time_unit=self.time_unit,
            sort=self.sort,
            events_path=self.events_path,
        )


@dataclass(frozen=True)
class DataSet:
    """A registered data set.

    Args:
        name: also on the command line.
        kind: images or events.
        source: what it is and where it comes from.
        shape: (C, H, W) of a frame; None where the files say.
        num_classes: number of labels; None where the folders say.
        load: gives its three parts.
        inspect: gives ``shape`` and ``num_classes`` under options, without loading the data.
        options: the names of `LoadOptions` with a default that apply.
        framing: of recordings, how they become frames under options, and the classes' names in
            order of their labels; None of images.
    """

    name: str
    kind: Kind
    source: str
    shape: Shape | None
    num_classes: int | None
    load: Callable[[LoadOptions], Splits] = field(repr=False)
    inspect: Callable[[LoadOptions], tuple[Shape, int]] = field(repr=False)
    options: frozenset[str] = frozenset()
    framing: Callable[[LoadOptions], tuple[Framing, list[str]]] | None = field(
        default=None, repr=False
    )

    def check(self, options: LoadOptions) -> None:
        """Raises a ValueError if an option is set that does not apply to this data set."""
        for option in fields(LoadOptions):
            value = getattr(options, option.name)
            applies = option.default is MISSING or option.name in self.options
            if not applies and value != option.default:
                raise ValueError(
                    f"`{option.name}` (={value}) does not apply to {self.name} ({self.kind}); "
                    f"these do: {', '.join(sorted(self.options - {'event_augment'}))}"
                )


def root_of(options: LoadOptions, name: str) -> Path:
    """``options.root``, a folder or an archive.

    Raises:
        ValueError: there is none given.
        FileNotFoundError: it does not exist, and nothing may be downloaded into it.
    """
    if options.root is None:
        raise ValueError(f"`data.root` is needed: the folder that holds, or shall hold, {name}")
    root = options.root.expanduser()
    if not root.exists() and not options.download:
        raise FileNotFoundError(f"`data.root` (={options.root}): there is no such folder")
    return root
