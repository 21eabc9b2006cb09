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
    shown = [line.split() for line in lines if line[:2].isdigit()]
    assert len(shown) == len(FORMATS)
    assert {row[-1] == "`data.sensor_size`" or row[1] == "128x128" for row in shown} == {True}
    cells = {tuple(line.removesuffix("no sensor size in the file: set `data.sensor_size`").split()
                   [-4:]) for line in lines if line[:2].isdigit()}  # fmt: skip
    assert len(cells) == 1 and next(iter(cells))[0] == "3000"  # the same events in every format
    assert "bad.bin" in printed and "7 bytes" in printed
    assert "lasts 39000 s: is `time_unit` right?" in printed
    with Image.open(picture) as image:
        assert image.width > 800 and len(np.unique(np.asarray(image))) > 50
    done = command("data", "inspect", tmp_path / "none", check=False)
    assert done.returncode == 1 and "no event recording" in done.stderr


def test_the_list_of_data_sets_stays() -> None:
    assert "event_folder" in command("data").stdout
