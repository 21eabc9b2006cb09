"""Cameras, encodings and clocks by what a file says of itself; its bytes are made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htaf_snn.data.readers.columns import sensor_around
from htaf_snn.data.recordings import Format, read_recording, sensor_in_header

from .files import events
from .writers import CLOCKS, aedat_2_words, array_of_times

ON = 1 << 11
savez: Any = np.savez
# what jAER writes of its settings, between its own lines
PREFERENCES = b"".join(
    f"#   <entry key='Davis208PixelParade.x{i}' value='DVS128 davis640'/>\r\n".encode()
    for i in range(2000)
)


def found(path: Path, **format: Any) -> list[tuple[int, ...]]:
    return [tuple(map(int, one)) for one in read_recording(path, format=Format(**format))]


@pytest.mark.parametrize("before", [b"", PREFERENCES], ids=["short", "long header"])
def test_the_camera_is_the_headers_chip(before: bytes, tmp_path: Path) -> None:
    words = [
        (159 << 22 | 139 << 12 | ON, 1), (129 << 22 | 119 << 12, 2),
        # a frame's sample, seven words of an inertial sample, an external input
        (1 << 31 | 7 << 22, 3), *((1 << 31 | k << 28 | 5 << 12 | 0xC00, 1) for k in range(7)),
        (1 << 10, 0),
    ]  # fmt: skip
    chip = "AEChip: eu.seebetter.ini.chips.davis.DAVIS240C"
    path = aedat_2_words(
        tmp_path / "a.aedat", words, chip, "Davis208PixelParade.x", "End Of ASCII Header",
        before=before,
    )  # fmt: skip
    assert sensor_in_header(path) == (240, 180)
    assert found(path) == [(100, 20, 1, 1), (120, 50, 2, 0)]


def test_cameras_that_are_not_known_are_asked_for(tmp_path: Path) -> None:
    words = [(108 << 8 | 27 << 1, 1), (1 << 15, 2), (108 << 8 | 26 << 1 | 1, 3)]
    right = [(100, 19, 1, 1), (101, 19, 3, 0)]
    for number, lines in enumerate(((), ("AEChip: ch.x.Brand2030",), ("note: DVS128",))):
        path = aedat_2_words(tmp_path / f"{number}.aedat", words, *lines)
        for read in (read_recording, sensor_in_header):
            with pytest.raises(ValueError, match=r"\d.aedat: .*set `data.camera` to .*dvs128, dav"):
                read(path)
        assert found(path, camera="dvs128") == right
        assert sensor_in_header(path, Format(camera="dvs128")) == (128, 128)
    named = aedat_2_words(
        tmp_path / "n.aedat", words, "AEChip: ch.unizh.ini.jaer.chip.retina.DVS128"
    )
    assert found(named) == found(named, camera="dvs128") == right
    with pytest.raises(ValueError, match=r"camera .*DVS128, and `data.camera` is davis240"):
        found(named, camera="davis240")


def test_a_first_event_that_begins_as_a_line_does(tmp_path: Path) -> None:
    address = ord("#") << 24 | 0x41420A  # a line's end, too
    path = aedat_2_words(tmp_path / "a.aedat", [(address, 0x41424344)], "AEChip: DAVIS240C")
    assert read_recording(path)["t"].tolist() == [0x41424344]


def packet(source: int, x: int, t: int) -> bytes:
    numbers = np.array([1 | source << 16, 8, 4, 0, 1, 1, 1], "<i4").tobytes()
    return numbers + np.array([x << 17 | 1, t], "<u4").tobytes()


def test_two_cameras_in_aedat_3(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    header = b"#!AER-DAT3.1\r\n#Source 1: DVS128\r\n#Source 2: DAVIS346\r\n#!END-HEADER\r\n"
    path.write_bytes(header + packet(1, 5, 10) + packet(2, 300, 20))
    assert sensor_in_header(path) is None
    with pytest.raises(ValueError, match=r"events at 1, 2; set `data.events_path`"):
        found(path)
    assert found(path, events_path="2") == [(300, 0, 20, 0)]


EVT3 = np.array([8 << 12, 6 << 12 | 9, 7, 2 << 12 | 1 << 11 | 5], "<u2").tobytes()  # (5, 7) at 9
EVT2 = np.array([8 << 28, 1 << 28 | 9 << 22 | 5 << 11 | 7], "<u4").tobytes()


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("% evt 3.0\n% geometry 64x16", EVT3),
        ("% format EVT3;height=16;width=64", EVT3),
        ("% integrator_name EVT2 Labs\n% evt 3.0\n% format EVT3;height=16;width=64", EVT3),
        ("% evt 2.0\n% geometry 64x16", EVT2),
        ("% format EVT2;height=16;width=64\n% integrator_name width 3, EVT3", EVT2),
    ],
)
def test_the_encoding_is_its_fields(header: str, body: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(f"{header}\n% end\n".encode() + body)
    assert sensor_in_header(path) == (64, 16) and found(path) == [(5, 7, 9, 1)]


@pytest.mark.parametrize(
    "header",
    ["% format EVT21;height=720;width=1280", "% evt 2.1", "% evt 4.0", "% integrator_name EVT2",
     "% evt 3.0\n% format EVT21", "% evt 2.0\n% evt 3.0"],
)  # fmt: skip
def test_other_encodings_are_refused(header: str, tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(f"{header}\n% end\n".encode() + EVT2)
    with pytest.raises(
        ValueError, match=r"a\.raw: its header names (EVT21|[\d.]+|no enc|evt 2.0, and)"
    ):
        read_recording(path)


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("clock", CLOCKS)
def test_clocks_that_begin_anew_run_on(clock: str, sort: bool, tmp_path: Path) -> None:
    suffix, write, bits = CLOCKS[clock]
    for number, ends in enumerate(([1 << bits], [1 << bits - 1], [1 << bits, 2 << bits])):
        times = np.array([t for end in ends for t in (end - 7, end - 1, end + 1)])
        if len(ends) == 2:  # through the whole range
            times = np.linspace((1 << bits) - 9, (2 << bits) + 9, 60).astype(np.int64)
        path = tmp_path / f"{number}{suffix}"
        write(path, times)
        read = read_recording(path, format=Format(sort=sort))["t"]
        assert np.diff(read).tolist() == np.diff(times).tolist()


def test_events_out_of_order_about_the_clocks_end_are_sorted(tmp_path: Path) -> None:
    array_of_times(
        tmp_path / "a.npz", np.array([2**32 - 9, 2**32 + 3, 2**32 - 2, 2**32 + 5]), "uint32"
    )
    with pytest.raises(ValueError, match="timestamps run backwards"):
        read_recording(tmp_path / "a.npz")
    read = read_recording(tmp_path / "a.npz", format=Format(sort=True))["t"]
    assert np.diff(read).tolist() == [7, 5, 2]


@pytest.mark.parametrize(
    "times",
    [[0, 2**31, 5], [2**32, 2**32 + 9, 4], [10, 5, 2**32 - 1, 3], [0.5, 2**32 - 1, 1.5]],
    ids=["half the range", "more than the word", "both", "fractions"],
)
def test_other_jumps_back_are_not_the_clocks(times: list[float], tmp_path: Path) -> None:
    zeros = np.zeros(len(times), int)
    savez(tmp_path / "a.npz", x=zeros, y=zeros, p=zeros, t=np.array(times))
    with pytest.raises(ValueError, match="timestamps run backwards"):
        read_recording(tmp_path / "a.npz")


def test_sensors_that_events_nearly_fill() -> None:
    assert sensor_around((126, 128)) == (128, 128)
    assert sensor_around((34, 33)) == (34, 34)
    assert sensor_around((640, 470)) == (640, 480)
    assert sensor_around((60, 128)) == (60, 128)  # half a sensor is none


def test_a_recording_needs_no_second_argument(tmp_path: Path) -> None:
    savez(tmp_path / "a.npz", **events(50, (300, 200)))
    assert len(read_recording(tmp_path / "a.npz")) == 50


def test_times_in_any_order_through_the_clocks_range_are_sorted_as_they_are(tmp_path: Path) -> None:
    times = np.random.default_rng(0).integers(0, 2**32, 2000)
    array_of_times(tmp_path / "a.npz", times, "uint32")
    read = read_recording(tmp_path / "a.npz", format=Format(sort=True))["t"]
    assert read.tolist() == np.sort(times).tolist()
