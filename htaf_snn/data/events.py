"""Samples of event recordings: the caches of their frames and of their events."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..files import cache_folder
from .augment import EventTransform
from .cache import ArrayFile, build_once, cache_key, file_stamp, map_in_order, smallest
from .framing import Framing
from .recordings import EVENT, Events, file_of
from .samples import Samples

_VERSION = 3  # of the caches
_INDEX = np.dtype(
    [("file", np.int64), ("events", np.int64), ("us", np.int64), ("crc", np.uint32)]
)  # of a sample: which file it is of, its number of events, their duration, its frames' checksum
_log = logging.getLogger(__name__)


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
    stamps = [file_stamp(file) for file in dict.fromkeys(map(file_of, files))]
    names = [path.name for path in files]
    version = importlib.metadata.version("tonic")
    key = cache_key(_VERSION, version, framing, skip_bad, stamps, names)
    return cache_folder() / kind / key
