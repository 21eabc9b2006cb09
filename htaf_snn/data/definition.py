"""The definition of a data set, and the options that it is loaded with."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from ..arguments import Options, in_range, quoted
from .augment import Kind
from .framing import Framing, FramingOptions
from .readers.cameras import Camera as Camera  # a type of FormatOptions, looked up here
from .readers.columns import Format, FormatOptions
from .splits import Splits

Shape = tuple[int, int, int]  # C, H, W of a frame


@dataclass(frozen=True, kw_only=True)
class EventOptions(FramingOptions):
    """Options of all sets of event recordings.

    Args:
        skip_bad: of events: whether recordings that can't be read are left out, and listed.
        split: of events: what is drawn where there is no folder for it: "random", whole
            recordings, or "time", the later ``window``s of each recording, after a gap of one.
    """

    skip_bad: bool = False
    split: Literal["random", "time"] = "random"

    def check(self) -> None:
        super().check()
        if self.split == "time" and self.window is None:
            raise ValueError(
                "`split` (=time) divides the windows of each recording: set `data.window`, in "
                "microseconds"
            )


@dataclass(frozen=True, kw_only=True)
class FolderOptions(FormatOptions):
    """Options of a folder of recordings, which its files do not tell.

    Args:
        sensor_size: of event_folder: (W, H) in pixels, such as 34x34; None takes it from the
            files' headers, or else from their events.
        group: of event_folder: a regular expression that finds subject or session in a
            recording's path (its first group, such as "user(\\d+)"); whole groups are split.
        split_file: of event_folder: lines ``path,part``, with part train, validation or test.
    """

    sensor_size: tuple[int, int] | str | None = None
    group: str | None = None
    split_file: Path | None = None

    def check(self) -> None:
        super().check()
        if isinstance(self.sensor_size, str):
            sides = re.fullmatch(
                r"[\[(]?\s*(\d{1,5})\s*[x,]\s*(\d{1,5})\s*[\])]?", self.sensor_size
            )
            if sides is None:
                raise ValueError(
                    f"`sensor_size` (={quoted(self.sensor_size)}) must be width and height in "
                    "pixels, such as 346x260"
                )
            object.__setattr__(self, "sensor_size", (int(sides[1]), int(sides[2])))
        for side in self.sensor_size or ():
            in_range("sensor_size", int(side), 1, 2**12)
        if self.group is not None:
            try:
                re.compile(self.group)
            except re.error as error:
                raise ValueError(f"`group` (={self.group}) is no pattern: {error}") from error


def names(kind: type[Options]) -> frozenset[str]:
    """The names of a group of options."""
    return frozenset(field.name for field in fields(kind))


SOURCE_OPTIONS = frozenset({"root", "download"})
EVENT_OPTIONS = names(EventOptions)
FOLDER_OPTIONS = names(FolderOptions)


@dataclass(frozen=True)
class DataConfig(EventOptions, FolderOptions):
    """The options ``--data.*``: which data, and how they are prepared.

    Beside its own, the fields of `EventOptions`, `FolderOptions` and `FormatOptions`.

    Args:
        name: a data set's name, as ``htaf-snn data`` lists them.
        root: folder of the data, for sets that are not built in.
        T: time steps: bins of a recording, or steps that an image is shown for; >= 1.
        batch_size: samples a batch; >= 1.
        validation: share of the samples held out to choose models, in [0, 1); 0 trains without,
            and keeps the last epoch. Without effect where the set comes with a validation split.
        test: share of the samples held out for the test, in (0, 1); without effect where the
            set comes with a test split.
        split_seed: of the draw of the three parts.
        augment: random changes of training samples, between commas, one after the other; all
            frames of a sample alike. Of images and events: shift (by up to the argument
            ``shift``), crop (a shift by up to an eighth of the side), flip (horizontally, half of
            the samples), cutout (a square of a quarter of the area, of half the samples), roll (by
            up to a tenth of the side), rotate (by up to 15 degrees), shear (by up to 15 degrees),
            nda (a flip, then roll, rotation by up to 30 degrees, shear by up to 30 degrees or a
            square hole of a ninth of the area; Li et al., arXiv 2203.06145). Of images alone:
            autoaugment (CIFAR-10's policy up to 64 pixels, ImageNet's above). Of events alone:
            drop (up to 30 % of them), event_drop (Gu et al. 2021), time_jitter (standard
            deviation 1 ms), spatial_jitter (variance 0.5 pixels^2). Empty for none.
        shift: largest random shift by "shift", as a share of the side, in [0, 0.5); 0 leaves
            the samples in place.
        mixup: alpha of MixUp, >= 0; 0 is off. Where CutMix is on too, a batch has one of them.
        cutmix: alpha of CutMix, >= 0; 0 is off.
        encoder: of images: "direct", "poisson" or "latency"; see `Encoder`.
        first_saccade: of N-MNIST, N-Caltech101 and digits_events: whether to leave out what
            comes after the first saccade (105 ms, 100 ms and 100 ms).
        size: of image_folder: side to which the images are scaled and cropped, in pixels.
        download: whether Tonic or torchvision may fetch what is missing.
        num_workers: processes that load; 0 loads in this one.

    Raises:
        ValueError: a number out of its range, or a pattern that is none.
    """

    name: str = "digits_events"
    root: Path | None = None
    T: int = 8
    batch_size: int = 32
    validation: float = 0.15
    test: float = 0.2
    split_seed: int = 0
    augment: str = "shift"
    shift: float = 0.06
    mixup: float = 0.0
    cutmix: float = 0.0
    encoder: Literal["direct", "poisson", "latency"] = "direct"
    first_saccade: bool = False
    size: int | None = None
    download: bool = False
    num_workers: int = 0

    def check(self) -> None:
        super().check()
        for key, count, least, most in (
            ("T", self.T, 1, 2**14), ("batch_size", self.batch_size, 1, 2**16),
            ("size", self.size, 1, 2**12), ("num_workers", self.num_workers, 0, 2**8),
            ("split_seed", self.split_seed, 0, 2**32 - 1),
            ("mixup", self.mixup, 0, 1e3), ("cutmix", self.cutmix, 0, 1e3),
        ):  # fmt: skip
            if count is not None:
                in_range(key, count, least, most)
        if not (self.validation >= 0 and self.test > 0 and self.validation + self.test < 1):
            raise ValueError(
                f"`validation` (={self.validation}) must not be negative, `test` (={self.test}) "
                "must be positive, and both must leave something to train on"
            )
        if self.split == "time" and self.group is not None:
            raise ValueError(
                f"`group` (={self.group}) keeps recordings whole, `split` (=time) divides each: "
                "leave one out"
            )
        if not 0 <= self.shift < 0.5:
            raise ValueError(f"`shift` (={self.shift}) must lie in [0, 0.5), a share of the side")

    @property
    def format(self) -> Format:
        """The options that a folder's files do not tell."""
        return Format(**self.part(FormatOptions))


_OF_SOME = SOURCE_OPTIONS | {"encoder", "first_saccade", "size"}
_OF_ALL = names(DataConfig) - _OF_SOME - EVENT_OPTIONS - FOLDER_OPTIONS


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
        options: the names of those of `DataConfig` that apply, beside what applies to all.
        framing: of recordings, how they become frames under options, and the classes' names in
            order of their labels; None of images.
    """

    name: str
    kind: Kind
    source: str
    shape: Shape | None
    num_classes: int | None
    load: Callable[[DataConfig], Splits] = field(repr=False)
    inspect: Callable[[DataConfig], tuple[Shape, int]] = field(repr=False)
    options: frozenset[str] = frozenset()
    framing: Callable[[DataConfig], tuple[Framing, list[str]]] | None = field(
        default=None, repr=False
    )

    def check(self, options: DataConfig) -> None:
        """Raises a ValueError if an option is set that does not apply to this data set."""
        for option in fields(DataConfig):
            value = getattr(options, option.name)
            applies = option.name in _OF_ALL | self.options
            if not applies and value != option.default:
                raise ValueError(
                    f"`{option.name}` (={value}) does not apply to {self.name} ({self.kind}); "
                    f"these do: {', '.join(sorted(self.options))}"
                )


def root_of(options: DataConfig, name: str) -> Path:
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
