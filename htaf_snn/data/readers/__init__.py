"""Readers of recordings by their files' suffix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import aedat, aedat4, arrays, hdf5, matlab, prophesee, rosbag
from .columns import Columns, Format

READERS: dict[str, Callable[[Path, Format], Columns]] = {
    ".bin": arrays.read_bin,
    ".aedat": aedat.read,
    ".aedat4": aedat4.read,
    ".raw": prophesee.read_raw,
    ".dat": prophesee.read_dat,
    ".npy": arrays.read_npy,
    ".npz": arrays.read_npz,
    ".h5": hdf5.read,
    ".hdf5": hdf5.read,
    ".mat": matlab.read,
    ".bag": rosbag.read,
    ".txt": arrays.read_text,
    ".csv": arrays.read_text,
}

# What names the sensor's size (W, H, ...) without reading the events; None where the file doesn't.
SENSOR_SIZES: dict[str, Callable[[Path, Format], Any]] = {
    ".aedat": aedat.sensor_size,
    ".aedat4": aedat4.sensor_size,
    ".raw": prophesee.sensor_size,
    ".dat": prophesee.sensor_size,
    ".npz": arrays.npz_size,
    ".h5": hdf5.sensor_size,
    ".hdf5": hdf5.sensor_size,
    ".bag": rosbag.sensor_size,
    ".txt": arrays.text_size,
    ".csv": arrays.text_size,
}
