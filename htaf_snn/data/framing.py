"""How a recording becomes frames: which of its events, cut how, by Tonic."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .recordings import Events, Format, SensorSize, import_tonic, read_recording


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

    @property
    def shape(self) -> tuple[int, int, int]:
        """(P, H, W) of a frame."""
        width, height, polarities = self.frame_size
        return polarities, height, width

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
