"""Readers of recordings by their files' suffix."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..options import Format
from . import aedat, arrays, hdf5, prophesee, rosbag
from .columns import Columns


class Reader(NamedTuple):
    read: Callable[[Path, Format], Columns]
    # (W, H, ...) without reading the events, or None; None where no file of the format names it
    size: Callable[[Path, Format], Any] | None = None


READERS = {
    ".bin": Reader(arrays.read_bin),
    ".aedat": Reader(aedat.read, aedat.sensor_size),
    ".aedat4": Reader(aedat.read_4, aedat.sensor_size_4),
    ".raw": Reader(prophesee.read_raw, prophesee.sensor_size),
    ".dat": Reader(prophesee.read_dat, prophesee.sensor_size),
    ".npy": Reader(arrays.read_npy),
    ".npz": Reader(arrays.read_npz, arrays.npz_size),
    ".h5": Reader(hdf5.read, hdf5.sensor_size),
    ".hdf5": Reader(hdf5.read, hdf5.sensor_size),
    ".mat": Reader(hdf5.read_mat),
    ".bag": Reader(rosbag.read, rosbag.sensor_size),
    ".txt": Reader(arrays.read_text, arrays.text_size),
    ".csv": Reader(arrays.read_text, arrays.text_size),
}
