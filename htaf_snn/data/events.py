"""Samples of event recordings: the caches of their frames and of their events."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..files import cache_folder
from .augment import EventTransform
from .cache import ArrayFile, build_once, cache_key, file_stamp, map_in_order, smallest
from .framing import Framing
from .recordings import EVENT, Events, Format, file_of, read_recording
from .samples import Samples

_VERSION = 4  # of the caches
_INDEX = np.dtype(
    [("file", np.int64), ("events", np.int64), ("us", np.int64), ("crc", np.uint32)]
)  # of a sample: which file it is of, its number of events, their duration, its frames' checksum
_LARGEST_SENSOR = 1 << 12  # pixels a side
_log = logging.getLogger(__name__)
Result = TypeVar("Result")


def or_why_not(read: Callable[[Path], Result], path: Path, skip_bad: bool) -> Result | str:
    """Reads a file; where bad ones may be left out, returns the error's text instead of raising."""
    try:
        return read(path)
    except (ValueError, OSError) as error:
        if skip_bad:
            return str(error)
        if isinstance(error, OSError):
            raise
        raise ValueError(
            f"{error}\n(--data.skip_bad true leaves out recordings that can't be read)"
        ) from error


@dataclass(frozen=True)
class _Read:
    """Reads a file's samples, in any process."""

    framing: Framing
    skip_bad: bool

    def events(self, path: Path) -> list[Events] | str:
        return or_why_not(self.framing.windows, path, self.skip_bad)

    def frames(self, path: Path) -> tuple[NDArray[np.integer], NDArray[np.void]] | str:
        windows = self.events(path)
        if isinstance(windows, str):
            return windows
        made = np.stack([smallest(self.framing.frames(events)) for events in windows])
        index = np.zeros(len(windows), _INDEX)
        index["events"] = [len(events) for events in windows]
        index["us"] = [events["t"][-1] - events["t"][0] for events in windows]
        index["crc"] = [zlib.crc32(frames.tobytes()) for frames in made]
        return made, index


@dataclass(frozen=True)
class _Extent:
    """Reads how far a file's events reach, in any process."""

    format: Format
    skip_bad: bool

    def __call__(self, path: Path) -> tuple[int, int] | str:
        return or_why_not(self._read, path, self.skip_bad)

    def _read(self, path: Path) -> tuple[int, int]:
        return extent(read_recording(path, format=self.format))


def extent(events: Events) -> tuple[int, int]:
    """(W, H) of the smallest sensor that has these events."""
    return int(events["x"].max()) + 1, int(events["y"].max()) + 1


def extent_of(files: Sequence[Path], format: Format, skip_bad: bool = False) -> tuple[int, int]:
    """(W, H) of the smallest sensor that has all events of ``files``, which are read once.

    Raises:
        ValueError: a file that can't be read, or events farther out than on any known sensor.
    """

    def build(folder: Path) -> None:
        read = map_in_order(_Extent(format, skip_bad), files, "sensor size", "recording")
        found = [one for one in read if not isinstance(one, str)]
        sides = np.max(found, axis=0).tolist() if found else None
        (folder / "extent.json").write_text(json.dumps(sides))

    folder = build_once(_cache_folder("extents", format, files, skip_bad), build)
    sides = json.loads((folder / "extent.json").read_text())
    if sides is None or max(sides) > _LARGEST_SENSOR:
        raise ValueError(
            f"{files[0]} and {len(files) - 1} others name no sensor size, and their events "
            f"{'can not be read' if sides is None else 'reach {}x{}'.format(*sides)}: set "
            "`data.sensor_size`, such as 346x260"
        )
    return sides[0], sides[1]


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
        return torch.from_numpy(self.framing.frames(self.event_transform(self.events[index])))


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


def _cache_folder(kind: str, how: Framing | Format, files: Sequence[Path], skip_bad: bool) -> Path:
    stamps = [file_stamp(file) for file in dict.fromkeys(map(file_of, files))]
    names = [path.name for path in files]
    key = cache_key(_VERSION, how, skip_bad, stamps, names)
    return cache_folder() / kind / key
