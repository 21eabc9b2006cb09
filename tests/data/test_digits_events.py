"""The simulated event camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from htaf_snn.data import digits_events as camera


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
