"""Recordings of any format train, and a checkpoint alone labels others."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from htaf_snn.checkpoint_io import read_checkpoint
from tests.data.files import Columns
from tests.data.writers import FORMATS, SIDE
from tests.helpers import command

pytest.importorskip("tonic")
SHOWN = ("npz", "AEDAT 2.0", "dat, expelliarmus", "HDF5 of v2e")  # the first has float seconds
FIT = [
    "fit", "--data=event_folder", f"--data.sensor_size=[{SIDE},{SIDE}]", "--data.T=2",
    "--data.downsample=16", "--data.batch_size=4", "--model.widths=[8]",
    "--trainer.max_epochs=10", "--data.shift=0", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]  # fmt: skip


def bar(kind: str, seed: int, seconds: float = 0.3) -> Columns:
    """A bar that stands to the left or to the right."""
    rng = np.random.default_rng(seed)
    n = round(4000 * seconds)
    t = np.sort(rng.integers(0, round(seconds * 1e6), n))
    return {
        "x": rng.integers(0, 30, n) + 90 * (kind == "right"), "y": rng.integers(0, SIDE, n),
        "t": t - t[0], "p": rng.integers(0, 2, n),
    }  # fmt: skip


def write_folder(root: Path, format: str) -> None:
    suffix, write = FORMATS[format]
    for kind in ("left", "right"):
        (root / kind).mkdir(parents=True)
        for i in range(8):
            write(root / kind / f"{i}{suffix}", bar(kind, i))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for format in SHOWN:
        out = tmp_path_factory.mktemp("run")
        write_folder(out / "data", format)
        done = command(*FIT, f"--data.root={out / 'data'}", f"--out={out / 'out'}")
        assert "train      11 samples, 2 classes of 5 to 6, 11 recordings" in done.stderr
        made[format] = out
    return made


def test_a_recording_trains_alike_in_every_format(runs: dict[str, Path]) -> None:
    first, *others = (
        read_checkpoint(out / "out/checkpoints/last.ckpt")["state_dict"] for out in runs.values()
    )
    for other in others:
        assert all(torch.equal(value, other[name]) for name, value in first.items())


@pytest.mark.parametrize("format", SHOWN)
def test_a_checkpoint_needs_no_training_folder(
    runs: dict[str, Path], format: str, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "last.ckpt"
    shutil.copy(runs[format] / "out/checkpoints/last.ckpt", checkpoint)
    moved = runs[format] / "data"
    moved.rename(runs[format] / "away")
    try:
        suffix, write = FORMATS["EVT3, faery"]  # in any format
        for kind in ("left", "right"):
            write(tmp_path / f"{kind}{suffix}", bar(kind, 100))
        lines = command("predict", checkpoint, tmp_path).stdout.splitlines()
        assert [line.split("  ")[1] for line in lines] == ["left", "right"]
    finally:
        (runs[format] / "away").rename(moved)


def test_predict_over_time_goes_on_after_a_bad_recording(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint = runs["npz"] / "out/checkpoints/last.ckpt"
    folder = tmp_path / "new"
    folder.mkdir()
    long = [bar(kind, 5) for kind in ("left", "right", "left")]
    joined = {name: np.concatenate([part[name] for part in long]) for name in "xyp"}
    joined["t"] = np.concatenate([part["t"] + 300_000 * i for i, part in enumerate(long)])
    FORMATS["npz"][1](folder / "b.npz", joined)
    (folder / "a.dat").write_bytes(b"% Version 2\n\x0c\x08" + bytes(7))
    files = {name: tmp_path / f"found.{name}" for name in ("csv", "json", "plot")}
    files["plot"] = tmp_path / "found.png"
    done = command(
        "predict", checkpoint, folder, "--window=290000",
        *(f"--{name}={path}" for name, path in files.items()), check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "1 recordings have no label" in done.stderr and "a.dat: 7 bytes" in done.stderr
    names = [line.split("  ")[2] for line in done.stdout.splitlines()]
    assert names == ["left", "right", "left"]
    assert "at 0.290 s" in done.stdout
    with files["csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows if not row["error"]] == names
    assert "7 bytes" in rows[0]["error"] and 0 <= float(rows[1]["left"]) <= 1
    objects = json.loads(files["json"].read_text())
    assert objects[1]["probabilities"].keys() == {"left", "right"} and "error" in objects[0]
    assert files["plot"].stat().st_size > 5000


def test_other_classes_are_not_gone_on_with(runs: dict[str, Path], tmp_path: Path) -> None:
    write_folder(tmp_path / "data", "npz")
    (tmp_path / "data/left").rename(tmp_path / "data/link")
    last = runs["npz"] / "out/checkpoints/last.ckpt"
    done = command(
        *FIT, f"--data.root={tmp_path / 'data'}", f"--out={tmp_path / 'out'}",
        f"--ckpt_path={last}", "--trainer.max_epochs=11", check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "trained on the classes left, right; here they are link" in (
        done.stderr
    )
