"""The simulated event camera, and building its recordings once."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from htaf_snn.data import digits_events as camera
from htaf_snn.data.cache import build_once


def build_slowly(target: Path, said: Path, seconds: float) -> None:
    """Builds in this process, and says in a file of its own how far it came."""
    log = said / str(os.getpid())

    def build(folder: Path) -> None:
        (folder / "a").write_text("1")
        log.write_text("half ")
        time.sleep(seconds)
        (folder / "b").write_text("2")

    build_once(target, build)
    with log.open("a") as file:
        file.write("done")


def bar(column: int) -> np.ndarray:
    image = np.zeros((8, 8))
    image[:, column] = 1
    return image


def test_recordings_are_plausible_and_deterministic() -> None:
    images = np.stack([bar(3), bar(4), np.zeros((8, 8))])
    first, second = camera.simulate(images), camera.simulate(images)
    for a, b in zip(first, second, strict=True):
        for name in "xytp":
            np.testing.assert_array_equal(a[name], b[name])
    events, _, blank = first
    assert len(blank["t"]) == 0
    assert len(events["t"]) > 300
    assert (np.diff(events["t"]) >= 0).all()
    assert events["t"].min() >= 0 and events["t"].max() <= 300_000
    assert events["x"].min() >= 0 and events["x"].max() < camera.SIZE
    assert set(events["p"]) == {0, 1}
    # The first saccade moves the bar to the right: its leading edge brightens, its trail darkens.
    early = events["t"] < 50_000
    bright, dark = (events["x"][early & (events["p"] == p)].mean() for p in (1, 0))
    assert bright > dark


def test_a_pixel_that_brightens_k_thresholds_fires_k_events() -> None:
    events = camera.simulate(np.stack([bar(3)]))[0]
    swing = np.log(1.1 / 0.1) / camera._THRESHOLD  # thresholds between background and stroke
    at_pixel = (events["x"] == 13) & (events["y"] == 14)
    balance = np.cumsum(np.where(events["p"][at_pixel] == 1, 1, -1))
    assert balance.max() - balance.min() <= swing * 1.25


def test_encoding_is_read_back_by_tonic(tmp_path: Path) -> None:
    tonic = pytest.importorskip("tonic")
    events = {
        "x": np.array([0, 27, 5]), "y": np.array([0, 3, 27]),
        "t": np.array([0, 65_537, 2**23 - 1]), "p": np.array([0, 1, 1]),
    }  # fmt: skip
    path = tmp_path / "0.bin"
    path.write_bytes(camera.encode(events))
    read = tonic.io.read_mnist_file(str(path), tonic.datasets.NMNIST.dtype)
    for name in "xytp":
        np.testing.assert_array_equal(read[name], events[name])


FORK = multiprocessing.get_context("fork")


def test_two_processes_build_once(tmp_path: Path) -> None:
    target, said = tmp_path / "made", tmp_path / "said"
    said.mkdir()
    processes = [FORK.Process(target=build_slowly, args=(target, said, 1)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(p.read_text() for p in said.iterdir()) == ["done", "half done"]
    assert sorted(p.name for p in target.iterdir()) == ["a", "b"]


def test_a_killed_build_leaves_nothing_behind(tmp_path: Path) -> None:
    target, said = tmp_path / "made", tmp_path / "said"
    said.mkdir()
    process = FORK.Process(target=build_slowly, args=(target, said, 60))
    process.start()
    while not list(said.iterdir()):
        time.sleep(0.02)
    process.kill()
    process.join()
    assert not target.exists()
    build_once(target, lambda folder: (folder / "b").touch())
    assert [p.name for p in target.iterdir()] == ["b"]
    assert not list(tmp_path.glob("*.partial-*"))


def test_a_failing_build_leaves_nothing_behind(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "a").touch()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        build_once(tmp_path / "made", build)
    assert not (tmp_path / "made").exists() and not list(tmp_path.glob("*.partial-*"))
