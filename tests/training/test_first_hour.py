"""A laboratory's first hour: from an empty folder to labels, each mistake with its remedy."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.data.writers import FORMATS
from tests.helpers import command

from .test_predict import bar

WIDTH = 80  # columns of a terminal
FIT = [
    "fit", "--data=event_folder", "--data.root=pilot", "--data.T=2", "--data.downsample=16",
    "--data.batch_size=4", "--model.widths=[8]", "--trainer.max_epochs=2",
]  # fmt: skip
TIME = ["--data.window=100000", "--data.split=time"]
SENSOR = "--data.sensor_size=128x128"


def refused(*arguments: str) -> str:
    """Runs a command that is a mistake; returns what it says."""
    before = sorted(Path().rglob("*"))
    done = command(*arguments, check=False)
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    assert sorted(Path().rglob("*")) == before  # nothing is left
    return done.stderr


def record(path: str, kind: str, seed: int) -> None:
    suffix, write = FORMATS["npz"]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write(Path(f"{path}{suffix}"), bar(kind, seed, seconds=1.5))


def test_from_an_empty_folder_to_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(*FIT, "--trainer.max_epoch=2")
    assert "--trainer.max_epochs" in said  # no abbreviations
    assert "no such folder" in refused(*FIT)
    Path("pilot").mkdir()
    layout = "pilot/cat/1.bin  pilot/dog/1.bin"
    assert layout in refused(*FIT)
    record("pilot/0", "left", 0)
    assert layout in refused(*FIT)  # files without folders
    Path("pilot/0.npz").unlink()
    record("pilot/left/0", "left", 0)
    assert layout in refused(*FIT)  # one class
    Path("pilot/.thumbnails").mkdir()  # a hidden folder is no class
    assert layout in refused(*FIT)
    record("pilot/right/0", "right", 1)
    assert "every class needs at least 3 samples" in refused(*FIT, SENSOR)
    window = TIME[0]
    assert "`data.split` time" in refused(*FIT, SENSOR, window)
    assert "such as 346x260" in refused(*FIT, *TIME, "--data.sensor_size=large")
    Path("pilot/right/1.npz").write_bytes(b"a camera that was switched off")
    assert "--data.skip_bad true" in refused(*FIT, *TIME, SENSOR)
    known = [*FIT, *TIME, "--data.skip_bad=true"]
    assert "no checkpoint" in refused(*known, SENSOR, "--out=run", "--ckpt_path=last")

    done = command(*known, "--out=run")  # the sensor is guessed
    assert "sensor 128x128: no file names it" in done.stderr
    assert "of the same recordings, one after the other in time" in done.stderr
    assert "epoch 1 of 2" in done.stderr and "epoch 2 of 2" in done.stderr
    assert "\r" not in done.stderr  # of no terminal
    assert "best.ckpt is there already" in refused(*known, "--out=run")

    best = "run/checkpoints/best.ckpt"
    shown = [
        command("data", "inspect", "pilot").stdout,
        command("test", best).stdout,
        command("export", best, "--format=spikingjelly").stdout,
    ]
    assert "hard accuracy" in shown[1] and Path("run/checkpoints/best.pt").is_file()
    assert "best.pt is there already" in refused("export", best, "--format=spikingjelly")
    done = command("predict", best, "pilot/left", "--csv=found.csv", "--plot=found.png")
    with Path("found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(done.stdout.splitlines()) == 14  # whole windows
    assert {row["name"] for row in rows} <= {"left", "right"} and Path("found.png").is_file()
    assert max(len(line) for text in shown for line in text.splitlines()) <= WIDTH
