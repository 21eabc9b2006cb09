"""Event recordings cut into frames by Tonic, and the caches of both."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..files import cache_folder
from .augment import EventTransform
from .cache import ArrayFile, build_once, cache_key, file_stamp, map_in_order, smallest
from .recordings import EVENT, Events, Format, SensorSize, import_tonic, read_recording
from .samples import Samples

_VERSION = 2  # of the caches
_INDEX = np.dtype(
    [("file", np.int64), ("events", np.int64), ("us", np.int64), ("crc", np.uint32)]
)  # of a sample: which file it is of, its number of events, their duration, its frames' checksum
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Framing:
    """How a recording becomes frames [T, P, H, W].

    Args:
        sensor_size: (W, H, P), in pixels and polarities.
        T: number of frames, >= 1.
        format: of the files.
        by: "time", bins of equal length, or "count", bins of equally many events.
        downsample: pixels of the longer side after downsampling; None keeps the sensor's.
        until: microseconds after which events are left out; None keeps all.
        start: microseconds after the first event before which events are left out, >= 0.
        duration: microseconds after ``start`` from which on they are left out; None keeps all.
        window: microseconds of each of the parts that a recording is cut into; what is left at
            the end is left out. None takes it whole.
        denoise: microseconds within which an event must have another in a pixel beside it, or is
            left out (Tonic's ``Denoise``); None keeps all.
        hot_pixels: events a second above which a pixel is left out (Tonic's ``DropPixel``).

    Raises:
        ValueError: an unknown ``by``, a ``downsample`` that is not below the sensor's side, or
            another number out of its range.
    """

    sensor_size: SensorSize
    T: int
    format: Format = field(default_factory=Format)
    by: str = "time"
    downsample: int | None = None
    until: int | None = None
    start: int = 0
    duration: int | None = None
    window: int | None = None
    denoise: int | None = None
    hot_pixels: float | None = None

    def __post_init__(self) -> None:
        if self.by not in ("time", "count"):
            raise ValueError(f"`frames_by` (={self.by}) must be time or count")
        longest = max(self.sensor_size[:2])
        if self.downsample is not None and not 1 <= self.downsample <= longest:
            raise ValueError(
                f"`downsample` (={self.downsample}) must lie between 1 and {longest}, the longer "
                "side of the sensor in pixels"
            )
        if self.start < 0:
            raise ValueError(f"`start` (={self.start}) must not be negative, in microseconds")
        for name in ("duration", "window", "denoise", "hot_pixels"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"`{name}` (={value}) must be positive")

    @property
    def frame_size(self) -> SensorSize:
        """(W, H, P) of a frame."""
        width, height, polarities = self.sensor_size
        if self.downsample is None:
            return self.sensor_size
        scale = self.downsample / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale)), polarities

    def windows(self, path: Path) -> list[Events]:
        """The events of a recording that frames are made of: of each window, or of the whole.

        Windows with too few events for ``T`` frames are left out.

        Raises:
            ValueError: the recording is damaged, or nothing in it makes a frame.
        """
        transforms = import_tonic().transforms
        events = read_recording(path, self.sensor_size, self.format)
        first = events["t"][0]
        if self.hot_pixels is not None and events["t"][-1] > first:
            events = transforms.DropPixel(hot_pixel_frequency=self.hot_pixels)(events)
        if self.denoise is not None and len(events):
            events = _denoised(transforms.Denoise(self.denoise), events, self.denoise)
        if self.until is not None:
            events = events[events["t"] <= self.until]
            if len(events) == 0:
                raise ValueError(f"{path}: no event in the first {self.until} us")
        if self.start or self.duration is not None:
            begin = first + self.start
            end = events["t"][-1] + 1 if self.duration is None else begin + self.duration
            events = events[(events["t"] >= begin) & (events["t"] < end)]
        if len(events) == 0:
            raise ValueError(
                f"{path}: no event is left; see `data.start`, `data.duration`, `data.denoise` and "
                "`data.hot_pixels`"
            )
        if self.downsample is not None:
            events = transforms.Downsample(
                sensor_size=self.sensor_size, target_size=self.frame_size[:2]
            )(events)
        parts = [events] if self.window is None else _cut(events, self.window)
        if not parts:
            duration = events["t"][-1] - events["t"][0]
            raise ValueError(
                f"{path}: lasts {duration} us, less than one `data.window` (={self.window})"
            )
        enough = [part for part in parts if self._available(part) >= self.T]
        if not enough:
            unit = "events" if self.by == "count" else "us"
            available = max(map(self._available, parts))
            raise ValueError(f"{path}: {available} {unit} of events make no `T` (={self.T}) frames")
        return enough

    def _available(self, events: Events) -> int:
        if len(events) == 0:
            return 0
        return len(events) if self.by == "count" else int(events["t"][-1] - events["t"][0])

    def frames(self, events: Events) -> NDArray[np.int32]:
        """Event counts [T, P, H, W], of the slices that Tonic's `ToFrame` makes.

        Its own counts are of 16 bits.
        """
        slicers = import_tonic().slicers
        by = slicers.SliceByEventBins if self.by == "count" else slicers.SliceByTimeBins
        width, height, polarities = self.frame_size
        counts = np.zeros((self.T, polarities * height * width), np.int32)
        for row, part in zip(counts, by(self.T).slice(events, None)[0], strict=True):
            pixel = part["y"].astype(np.int64) * width + part["x"]
            if polarities > 1:
                pixel += part["p"].astype(np.int64) * height * width
            row[:] = np.bincount(pixel, minlength=len(row))
        return counts.reshape(self.T, polarities, height, width)

    def read(self, path: Path) -> NDArray[np.int32]:
        """The frames of a recording; of its first window where there are several."""
        return self.frames(self.windows(path)[0])


def _cut(events: Events, window: int) -> list[Events]:
    """The whole windows from the first event on."""
    t = events["t"]
    count = int((t[-1] - t[0] + 1) // window)
    bounds = np.searchsorted(t, t[0] + np.arange(count + 1) * window)
    return [events[a:b] for a, b in itertools.pairwise(bounds)]


def _denoised(denoise: Any, events: Events, filter_time: int) -> Events:
    """What Tonic's filter keeps; it takes pixels without events for ones that fired at 0."""
    late = events.copy()
    late["t"] += 2 * filter_time - events["t"][0]
    kept: Events = denoise(late)
    kept["t"] -= 2 * filter_time - events["t"][0]
    return kept


@dataclass(frozen=True)
class _Read:
    """What makes samples of a file, in any process."""

    framing: Framing
    skip_bad: bool

    def events(self, path: Path) -> list[Events] | str:
        try:
            return self.framing.windows(path)
        except (ValueError, OSError) as error:
            if not self.skip_bad:
                raise
            return str(error)

    def frames(self, path: Path) -> tuple[NDArray[np.integer], NDArray[np.void]] | str:
        windows = self.events(path)
        if isinstance(windows, str):
            return windows
        made = smallest(np.stack([self.framing.frames(events) for events in windows]))
        index = np.zeros(len(windows), _INDEX)
        index["events"] = [len(events) for events in windows]
        index["us"] = [events["t"][-1] - events["t"][0] for events in windows]
        index["crc"] = [zlib.crc32(frames.tobytes()) for frames in made]
        return made, index


@dataclass(frozen=True)
class Cached:
    """The frames of recordings.

    Args:
        frames: [N, T, P, H, W], mapped into memory from one file in the cache.
        index: of each sample its file's number, events, duration and checksum.
        skipped: what was wrong with each file that was left out.
    """

    frames: NDArray[np.integer]
    index: NDArray[np.void]
    skipped: tuple[str, ...] = ()


class Frames(Samples):
    """Recordings as frames, cached on disk; all are read and checked at the first use.

    A recording that is cut into windows is as many samples.

    Args:
        files: recordings.
        labels: one for each.
        framing: how they become frames.
        event_transform: what changes a training sample's events at random. If it is given, the
            events are cached too, and a training sample's frames are made when it is asked for.
        skip_bad: whether files that can't be read are left out.

    Raises:
        ValueError: a file that can't be read, or makes no frames.
    """

    def __init__(
        self,
        files: Sequence[Path],
        labels: Sequence[int],
        framing: Framing,
        event_transform: EventTransform | None = None,
        skip_bad: bool = False,
    ) -> None:
        cached = cached_frames(files, framing, skip_bad=skip_bad)
        super().__init__(cached.frames, np.asarray(labels)[cached.index["file"]], Tensor.float)
        self.index, self.skipped = cached.index, cached.skipped
        self.files, self.framing, self.event_transform = files, framing, event_transform
        self.events = None if event_transform is None else CachedEvents(files, framing, skip_bad)

    def raw(self, index: int) -> Tensor:
        if self.augment is None or self.events is None or self.event_transform is None:
            return super().raw(index)
        events = self.event_transform(self.events[index])
        if len(events) == 0:
            return torch.zeros(self.arrays.shape[1:], dtype=torch.int16)
        return torch.from_numpy(self.framing.frames(events))


def cached_frames(
    files: Sequence[Path],
    framing: Framing,
    processes: int | None = None,
    skip_bad: bool = False,
) -> Cached:
    """Frames of recordings, built at the first use; ``processes`` is `map_in_order`'s.

    They are of the smallest type that holds all counts, and a note at INFO says which.
    """
    width, height, polarities = framing.frame_size

    def build(folder: Path) -> None:
        desc = f"frames, T = {framing.T}"
        reading = _Read(framing, skip_bad).frames
        indices, skipped = [np.zeros(0, _INDEX)], []
        with ArrayFile(folder / "frames.npy", (framing.T, polarities, height, width)) as array:
            made = map_in_order(reading, files, desc, "recording", processes)
            for number, read in enumerate(made):
                if isinstance(read, str):
                    skipped.append(read)
                    continue
                array.extend(read[0])
                read[1]["file"] = number
                indices.append(read[1])
        if array.length == 0:
            raise ValueError(f"none of {len(files)} recordings can be read; {skipped[0]}")
        np.save(folder / "index.npy", np.concatenate(indices))
        (folder / "skipped.json").write_text(json.dumps(skipped))
        _log.info("frames: %d samples as %s", array.length, array.dtype)

    folder = build_once(_cache_folder("frames", framing, files, skip_bad), build)
    skipped = tuple(json.loads((folder / "skipped.json").read_text()))
    for message in skipped:
        _log.warning("left out: %s", message)
    frames: NDArray[np.integer] = np.load(folder / "frames.npy", mmap_mode="r")
    return Cached(frames, np.load(folder / "index.npy"), skipped)


class CachedEvents:
    """The events of samples, mapped into memory from one file in the cache."""

    def __init__(self, files: Sequence[Path], framing: Framing, skip_bad: bool = False) -> None:
        def build(folder: Path) -> None:
            ends = [0]
            reading = _Read(framing, skip_bad).events
            with (folder / "events.raw").open("wb") as file:
                for windows in map_in_order(reading, files, "events", "recording"):
                    for events in () if isinstance(windows, str) else windows:
                        file.write(events.tobytes())
                        ends.append(ends[-1] + len(events))
            np.save(folder / "ends.npy", ends)

        # events are the same for every number of frames, but for what is too short for it
        same = framing if skip_bad or framing.window else replace(framing, T=1)
        folder = build_once(_cache_folder("events", same, files, skip_bad), build)
        self._folder = folder
        self._open()

    def _open(self) -> None:
        self._ends = np.load(self._folder / "ends.npy")
        self._events = np.memmap(self._folder / "events.raw", EVENT, "r")

    def __getstate__(self) -> Path:
        return self._folder  # another process maps the file anew

    def __setstate__(self, folder: Path) -> None:
        self._folder = folder
        self._open()

    def __getitem__(self, index: int) -> Events:
        events: Events = np.array(self._events[self._ends[index] : self._ends[index + 1]])
        return events


def _cache_folder(kind: str, framing: Framing, files: Sequence[Path], skip_bad: bool) -> Path:
    key = cache_key(
        _VERSION,
        importlib.metadata.version("tonic"),
        framing,
        skip_bad,
        [file_stamp(f) for f in files],
    )
    return cache_folder() / kind / key
