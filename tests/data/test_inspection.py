"""`htaf-snn data inspect`: a table and a picture of any folder of recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers import command

from .files import events
from .writers import FORMATS, SIDE

pytest.importorskip("tonic")


def test_a_folder_with_every_format(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, (suffix, write) in enumerate(FORMATS.values()):
        write(folder / f"{number:02d}{suffix}", events(3000, (SIDE, SIDE)))
    (folder / "bad.bin").write_bytes(bytes(7))
    columns: dict[str, Any] = {**events(), "t": np.arange(40) * 10**9}
    np.savez(folder / "long.npz", sensor_size=(34, 34), **columns)
    picture = tmp_path / "out.png"
    printed = command("data", "inspect", folder, f"--out={picture}").stdout
    header, *lines = printed.splitlines()
    assert header.split() == ["recording", "sensor", "events", "seconds", "events/s", "ON", "note"]
    rows = [line.split() for line in lines if "128x128" in line and "3000" in line]
    shown = [int(row[1]) if row[0] == "in:" else 1 for row in rows]
    assert sum(shown) == len(FORMATS)
    cells = {tuple(row[-4:]) for row in rows}
    assert len(cells) == 1 and next(iter(cells))[0] == "3000"  # the same events in every format
    assert "bad.bin" in printed and "7 bytes" in printed
    assert "long.npz" in printed and "too short or long: is `time_unit` right?" in printed
    assert "? guessed: no file names its sensor, and events reach 128x128; --data." in " ".join(
        printed.split()
    )
    with Image.open(picture) as image:
        assert image.width > 800 and len(np.unique(np.asarray(image))) > 50
    done = command("data", "inspect", tmp_path / "none", check=False)
    assert done.returncode == 1 and "no event recording" in done.stderr


def test_the_list_of_data_sets_stays() -> None:
    assert "event_folder" in command("data").stdout


def test_each_class_is_shown_and_what_is_alike_in_a_line(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(60):
            path = tmp_path / "in" / name / f"{i}.npz"
            np.savez(path, **events(100 + i, (33, 34), seed=i))  # type: ignore[arg-type]
    (tmp_path / "in/.git").mkdir()
    (tmp_path / "in/.git/a.npz").touch()
    for i in range(23):
        (tmp_path / f"in/dog/bad{i}.npz").write_bytes(b"PK")
    picture = tmp_path / "a.png"
    lines = command("data", "inspect", tmp_path / "in", f"--out={picture}").stdout.splitlines()
    for name in ("cat", "dog"):
        (line,) = (line.split() for line in lines if line.startswith(f"{name}: 60 .npz"))
        assert line[3:7] == ["34x34?", "100", "to", "159"]
    assert sum("bad" in line for line in lines) == 20 and "and 3 more that can't be read" in lines
    assert lines[-1].endswith("48 recordings, blue OFF, red ON")
    assert len(lines) < 32
    assert "dog/bad7.npz: no .npz archive; the file can't be read as events" in lines
