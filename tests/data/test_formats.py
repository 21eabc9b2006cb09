"""Every format of one recording gives the same events and frames."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from htaf_snn.data.framing import Framing
from htaf_snn.data.recordings import Format, read_recording, sensor_in_header

from . import writers
from .files import Columns, aedat4, events
from .writers import FORMATS, SIDE

tonic = pytest.importorskip("tonic")
SIZE = (SIDE, SIDE, 2)
NAMES_A_SENSOR = ("AEDAT", "EVT2, faery", "EVT3", "dat, faery", "HDF5 of Prophesee", "ROS",
                  "text")  # fmt: skip


def same(path: Path, columns: Columns) -> None:
    read = read_recording(path, SIZE)
    for name in "xyp":
        np.testing.assert_array_equal(read[name], columns[name], err_msg=name)
    t = read["t"] - read["t"][0]  # formats differ in where time begins
    np.testing.assert_array_equal(t, columns["t"] - columns["t"][0])


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_read(format: str, tmp_path: Path) -> None:
    suffix, write = FORMATS[format]
    path = tmp_path / f"a{suffix}"
    columns = events(2000, (SIDE, SIDE))
    write(path, columns)
    same(path, columns)
    named = sensor_in_header(path)
    assert named == ((SIDE, SIDE) if format.startswith(NAMES_A_SENSOR) else None)


@settings(deadline=None, max_examples=15)
@given(
    count=st.integers(30, 400),
    seed=st.integers(0, 1000),
    side=st.sampled_from([3, 40, SIDE]),
    last=st.sampled_from([40, 5_000, 300_000, 8_000_000]),
    by=st.sampled_from(["time", "count"]),
)
def test_all_formats_of_a_recording_give_the_same_frames(
    count: int, seed: int, side: int, last: int, by: Any
) -> None:
    columns = events(count, (side, side), seed)
    times = np.random.default_rng(seed).integers(1, last, count)
    # one event a row's end at least: no column is taken for another
    columns |= {"t": np.sort(times), "x": columns["x"], "y": columns["y"]}
    columns["t"][[0, -1]] = 1, last
    columns["x"][:3], columns["y"][:3], columns["p"][:2] = (0, 2, 1), (2, 0, 2), (0, 1)
    framing = Framing(SIZE, 4, frames_by=by, downsample=16)
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (format, (suffix, write)) in enumerate(FORMATS.items()):
            path = Path(folder) / f"{number}{suffix}"
            write(path, columns)
            made[format] = framing.read(path)
    first = made.pop("N-MNIST")
    assert first.sum() > 0
    for format, frames in made.items():
        np.testing.assert_array_equal(frames, first, err_msg=format)


def test_aedat_as_tonic_reads_it(tmp_path: Path) -> None:
    columns = events(500, (SIDE, SIDE))
    path = tmp_path / "a.aedat"
    writers.aedat_2_davis(path, columns)
    assert sensor_in_header(path) == (346, 260)
    read = read_recording(path, (346, 260, 2))
    version, start, _ = tonic.io.read_aedat_header_from_file(path)
    assert version == 2.0
    theirs = tonic.io.get_aer_events_from_file(path, version, start)["address"][:-1]
    np.testing.assert_array_equal(read["x"], 345 - ((theirs & 0x3FF000) >> 12))
    np.testing.assert_array_equal(read["y"], 259 - ((theirs & 0x7FC00000) >> 22))
    np.testing.assert_array_equal(read["p"], (theirs & 0x800) > 0)


@pytest.mark.parametrize("compression", [0, 1, 3])
def test_aedat_4_as_the_package_aedat_reads_it(compression: int, tmp_path: Path) -> None:
    path = tmp_path / "a.aedat4"
    if compression == 3:
        writers.by_faery(path, events(500, (SIDE, SIDE)), compression=("zstd", 1))
    else:
        aedat4(path, events(500, (SIDE, SIDE)), (SIDE, SIDE), compression)
    theirs = tonic.io.read_aedat4(str(path))
    read = read_recording(path, SIZE)
    for name, key in (("x", "x"), ("y", "y"), ("t", "t"), ("p", "on")):
        np.testing.assert_array_equal(read[name], theirs[key])


def test_many_pixels_of_a_row_in_evt3(tmp_path: Path) -> None:
    """Vectors of 12 and 8 pixels, over the 24-bit counter of time."""

    def words(*pairs: tuple[int, int]) -> np.ndarray:
        return np.array([kind << 12 | value for kind, value in pairs], "<u2")

    content = words(
        (2, 5), (8, 4095), (6, 4090), (0, 7), (3, 1 << 11 | 20), (4, 0b100000000001),
        (5, 0b10000001),
        (8, 0), (6, 3), (2, 9), (8, 1), (0, 8), (2, 1 << 11 | 1), (6, 2), (2, 4),
    )  # fmt: skip
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt 3.0\n% geometry 64x16\n% end\n" + content.tobytes())
    read = read_recording(path, (64, 16, 2))
    assert read["x"].tolist() == [20, 31, 32, 39, 9, 1, 4]
    assert read["y"].tolist() == [7, 7, 7, 7, 7, 8, 8]
    assert read["p"].tolist() == [True] * 4 + [False, True, False]
    before = (4095 << 12) + 4090
    assert read["t"].tolist() == [before] * 4 + [(1 << 24) + 3, (1 << 24) + 4096, (1 << 24) + 4098]


def test_two_cameras_in_one_file(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "a.h5"
    left, right = (events(100, (SIDE, SIDE), seed) for seed in (0, 1))
    with h5py.File(path, "w") as file:
        for name, columns in (("left", left), ("right", right)):
            file[f"davis/{name}/events"] = writers.table(columns, "xytp")
    with pytest.raises(ValueError, match=r"a.h5: events at davis/left/events, davis/right/events;"):
        read_recording(path, SIZE)
    read = read_recording(path, SIZE, Format(events_path="davis/right/events"))
    np.testing.assert_array_equal(read["x"], right["x"])
    with pytest.raises(ValueError, match=r"no events at `data.events_path` \(=up\); there are"):
        read_recording(path, SIZE, Format(events_path="up"))


def test_what_an_unknown_layout_holds_is_listed(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["spikes/when"] = np.zeros(3)
        file["spikes/where"] = np.zeros((3, 2), np.int16)
    with pytest.raises(ValueError, match=r"a.h5: .*spikes/when \[3\] float64; spikes/where \[3, 2"):
        read_recording(tmp_path / "a.h5", SIZE)


def test_a_table_that_does_not_tell_its_columns(tmp_path: Path) -> None:
    table = np.stack([np.arange(9)] * 4, axis=1)
    np.save(tmp_path / "a.npy", table)
    with pytest.raises(ValueError, match=r"a.npy: .*do not tell.*set `data.ordering`"):
        read_recording(tmp_path / "a.npy", SIZE)


def test_ros_bags_name_what_they_have(tmp_path: Path) -> None:
    path = tmp_path / "a.bag"
    writers.ros_bag(path, events(50))
    topic = Format(events_path="/dvs/events")
    assert len(read_recording(path, SIZE, topic)) == 50
    with pytest.raises(ValueError, match=r"a\.bag: no events at .*=/no\); there are /dvs/events"):
        read_recording(path, SIZE, Format(events_path="/no"))


def test_ros_bags_with_several_topics_ask_which(tmp_path: Path) -> None:
    path = tmp_path / "a.bag"
    writers.ros_bag(path, events(50), ("/left", "/right"))
    assert len(read_recording(path, SIZE, Format(events_path="right"))) == 25
    with pytest.raises(ValueError, match=r"a\.bag: events at /left, /right; set"):
        read_recording(path, SIZE)


def test_ros_bags_tell_a_size_that_all_topics_share(tmp_path: Path) -> None:
    for widths, size in (((40, 40), (40, SIDE)), ((40, 50), None)):
        path = tmp_path / f"{widths[1]}.bag"
        writers.ros_bag(path, events(50), ("/left", "/right"), widths)
        assert sensor_in_header(path) == size


def test_ros_bags_with_a_message_that_is_not_as_long_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "a.bag"
    writers.ros_bag(path, events(50), end=b"more")
    with pytest.raises(ValueError, match=r"a\.bag: a message of .* with 25 events; it is damaged"):
        read_recording(path, SIZE)
