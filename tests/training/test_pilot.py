"""A laboratory's pilot: a recording a class, or a test folder alone, from `fit` to `predict`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from htaf_snn.checkpoint_io import read_checkpoint
from htaf_snn.data.digits_events import encode
from htaf_snn.data.recordings import read_recording
from htaf_snn.training.predict import framing_in
from tests.data.files import Columns
from tests.data.writers import FORMATS
from tests.helpers import command

from .test_predict import bar

CLOCK = 1 << 23  # us, after which N-MNIST's times begin anew
SHORT = [
    "fit", "--data=event_folder", "--data.T=2", "--data.downsample=16", "--data.batch_size=16",
    "--model.widths=[8]", "--trainer.max_epochs=2", "--trainer.enable_progress_bar=false",
]  # fmt: skip


def joined(folder: Path, seconds: float) -> Columns:
    """A class's recordings, one after the other."""
    parts, end = [], 0
    for path in sorted(folder.iterdir()):
        events = read_recording(path, (34, 34, 2))
        parts.append(np.stack([events["x"], events["y"], events["t"] + end, events["p"]]))
        end += int(events["t"][-1]) + 1
        if end > seconds * 1e6:
            break
    x, y, t, p = np.concatenate(parts, axis=1)
    return {"x": x, "y": y, "t": t, "p": p}


@pytest.mark.slow
def test_a_recording_a_class_trains_and_is_labelled(shared_data: Path, tmp_path: Path) -> None:
    for label in "012":
        (tmp_path / "pilot" / label).mkdir(parents=True)
        columns = joined(shared_data / "nmnist_small/NMNIST/Train" / label, 28)
        columns["t"] %= CLOCK
        (tmp_path / "pilot" / label / "all.bin").write_bytes(encode(columns))
    out, root = tmp_path / "out", f"--data.root={tmp_path / 'pilot'}"
    window = "--data.window=100000"
    done = command(*SHORT, root, window, f"--out={out}", check=False)
    assert done.returncode == 1 and "`data.split` time" in done.stderr and not out.exists()
    assert "sensor 34x34: no file names it" in done.stderr
    done = command(*SHORT, root, window, "--data.split=time", f"--out={out}")
    assert "the parts are of the same recordings, one after the other in time" in done.stderr
    best = out / "checkpoints/best.ckpt"
    assert "hard accuracy" in command("test", best).stdout
    table = tmp_path / "found.csv"
    lines = command("predict", best, tmp_path / "pilot", f"--csv={table}").stdout.splitlines()
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines) > 800 and {row["name"] for row in rows} <= {*"012"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without validation, and its data, in one folder."""
    folder = tmp_path_factory.mktemp("run")
    suffix, write = FORMATS["npz"]
    for part, count in (("train", 4), ("test", 2)):
        for kind in ("left", "right"):
            (folder / "data" / part / kind).mkdir(parents=True)
            for i in range(count):
                write(folder / "data" / part / kind / f"{i}{suffix}", bar(kind, i))
    done = command(
        *SHORT, f"--data.root={folder / 'data'}", "--data.validation=0", "--data.sensor_size",
        "128x128", f"--out={folder / 'out'}",
    )  # fmt: skip
    assert "no validation: last.ckpt is of the last epoch" in done.stdout
    assert "validation none: no epoch is chosen" in done.stderr
    return folder


def test_a_test_folder_needs_no_validation(trained: Path) -> None:
    assert [path.name for path in (trained / "out/checkpoints").iterdir()] == ["last.ckpt"]
    last = trained / "out/checkpoints/last.ckpt"
    assert "hard accuracy" in command("test", last).stdout
    done = command(
        *SHORT, f"--data.root={trained / 'data'}", "--data.validation=0", "--patience=3",
        f"--out={trained / 'other'}", check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "`patience` (=3) needs validation data" in done.stderr


def test_an_earlier_versions_framing_is_read(trained: Path, tmp_path: Path) -> None:
    last = trained / "out/checkpoints/last.ckpt"
    content = torch.load(last, weights_only=True)
    framing = content["SpikingDataModule"]["framing"]
    framing["by"] = framing.pop("frames_by")
    del framing["format"]["camera"]
    torch.save(content, tmp_path / "earlier.ckpt")
    earlier = read_checkpoint(tmp_path / "earlier.ckpt")
    assert framing_in(earlier, last) == framing_in(read_checkpoint(last), last)


def test_a_picture_of_many_recordings_is_capped_and_says_so(trained: Path, tmp_path: Path) -> None:
    from PIL import Image

    suffix, write = FORMATS["npz"]
    for i in range(25):
        write(tmp_path / f"{i}{suffix}", bar("left", i))
    (tmp_path / "._0.npz").write_bytes(b"what macOS leaves behind")
    plot = tmp_path / "a.png"
    last = trained / "out/checkpoints/last.ckpt"
    done = command("predict", last, tmp_path, f"--plot={plot}")
    assert len(done.stdout.splitlines()) == 25
    assert "the first 20 of 25 recordings; --csv and --json have all" in done.stderr
    with Image.open(plot) as image:
        assert image.height < 6000
