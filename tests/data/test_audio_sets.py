"""SHD and SSC from files of their published layout, written by h5py alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.data.recordings import read_recording, recordings_in
from tests.helpers import command

tonic = pytest.importorskip("tonic")


def write(path: Path, classes: int, each: int, seed: int) -> None:
    """A part: class k has 60 spikes about channel 30 k, times in seconds as float16."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    times, units = (h5py.vlen_dtype(np.dtype(kind)) for kind in ("f2", "u2"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("spikes/times", (len(labels),), times)
        file.create_dataset("spikes/units", (len(labels),), units)
        for i, label in enumerate(labels):
            file["spikes/times"][i] = np.sort(rng.uniform(0, 1, 60)).astype(np.float16)
            file["spikes/units"][i] = (rng.integers(0, 20, 60) + 19 * label).astype(np.uint16)
        file["labels"] = labels.astype(np.uint16)
        file["extra/speaker"] = rng.integers(0, 12, len(labels)).astype(np.uint16)
        file["extra/keys"] = np.array([f"word {k}".encode() for k in range(classes)])
        file["extra/meta_info/gender"] = np.array([b"female", b"male"])


@pytest.fixture(scope="module")
def shd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shd")
    for number, part in enumerate(("train", "test")):
        write(root / f"SHD/shd_{part}.h5", 20, 4 if part == "train" else 1, number)
        (root / f"SHD/shd_{part}.h5.zip").touch()  # by which Tonic knows that it has been here
    return root


def test_recordings_as_tonic_reads_them(shd: Path) -> None:
    theirs = tonic.datasets.SHD(str(shd), train=False)
    recordings = recordings_in(shd / "SHD/shd_test.h5")
    assert len(recordings) == len(theirs) == 20
    for number in (0, 7, 19):
        events, _ = theirs[number]
        read = read_recording(recordings[number], (700, 1, 1))
        np.testing.assert_array_equal(read["x"], events["x"])
        assert np.abs(read["t"] - events["t"]).max() <= 1  # which cuts off, not rounds
        assert not read["y"].any() and read["p"].all()


def test_fit_predict_and_inspect(shd: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command(
        "fit", "--data=shd", f"--data.root={shd}", "--data.T=2", "--data.batch_size=8",
        "--data.augment=", "--data.validation=0.25", "--trainer.max_epochs=5",
        "--trainer.enable_progress_bar=false", f"--out={out}",
    )  # fmt: skip
    file = shd / "SHD/shd_test.h5"
    printed = command("predict", out / "checkpoints/last.ckpt", file).stdout.splitlines()
    assert len(printed) == 20
    right = sum(f"  word {i}  " in line for i, line in enumerate(printed))
    assert right > 10  # of 20 classes
    (one,) = command("predict", out / "checkpoints/last.ckpt", file / "7").stdout.splitlines()
    assert one == printed[7]
    table = command("data", "inspect", file, f"--out={tmp_path / 'a.png'}").stdout
    assert "shd_test.h5: 10 recordings  700x1" in table and "and 10 more" in table


def test_ssc_has_a_validation_part(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "valid", "test")):
        write(tmp_path / f"ssc_{part}.h5", 35, 1, number)
    splits = SpikingDataModule(DataConfig("ssc", tmp_path, T=2)).splits
    parts: tuple[Any, ...] = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [35] * 3
    frames, label = splits.train[34]
    assert frames.shape == (2, 1, 1, 700) and label == 34


def test_what_is_missing_or_wrong_is_named(shd: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*shd_train.h5, nor .*h5.zip"):
        SpikingDataModule(DataConfig("shd", tmp_path)).setup()
    file = shd / "SHD/shd_test.h5"
    with pytest.raises(ValueError, match=r"shd_test.h5.* holds 20 recordings by number"):
        read_recording(file, None)
    with pytest.raises(ValueError, match=r"holds 20 recordings by number, .* no 20"):
        read_recording(file / "20", None)
