"""Event recordings cut into frames by Tonic, and the caches of both."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..files import cache_folder
from .augment import EventTransform
from .cache import build_once, cache_key, file_stamp, map_in_order
from .recordings import EVENT, XYTP, Events, Format, SensorSize, import_tonic, read_recording
from .samples import Samples

_ROWS = 256  # copied at a time


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

    Raises:
        ValueError: an unknown ``by``, or a ``downsample`` that is not below the sensor's side.
    """

    sensor_size: SensorSize
    T: int
    format: Format = XYTP
    by: str = "time"
    downsample: int | None = None
    until: int | None = None

    def __post_init__(self) -> None:
        if self.by not in ("time", "count"):
            raise ValueError(f"`frames_by` (={self.by}) must be time or count")
        longest = max(self.sensor_size[:2])
        if self.downsample is not None and not 1 <= self.downsample <= longest:
            raise ValueError(
                f"`downsample` (={self.downsample}) must lie between 1 and {longest}, the longer "
                "side of the sensor in pixels"
            )

    @property
    def frame_size(self) -> SensorSize:
        """(W, H, P) of a frame."""
        width, height, polarities = self.sensor_size
        if self.downsample is None:
            return self.sensor_size
        scale = self.downsample / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale)), polarities

    def events(self, path: Path) -> Events:
        """The events of a recording that frames are made of.

        Raises:
            ValueError: the recording is damaged, or nothing in it makes a frame.
        """
        transforms = import_tonic().transforms
        events = read_recording(path, self.sensor_size, self.format)
        if self.until is not None:
            events = transforms.CropTime(max=self.until)(events)
            if len(events) == 0:
                raise ValueError(f"{path}: no event in the first {self.until} us")
        if self.downsample is not None:
            events = transforms.Downsample(
                sensor_size=self.sensor_size, target_size=self.frame_size[:2]
            )(events)
        available = len(events) if self.by == "count" else events["t"][-1] - events["t"][0]
        if available < self.T:
            unit = "events" if self.by == "count" else "us"
            raise ValueError(f"{path}: {available} {unit} of events make no `T` (={self.T}) frames")
        return events

    def frames(self, events: Events) -> NDArray[np.int16]:
        """Event counts [T, P, H, W], by Tonic's `ToFrame`."""
        bins = {"n_event_bins" if self.by == "count" else "n_time_bins": self.T}
        to_frame = import_tonic().transforms.ToFrame(sensor_size=self.frame_size, **bins)
        frames: NDArray[np.int16] = to_frame(events)
        return frames

    def read(self, path: Path) -> NDArray[np.int16]:
        """The frames of a recording."""
        return self.frames(self.events(path))


class Frames(Samples):
    """Recordings as frames, cached on disk; all are read and checked at the first use.

    Args:
        files: recordings.
        labels: one for each.
        framing: how they become frames.
        event_transform: what changes a training sample's events at random. If it is given, the
            events are cached too, and a training sample's frames are made when it is asked for.

    Raises:
        ValueError: a file that can't be read, or makes no frames.
    """

    def __init__(
        self,
        files: Sequence[Path],
        labels: Sequence[int],
        framing: Framing,
        event_transform: EventTransform | None = None,
    ) -> None:
        super().__init__(cached_frames(files, framing), np.asarray(labels), Tensor.float)
        self.files, self.framing, self.event_transform = files, framing, event_transform
        self.events = None if event_transform is None else CachedEvents(files, framing)

    def raw(self, index: int) -> Tensor:
        if self.augment is None or self.events is None or self.event_transform is None:
            return super().raw(index)
        events = self.event_transform(self.events[index])
        if len(events) == 0:
            return torch.zeros(self.arrays.shape[1:], dtype=torch.int16)
        return torch.from_numpy(self.framing.frames(events))


def cached_frames(
    files: Sequence[Path], framing: Framing, processes: int | None = None
) -> NDArray[np.integer]:
    """Frames [N, T, P, H, W] of recordings, mapped into memory from one file in the cache.

    They are uint8 where no count exceeds 255, else int16. ``processes`` is `map_in_order`'s.
    """
    width, height, polarities = framing.frame_size
    shape = (len(files), framing.T, polarities, height, width)

    def build(folder: Path) -> None:
        wide = np.lib.format.open_memmap(folder / "wide.npy", "w+", np.int16, shape)
        most = 0
        desc = f"frames, T = {framing.T}"
        made = map_in_order(framing.read, files, desc, "recording", processes)
        for index, frames in enumerate(made):
            wide[index] = frames
            most = max(most, int(frames.max()))
        if most > np.iinfo(np.uint8).max:
            wide.flush()
            (folder / "wide.npy").rename(folder / "frames.npy")
            return
        narrow = np.lib.format.open_memmap(folder / "frames.npy", "w+", np.uint8, shape)
        for start in range(0, len(files), _ROWS):
            narrow[start : start + _ROWS] = wide[start : start + _ROWS]
        narrow.flush()
        (folder / "wide.npy").unlink()

    folder = build_once(_cache_folder("frames", framing, files), build)
    frames: NDArray[np.integer] = np.load(folder / "frames.npy", mmap_mode="r")
    return frames


class CachedEvents:
    """The events of recordings, mapped into memory from one file in the cache."""

    def __init__(self, files: Sequence[Path], framing: Framing) -> None:
        def build(folder: Path) -> None:
            ends = [0]
            with (folder / "events.raw").open("wb") as file:
                for events in map_in_order(framing.events, files, "events", "recording"):
                    file.write(events.tobytes())
                    ends.append(ends[-1] + len(events))
            np.save(folder / "ends.npy", ends)

        # events are the same for every number of frames
        folder = build_once(_cache_folder("events", replace(framing, T=1), files), build)
        self._ends = np.load(folder / "ends.npy")
        self._events = np.memmap(folder / "events.raw", EVENT, "r")

    def __getitem__(self, index: int) -> Events:
        events: Events = np.array(self._events[self._ends[index] : self._ends[index + 1]])
        return events


def _cache_folder(kind: str, framing: Framing, files: Sequence[Path]) -> Path:
    key = cache_key(importlib.metadata.version("tonic"), framing, [file_stamp(f) for f in files])
    return cache_folder() / kind / key
