"""The options of data. A new one is a field here: help, checks and cache keys follow from it."""

# Annotations are types here, not text: classes elsewhere inherit them.

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..arguments import Options, in_range, quoted, within

Camera = Literal["dvs128", "davis128", "davis208", "davis240", "davis346", "davis640"]

_LONGEST_US = 1 << 53  # of any stretch of time that an option names


@dataclass(frozen=True, kw_only=True)
class FormatOptions(Options):
    """Options for what files of recordings do not tell.

    Args:
        ordering: of event_folder: the columns of a plain [N, 4] table, a permutation of
            "xytp"; "auto" knows time and polarity by their values, and takes x to stand before y.
        time_unit: of event_folder: of the files' times, "us", "ms", "ns", "s", or "auto": what
            the format says, else fractions are seconds and whole numbers microseconds.
        sort: of event_folder: whether events that are not in order of time are sorted.
        events_path: of event_folder: the events' name where a file has several: a group or data
            set in HDF5, a topic in a ROS bag, a source's number in AEDAT 3.1.
        camera: of event_folder: of AEDAT 2.0 files whose header does not name it.
    """

    ordering: str = "auto"
    time_unit: Literal["auto", "us", "ms", "ns", "s"] = "auto"
    sort: bool = False
    events_path: str | None = None
    camera: Camera | None = None

    def check(self) -> None:
        super().check()
        if self.ordering != "auto" and sorted(self.ordering) != sorted("xytp"):
            raise ValueError(f"`ordering` (={self.ordering}) must be auto or a permutation of xytp")


@dataclass(frozen=True, kw_only=True)
class Format(FormatOptions):
    """The format of recordings: `FormatOptions`, and what is known of a published set."""

    t_unit: int = 1  # microseconds in one unit of the file's t, where ``time_unit`` is "auto"
    flip_y: bool = False  # whether y counts from the lower edge
    to_origin: bool = False  # whether the smallest x and y become 0


@dataclass(frozen=True, kw_only=True)
class FramingOptions(Options):
    """Options that choose a recording's events and divide them into frames.

    Args:
        frames_by: of events: "time", bins of equal length, or "count", of equally many events;
            the last has what is left over, as in SpikingJelly.
        downsample: of events: pixels of a frame's longer side; None keeps the sensor's.
        start: of events: microseconds after the first event that are left out, >= 0.
        duration: of events: microseconds after ``start`` that are used; None uses all.
        window: of events: microseconds of each of the samples that a recording is cut into; what
            is left at its end is left out. None takes it whole.
        denoise: of events: microseconds within which an event must follow another in one of the
            four pixels beside it, or is left out.
        hot_pixels: of events: events a second above which a pixel is left out.
    """

    frames_by: Literal["time", "count"] = "time"
    downsample: int | None = within(None, 1, 1 << 12)
    start: int = within(0, 0, _LONGEST_US)
    duration: int | None = within(None, 1, _LONGEST_US)
    window: int | None = within(None, 1, _LONGEST_US)
    denoise: int | None = within(None, 1, _LONGEST_US)
    hot_pixels: float | None = within(None, 0, open_=True)


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
    T: int = within(8, 1, 2**14)
    batch_size: int = within(32, 1, 2**16)
    validation: float = 0.15
    test: float = 0.2
    split_seed: int = within(0, 0, 2**32 - 1)
    augment: str = "shift"
    shift: float = 0.06
    mixup: float = within(0.0, 0, 1e3)
    cutmix: float = within(0.0, 0, 1e3)
    encoder: Literal["direct", "poisson", "latency"] = "direct"
    first_saccade: bool = False
    size: int | None = within(None, 1, 2**12)
    download: bool = False
    num_workers: int = within(0, 0, 2**8)

    def check(self) -> None:
        super().check()
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
