"""Which events of a recording stand in which frame."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.datasets import utils as host

from htaf_snn.data import framing as framing_module
from htaf_snn.data.framing import Framing
from htaf_snn.data.recordings import EVENT, Events, read_recording

from .files import events

SIZE = (34, 34, 2)
BY = st.sampled_from(["time", "count"])
savez: Any = np.savez


def recording(times: list[int], seed: int = 0, side: int = 34) -> Events:
    rng = np.random.default_rng(seed)
    found = np.zeros(len(times), EVENT)
    found["x"], found["y"] = rng.integers(0, side, (2, len(times)))
    found["t"], found["p"] = np.sort(times), rng.integers(0, 2, len(times))
    return found


TIMES = st.lists(st.integers(0, 50) | st.integers(0, 2**40), min_size=1, max_size=200)


@settings(deadline=None, max_examples=200)
@given(times=TIMES, T=st.integers(1, 40), by=BY)
def test_every_event_is_in_exactly_one_frame(times: list[int], T: int, by: Any) -> None:
    frames = Framing(SIZE, T, frames_by=by).frames(recording(times))
    whole = Framing(SIZE, 1, frames_by=by).frames(recording(times))
    assert frames.sum() == len(times)
    np.testing.assert_array_equal(frames.sum(0), whole[0])


def test_coarse_times_and_counts_that_do_not_divide() -> None:
    coarse = recording([1000 * k for k in range(8) for _ in range(5)])
    assert Framing(SIZE, 8).frames(coarse).sum((1, 2, 3)).tolist() == [5] * 8
    by_count = Framing(SIZE, 8, frames_by="count").frames(recording(list(range(23))))
    assert by_count.sum((1, 2, 3)).tolist() == [2] * 7 + [9]


@settings(deadline=None, max_examples=50)
@given(count=st.integers(40, 400), T=st.integers(1, 16), by=BY, seed=st.integers(0, 99))
def test_frames_are_the_hosts(count: int, T: int, by: Any, seed: int) -> None:
    made = recording(np.random.default_rng(seed).integers(0, 300_000, count).tolist(), seed)
    try:
        expected = host.integrate_events_by_fixed_frames_number(
            {name: made[name].astype(np.int64) for name in "txyp"},
            {"time": "time", "count": "number"}[by], T, 34, 34,
        )  # fmt: skip
    except IndexError:  # it takes no empty slice
        return
    np.testing.assert_array_equal(Framing(SIZE, T, frames_by=by).frames(made), expected)


@pytest.mark.parametrize("by", ["time", "count"])
def test_real_frames_are_the_hosts(shared_data: Path, by: Any) -> None:
    path = sorted((shared_data / "nmnist_small/NMNIST/Test/0").iterdir())[0]
    made = read_recording(path, SIZE)

    def theirs(made: Events, side: int) -> np.ndarray:
        columns = {name: made[name].astype(np.int64) for name in "txyp"}
        by_ = {"time": "time", "count": "number"}[by]
        frames: np.ndarray = host.integrate_events_by_fixed_frames_number(
            columns, by_, 8, side, side
        )
        return frames

    np.testing.assert_array_equal(Framing(SIZE, 8, frames_by=by).read(path), theirs(made, 34))
    first = Framing(SIZE, 8, frames_by=by, until=105_000)
    np.testing.assert_array_equal(first.read(path), theirs(made[made["t"] <= 105_000], 34))
    small = Framing(SIZE, 8, frames_by=by, downsample=17)
    halved = made.copy()
    halved["x"] //= 2
    halved["y"] //= 2
    assert small.frame_size == (17, 17, 2)
    np.testing.assert_array_equal(small.read(path), theirs(halved, 17))


def test_downsampling_puts_every_pixel_where_it_lies(tmp_path: Path) -> None:
    """A rounded factor puts 49 of 98 pixels at 0 of 2, and does so for other pairs of sizes."""
    for old in (98, 128, 240, 346):
        pixels = np.arange(old)
        zeros = np.zeros(old, int)
        savez(tmp_path / f"{old}.npz", x=pixels, y=zeros, t=pixels, p=zeros)
        for new in range(1, old):
            (made,) = Framing((old, 1, 2), 1, downsample=new).windows(tmp_path / f"{old}.npz")
            assert made["x"].tolist() == [math.floor(x * new / old + 1e-9) for x in range(old)]


@pytest.mark.parametrize(("last", "count"), [(99, 1), (100, 1), (198, 1), (199, 2), (200, 2)])
def test_whole_windows_alone(last: int, count: int, tmp_path: Path) -> None:
    """Of 100 us: the last event of the second one may be at 199 us."""
    times = np.arange(last + 1) + 5_000
    zeros = np.zeros(len(times), int)
    savez(tmp_path / "a.npz", x=zeros, y=zeros, t=times, p=zeros)
    windows = Framing(SIZE, 1, window=100).windows(tmp_path / "a.npz")
    assert [(w["t"][0], w["t"][-1]) for w in windows] == [
        (5_000 + 100 * k, 5_099 + 100 * k) for k in range(count)
    ]


@settings(deadline=None, max_examples=50)
@given(times=TIMES, within=st.integers(1, 40), seed=st.integers(0, 9), begin=st.integers(0, 10**9))
def test_noise_is_what_tonic_takes_for_it(
    times: list[int], within: int, seed: int, begin: int
) -> None:
    tonic = pytest.importorskip("tonic")
    made = recording(times, seed, side=4)
    made["t"] += begin
    late = made.copy()
    late["t"] += 2 * within - made["t"][0]  # Tonic takes silent pixels to have fired at 0
    kept = tonic.transforms.Denoise(within)(late)
    kept["t"] -= 2 * within - made["t"][0]
    ours = made[framing_module._accompanied(made, (4, 4), within)]  # pixels at the borders too
    np.testing.assert_array_equal(ours, kept)


def test_the_end_of_a_row_is_not_beside_the_next_ones_begin() -> None:
    events = np.array([(3, 0, 0, 1), (0, 1, 1, 1), (0, 2, 2, 0), (3, 1, 3, 1)], EVENT)
    assert framing_module._accompanied(events, (4, 4), 10).tolist() == [False, False, True, True]


@pytest.mark.parametrize("start", [0, 1000])
@pytest.mark.parametrize("options", [{"denoise": 1}, {"hot_pixels": 1e-6}])
def test_nothing_that_is_left_is_an_error(
    start: int, options: dict[str, Any], tmp_path: Path
) -> None:
    savez(tmp_path / "a.npz", **events(4))
    with pytest.raises(ValueError, match=r"a\.npz: no event is left; see .*`data.hot_pixels`"):
        Framing(SIZE, 1, start=start, duration=10**6, **options).windows(tmp_path / "a.npz")
