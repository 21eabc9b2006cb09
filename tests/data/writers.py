"""One recording in every format, by an independent writer where there is one.

Those of AEDAT 2.0 and 3.1 are ours, after jAER's and cAER's documentation, with the headers of the
originals of CIFAR10-DVS and DVS128 Gesture; HDF5 is h5py's, MATLAB SciPy's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray

from htaf_snn.data.digits_events import encode

from .files import Columns, aedat4

SIDE = 128  # of the sensor, a DVS128
Write = Callable[[Path, Columns], object]

AEDAT_2 = (  # which names no camera
    b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# Data format is int32 "
    b"address, int32 timestamp (8 bytes total), repeated for each event\r\n# Timestamps tick is 1 "
    b"us\r\n# created Thu Dec 05 14:17:07 CET 2013\r\n"
)
_AEDAT_3 = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-06-07 13:17:19 "
    b"(TZ+0200)\r\n#!END-HEADER\r\n"
)


def aedat_2(path: Path, c: Columns) -> None:
    address = (SIDE - 1 - c["y"]) << 8 | (SIDE - 1 - c["x"]) << 1 | 1 - c["p"]
    external = np.array([[1 << 15, 0]])  # a synchronisation pulse, which is no event
    words = np.concatenate([external, np.stack([address, c["t"]], axis=1)])
    chip = b"# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"
    path.write_bytes(AEDAT_2 + chip + words.astype(">u4").tobytes())


def aedat_2_words(
    path: Path, words: list[tuple[int, int]], *lines: str, before: bytes = b""
) -> Path:
    header = AEDAT_2 + before + b"".join(f"# {line}\r\n".encode() for line in lines)
    path.write_bytes(header + np.array(words, np.int64).astype(">u4").tobytes())
    return path


def aedat_2_davis(path: Path, c: Columns) -> None:
    address = (260 - 1 - c["y"]) << 22 | (346 - 1 - c["x"]) << 12 | c["p"] << 11
    frame = np.array([[1 << 31, 5]])
    words = np.concatenate([np.stack([address, c["t"]], axis=1), frame])
    header = AEDAT_2 + b"# AEChip: eu.seebetter.ini.chips.davis.DAVIS346\r\n"
    path.write_bytes(header + words.astype(">u4").tobytes())


def aedat_3(path: Path, c: Columns) -> None:
    data = c["x"] << 17 | c["y"] << 2 | c["p"] << 1 | 1
    invalid = np.array([[0, 0]])
    content = _AEDAT_3
    special = np.array([2, 8])  # an inertial packet between two of events
    for part in np.array_split(np.stack([data, c["t"]], axis=1), 2):
        words = np.concatenate([part, invalid])
        numbers = [1 | 1 << 16, 8, 4, 0, len(words), len(words), len(part)]
        content += np.array(numbers, "<i4").tobytes() + words.astype("<u4").tobytes()
        content += np.array([3 | 1 << 16, 8, 4, 0, 1, 1, 1], "<i4").tobytes()
        content += special.astype("<u4").tobytes()
    path.write_bytes(content)


def by_faery(path: Path, c: Columns, **options: Any) -> None:
    import faery

    array = np.zeros(len(c["t"]), faery.EVENTS_DTYPE)
    for name, key in (("t", "t"), ("x", "x"), ("y", "y"), ("p", "p")):
        array[name] = c[key]
    faery.events_stream_from_array(array, dimensions=(SIDE, SIDE)).to_file(path, **options)


def by_expelliarmus(path: Path, c: Columns, encoding: str) -> None:
    from expelliarmus import Wizard

    array = np.zeros(len(c["t"]), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
    for name in "txyp":
        array[name] = c[name]
    Wizard(encoding=encoding).save(fpath=str(path), arr=array)


def structured(c: Columns, names: str = "xytp", t: str = "<i8") -> np.ndarray:
    kinds = {"x": "<u2", "y": "<u2", "t": t, "p": "<i2"}
    array = np.zeros(len(c["t"]), [(name, kinds[name]) for name in names])
    for name in names:
        array[name] = c[name]
    return array


def table(c: Columns, ordering: str) -> np.ndarray:
    return np.stack([c[name] for name in ordering], axis=1)


def seconds(c: Columns) -> dict[str, np.ndarray]:
    return {**c, "t": c["t"] / 1e6}


def v2e(path: Path, c: Columns) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("events", data=table(c, "txyp").astype(np.uint32), compression="gzip")


def dsec(path: Path, c: Columns) -> None:
    kinds = {"x": np.uint16, "y": np.uint16, "t": np.uint32, "p": np.uint8}
    with h5py.File(path, "w") as file:
        for name, kind in kinds.items():
            file[f"events/{name}"] = c[name].astype(kind)
        file["ms_to_idx"] = np.searchsorted(c["t"], np.arange(0, c["t"][-1], 1000))
        file["t_offset"] = np.int64(49_599_000_000)


def mvsec(path: Path, c: Columns) -> None:
    shifted = seconds(c) | {"t": 1.5e9 + c["t"] / 1e6, "p": 2 * c["p"] - 1}
    with h5py.File(path, "w") as file:
        file["davis/left/events"] = table(shifted, "xytp")
        file["davis/left/imu"] = np.zeros((5, 6))


def prophesee_h5(path: Path, c: Columns) -> None:
    with h5py.File(path, "w") as file:
        file["CD/events"] = structured(c, "xypt")
        file["CD/indexes"] = np.zeros(3, [("id", "<u8"), ("ts", "<i8")])
        file.attrs["geometry"] = f"{SIDE}x{SIDE}"


def ros_bag(
    path: Path,
    c: Columns,
    topics: tuple[str, str] = ("/dvs/events", "/dvs/events"),
    widths: tuple[int, int] = (SIDE, SIDE),
    end: bytes = b"",
) -> None:
    """The first half by one node, the second by another, each to its topic, with ``end`` after."""
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    event = "uint16 x\nuint16 y\ntime ts\nbool polarity"
    array = "std_msgs/Header header\nuint32 height\nuint32 width\ndvs_msgs/Event[] events"
    for text, name in ((event, "dvs_msgs/msg/Event"), (array, "dvs_msgs/msg/EventArray")):
        store.register(get_types_from_msg(text, name))
    types: Any = store.types
    times = [
        types["builtin_interfaces/msg/Time"](49_599 + int(t) // 10**6, int(t) % 10**6 * 1000)
        for t in c["t"]
    ]
    make = types["dvs_msgs/msg/Event"]
    events = [
        make(x=int(x), y=int(y), ts=t, polarity=bool(p))
        for x, y, t, p in zip(c["x"], c["y"], times, c["p"], strict=True)
    ]
    bag = Writer(path)
    bag.set_compression(Writer.CompressionFormat.LZ4)
    with bag:
        middle = len(events) // 2
        for number, part in enumerate((events[:middle], events[middle:])):
            header = types["std_msgs/msg/Header"](number, times[0], "camera")
            message = types["dvs_msgs/msg/EventArray"](header, SIDE, widths[number], part)
            content = store.serialize_ros1(message, "dvs_msgs/msg/EventArray")
            node = bag.add_connection(
                topics[number], "dvs_msgs/msg/EventArray", typestore=store, callerid=f"/{number}"
            )
            bag.write(node, number, bytes(content) + end)


def matlab(path: Path, c: Columns) -> None:
    columns = {"x": c["x"], "y": c["y"], "ts": c["t"], "p": 2 * c["p"] - 1}
    columns = {name: column[:, None].astype(np.float64) for name, column in columns.items()}
    scipy.io.savemat(path, {"note": "text", "TD": columns}, do_compression=True)


def matlab_73(path: Path, c: Columns) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, key in (("x", "x"), ("y", "y"), ("ts", "t"), ("p", "p")):
            file[f"TD/{name}"] = c[key][None].astype(np.float64)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


FORMATS: dict[str, tuple[str, Write]] = {
    "N-MNIST": (".bin", lambda path, c: path.write_bytes(encode(c))),
    "AEDAT 2.0": (".aedat", aedat_2),
    "AEDAT 3.1": (".aedat", aedat_3),
    "AEDAT 4": (".aedat4", lambda path, c: aedat4(path, c, (SIDE, SIDE))),
    "AEDAT 4, faery": (".aedat4", by_faery),
    "EVT2, faery": (".raw", lambda path, c: by_faery(path, c, version="evt2")),
    "EVT2, expelliarmus": (".raw", lambda path, c: by_expelliarmus(path, c, "evt2")),
    "EVT3, faery": (".raw", lambda path, c: by_faery(path, c, version="evt3")),
    "dat, faery": (".dat", by_faery),
    "dat, expelliarmus": (".dat", lambda path, c: by_expelliarmus(path, c, "dat")),
    "HDF5 of v2e": (".h5", v2e),
    "HDF5 of DSEC": (".h5", dsec),
    "HDF5 of MVSEC": (".hdf5", mvsec),
    "HDF5 of Prophesee": (".hdf5", prophesee_h5),
    "ROS bag": (".bag", ros_bag),
    "MATLAB 7": (".mat", matlab),
    "MATLAB 7.3": (".mat", matlab_73),
    "npy, structured": (".npy", lambda path, c: np.save(path, structured(c, "typx"))),
    "npy, t x y p": (".npy", lambda path, c: np.save(path, table(c, "txyp"))),
    "npy, x y p t in seconds": (
        ".npy",
        lambda path, c: np.save(path, table(seconds(c), "xypt")),
    ),
    "npz": (
        ".npz",
        lambda path, c: np.savez_compressed(
            path, X=c["x"], Y=c["y"], timestamp=c["t"] / 1e6, polarity=c["p"] > 0
        ),
    ),
    "npz, one table": (".npz", lambda path, c: np.savez(path, events=table(c, "xytp"))),
    "text, t x y p in seconds": (
        ".txt",
        lambda path, c: np.savetxt(
            path, table(seconds(c), "txyp"), "%.9g %d %d %d", header="128 128", comments=""
        ),
    ),
    "CSV": (
        ".csv",
        lambda path, c: np.savetxt(
            path, table(c, "xypt"), "%d", ",", header="x,y,polarity,timestamp", comments=""
        ),
    ),
    "CSV, faery": (".csv", by_faery),
}  # fmt: skip


# ------------------------------------------------------------------ clocks


def dat(path: Path, times: NDArray[np.int64]) -> None:
    words = np.stack([times.astype("<u4"), np.full(len(times), 3 << 14 | 5, "<u4")], axis=1)
    path.write_bytes(b"% Version 2\n\x0c\x08" + words.tobytes())


def jaer(path: Path, times: NDArray[np.int64]) -> None:
    chip = "AEChip: ch.unizh.ini.jaer.chip.retina.DVS128"
    aedat_2_words(path, [(5 << 8, int(t)) for t in times], chip)


def array_of_times(path: Path, times: NDArray[np.int64], dtype: str) -> None:
    zeros = np.zeros(len(times), int)
    np.savez(path, x=zeros, y=zeros, p=zeros, t=times.astype(dtype))


def nmnist(path: Path, times: NDArray[np.int64]) -> None:
    t = times & (1 << 23) - 1
    rows = np.stack([t * 0, t * 0, t >> 16, t >> 8 & 255, t & 255], axis=1)
    path.write_bytes(rows.astype(np.uint8).tobytes())


CLOCKS: dict[str, tuple[str, Any, int]] = {
    "AEDAT 2.0": (".aedat", jaer, 32),
    ".dat": (".dat", dat, 32),
    "uint32": (".npz", lambda path, t: array_of_times(path, t, "uint32"), 32),
    "int32": (".npz", lambda path, t: array_of_times(path, t, "int32"), 32),
    "text's float64": (".npz", lambda path, t: array_of_times(path, t % 2**32, "float64"), 32),
    "N-MNIST": (".bin", nmnist, 23),
}
