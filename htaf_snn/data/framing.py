"""Framing: which events of a recording are used, and how they are divided into frames."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..arguments import in_range
from .options import Format, FramingOptions
from .recordings import Events, SensorSize, read_recording

Shape = tuple[int, int, int]  # C, H, W of a frame


@dataclass(frozen=True)
class Framing(FramingOptions):
    """Turns a recording into frames [T, P, H, W]."""

    sensor_size: SensorSize  # (W, H, P), in pixels and polarities
    T: int  # number of frames, >= 1
    format: Format = field(default_factory=Format)
    until: int | None = None  # microseconds after which events are left out

    def check(self) -> None:
        super().check()
        in_range("T", self.T, 1, 1 << 14)
        for side in self.sensor_size:
            in_range("sensor_size", side, 1, 1 << 15)
        longest = max(self.sensor_size[:2])
        if self.downsample is not None and self.downsample > longest:
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

    @property
    def shape(self) -> Shape:
        """(P, H, W) of a frame."""
        width, height, polarities = self.frame_size
        return polarities, height, width

    def windows(self, path: Path) -> list[Events]:
        """The events of a recording that frames are made of: of each window, or of the whole.

        Windows with too few events for ``T`` frames are left out.
        """
        events = self._kept(read_recording(path, self.sensor_size, self.format))
        if len(events) == 0:
            raise ValueError(
                f"{path}: no event is left; see `data.start`, `data.duration`, `data.denoise`, "
                "`data.hot_pixels` and `data.first_saccade`"
            )
        if self.downsample is not None:
            # Tonic's Downsample multiplies by a rounded factor: 49 * (2 / 98) < 1
            events = events.copy()
            for name, new, old in zip("xy", self.frame_size, self.sensor_size, strict=False):
                events[name] = events[name].astype(np.int32) * new // old
        parts = [events] if self.window is None else _cut(events, self.window)
        if not parts:
            duration = events["t"][-1] - events["t"][0]
            raise ValueError(
                f"{path}: lasts {duration} us, less than one `data.window` (={self.window})"
            )
        enough = [part for part in parts if self._available(part) >= self.T]
        if not enough:
            unit = "events" if self.frames_by == "count" else "us"
            available = max(map(self._available, parts))
            raise ValueError(f"{path}: {available} {unit} of events make no `T` (={self.T}) frames")
        return enough

    def _kept(self, events: Events) -> Events:
        first, last = (int(t) for t in events["t"][[0, -1]])
        if self.hot_pixels is not None and last > first:
            pixel = _pixels(events, self.sensor_size[0])
            hot = np.bincount(pixel) > self.hot_pixels * ((last - first) / 1e6)
            events = events[~hot[pixel]]
        if self.denoise is not None:
            events = events[_accompanied(events, self.sensor_size[:2], self.denoise)]
        if self.until is not None:
            events = events[events["t"] <= self.until]
        events = events[events["t"] >= first + self.start]
        if self.duration is not None:
            events = events[events["t"] < first + self.start + self.duration]
        return events

    def _available(self, events: Events) -> int:
        if self.frames_by == "count" or len(events) == 0:
            return len(events)
        return int(events["t"][-1] - events["t"][0]) + 1

    def frames(self, events: Events) -> NDArray[np.int32]:
        """Event counts [T, P, H, W]: each event is in one frame, that of SpikingJelly's slices."""
        width, height, polarities = self.frame_size
        pixel = _pixels(events, width)
        if polarities > 1:
            pixel += events["p"].astype(np.int64) * (height * width)
        t, steps = events["t"], np.arange(self.T)
        if self.frames_by == "count" or len(t) == 0:
            starts = steps * (len(t) // self.T)
        else:
            starts = np.searchsorted(t, t[0] + steps * ((t[-1] - t[0]) // self.T))
        bounds = itertools.pairwise([*starts.tolist(), len(t)])
        counts = np.zeros((self.T, polarities * height * width), np.int32)
        for row, (start, end) in zip(counts, bounds, strict=True):
            row[:] = np.bincount(pixel[start:end], minlength=len(row))
        return counts.reshape(self.T, polarities, height, width)

    def read(self, path: Path) -> NDArray[np.int32]:
        """The frames of a recording; of its first window where there are several."""
        return self.frames(self.windows(path)[0])


def _pixels(events: Events, width: int) -> NDArray[np.int64]:
    return np.asarray(events["y"].astype(np.int64) * width + events["x"])


def _cut(events: Events, window: int) -> list[Events]:
    """The whole windows from the first event on that have events."""
    t = events["t"] - events["t"][0]
    numbers, starts = np.unique(t // window, return_index=True)
    whole = numbers < (t[-1] + 1) // window
    bounds = [*starts.tolist(), len(t)]
    return [
        events[a:b] for (a, b), keep in zip(itertools.pairwise(bounds), whole, strict=True) if keep
    ]


def _accompanied(events: Events, size: tuple[int, int], within: int) -> NDArray[np.bool_]:
    """Marks events that follow one in a pixel beside theirs by less than ``within``.

    As Tonic's ``Denoise``, which loops in Python and takes pixels without events for ones that
    fired at 0.
    """
    width, height = size
    x, y, t = (events[name].astype(np.int64) for name in "xyt")
    order = np.arange(len(events))
    keys = np.sort((y * width + x) * len(events) + order)  # by pixel, then by time
    found = np.zeros(len(events), bool)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        beside = (y + dy) * width + x + dx
        before = keys[np.searchsorted(keys, beside * len(events) + order) - 1]
        inside = (x + dx >= 0) & (x + dx < width) & (y + dy >= 0) & (y + dy < height)
        is_there = inside & (before // len(events) == beside)
        found |= is_there & (t - t[before % len(events)] < within)
    return found
