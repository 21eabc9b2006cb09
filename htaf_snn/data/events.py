"""Event recordings, read and cut into frames by Tonic."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from tqdm import tqdm

from .cache import build_once, cache_folder, cache_key, file_stamp
from .splits import Sample

SensorSize = tuple[int, int, int]  # W, H, P

_BYTES_AN_EVENT = 5
_OVERFLOW_Y = 240  # the y of a marker that stands for a wrapped timestamp, not for an event
_IN_MEMORY = 2**30  # bytes of frames up to which they are kept in memory once read


def import_tonic() -> Any:
    """Tonic, or an error that says how to install it."""
    try:
        import tonic
    except ModuleNotFoundError as error:
        if error.name != "tonic":
            raise
        raise ModuleNotFoundError(
            "event data is read by Tonic, which is not installed: pip install 'htaf-snn[events]'",
            name="tonic",
        ) from error
    return tonic


def read_recording(path: Path, sensor_size: SensorSize) -> NDArray[np.void]:
    """The events of an N-MNIST file, checked.

    Args:
        path: a ``.bin`` file of 5 bytes an event.
        sensor_size: (W, H, P) of the sensor.

    Returns:
        a structured array with the fields x, y, t (microseconds) and p.

    Raises:
        ValueError: a truncated, empty or unsorted file, or an event outside the sensor; the
            message names the file.
    """
    tonic = import_tonic()
    size = path.stat().st_size
    if size == 0 or size % _BYTES_AN_EVENT:
        raise ValueError(
            f"{path}: {size} bytes, which is not a positive multiple of {_BYTES_AN_EVENT}; "
            "the file is empty or cut short, fetch it again"
        )
    events: NDArray[np.void] = tonic.io.read_mnist_file(str(path), tonic.datasets.NMNIST.dtype)
    if len(events) == 0:
        raise ValueError(f"{path}: no event in the recording")
    width, height, _ = sensor_size
    outside = (events["x"] >= width) | (events["y"] >= height)
    if outside.any():
        first = events[outside][0]
        raise ValueError(
            f"{path}: event at x={first['x']}, y={first['y']} lies outside the "
            f"{width}x{height} sensor; the file is corrupt or from another sensor"
        )
    if (np.diff(events["t"]) < 0).any():
        raise ValueError(f"{path}: timestamps run backwards; the file is corrupt")
    return events


def event_files(root: Path, folders: Sequence[str]) -> tuple[list[Path], list[int]]:
    """N-MNIST files ``root/NMNIST/<folder>/<label>/*.bin`` and their labels, in fixed order.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    files: list[Path] = []
    for folder in folders:
        if not (root / "NMNIST" / folder).is_dir():
            raise FileNotFoundError(
                f"no folder {root / 'NMNIST' / folder}; `data.root` (={root}) must hold "
                "NMNIST/Train/<digit>/*.bin and NMNIST/Test/<digit>/*.bin, or set "
                "data.download=true where there is a network"
            )
        files += sorted((root / "NMNIST" / folder).glob("[0-9]/*.bin"))
    return files, [int(path.parent.name) for path in files]


def to_frames(events: NDArray[np.void], sensor_size: SensorSize, T: int) -> NDArray[np.int16]:
    """Event counts in T time bins of equal length, [T, P, H, W], by Tonic's `ToFrame`."""
    frames: NDArray[np.int16] = import_tonic().transforms.ToFrame(
        sensor_size=sensor_size, n_time_bins=T
    )(events)
    return frames


class Frames(Dataset[Sample]):
    """Recordings as frames, cached on disk by Tonic; all are read and checked at the first use.

    Args:
        files: recordings in N-MNIST's format.
        labels: one for each.
        sensor_size: (W, H, P).
        T: number of time bins.

    Raises:
        ValueError: a file that `read_recording` refuses.
    """

    def __init__(
        self, files: Sequence[Path], labels: Sequence[int], sensor_size: SensorSize, T: int
    ) -> None:
        tonic = import_tonic()
        key = cache_key(
            importlib.metadata.version("tonic"), sensor_size, T, [file_stamp(f) for f in files]
        )

        class Recordings:
            def __len__(self) -> int:
                return len(files)

            def __getitem__(self, index: int) -> tuple[NDArray[np.int16], int]:
                events = read_recording(files[index], sensor_size)
                return to_frames(events, sensor_size, T), labels[index]

        def build(folder: Path) -> None:
            cached = tonic.DiskCachedDataset(Recordings(), cache_path=str(folder))
            for index in tqdm(range(len(files)), desc=f"frames, T = {T}", unit="recording"):
                cached[index]

        folder = build_once(cache_folder() / "frames" / key, build)
        self._frames = tonic.DiskCachedDataset(None, cache_path=str(folder))
        self._frames.n_samples = len(files)  # Tonic counts files; one recording is one file here
        width, height, polarities = sensor_size
        size = len(files) * T * polarities * height * width * np.dtype(np.int16).itemsize
        if size <= _IN_MEMORY:
            self._frames = tonic.MemoryCachedDataset(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample:
        frames, label = self._frames[index]
        return torch.from_numpy(frames).float(), int(label)
