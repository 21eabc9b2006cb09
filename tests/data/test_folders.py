"""A laboratory's first folder: what it names, what it leaves unsaid, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htaf_snn.data import DataConfig, SpikingDataModule, event_sets

from .files import events

savez: Any = np.savez
NAMES = ("cat", "dog")


def write(root: Path, size: tuple[int, int] = (34, 34), count: int = 5) -> None:
    for name in NAMES:
        (root / name).mkdir(parents=True)
        for i in range(count):
            savez(root / name / f"{i}.npz", **events(2000, size, seed=i))


def loaded(root: Path, **options: Any) -> SpikingDataModule:
    options = {"T": 2, "validation": 0.2, "test": 0.2} | options
    data = SpikingDataModule(DataConfig("event_folder", root, **options))
    data.setup("fit")
    return data


def test_the_sensor_is_guessed_from_events_and_said(
    tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for size, sensor in (((120, 125), (128, 128)), ((50, 70), (50, 70))):
        root = tmp_path / str(size[0])
        write(root, size)
        caplog.clear()
        with caplog.at_level("INFO", "htaf_snn"):
            assert loaded(root).in_shape == (2, sensor[1], sensor[0])
        text = f"sensor {sensor[0]}x{sensor[1]}: no file names it, and events reach"
        assert caplog.text.count(text) == 1
    monkeypatch.setattr("htaf_snn.data.events.map_in_order", None)  # all is in the cache
    assert loaded(root).in_shape == (2, 70, 50)


def test_a_fit_lists_recordings_and_reads_their_headers_once(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        (tmp_path / name).mkdir(parents=True)
        for i in range(5):
            savez(tmp_path / name / f"{i}.npz", sensor_size=(34, 34), **events(2000, seed=i))
    calls: Counter[object] = Counter()

    def counted(name: str) -> Any:
        function = getattr(event_sets, name)

        def call(path: Path, *arguments: Any, **options: Any) -> Any:
            calls[name, path] += 1
            return function(path, *arguments, **options)

        return call

    for name in ("parts_of", "sensor_in_header"):
        monkeypatch.setattr(event_sets, name, counted(name))
    data = SpikingDataModule(DataConfig("event_folder", tmp_path, T=2, test=0.2, validation=0.2))
    assert data.in_shape == (2, 34, 34) and data.num_classes == 2
    data.prepare_data()
    data.setup("fit")
    assert data.state_dict()["classes"] == ["cat", "dog"]
    assert len(calls) == 11 and set(calls.values()) == {1}


def test_a_guess_needs_events_that_can_be_one_sensors(tmp_path: Path) -> None:
    write(tmp_path)
    savez(tmp_path / "cat/9.npz", **{**events(), "x": np.full(40, 20_000)})
    with pytest.raises(ValueError, match=r"events reach 20001x34: set `data.sensor_size`, such as"):
        loaded(tmp_path)


def test_a_bad_file_names_the_option_that_leaves_it_out(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "cat/0.npz").write_bytes(b"PK")
    for sensor in ({}, {"sensor_size": (34, 34)}):
        with pytest.raises(ValueError, match=r"cat/0\.npz: .*\n.*--data.skip_bad true leaves out"):
            loaded(tmp_path, **sensor)
        data: Any = loaded(tmp_path, skip_bad=True, **sensor).splits
        assert sum(map(len, (data.train, data.validation, data.test))) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": 0.1}, r"`test` \(=0.1\) of 10 samples is less than one a class"),
        ({"group": "person"}, r"`group` \(=person\) finds nothing in"),
        ({"group": "(cat|dog)"}, "2 groups can't be divided"),
    ],
)
def test_a_split_that_can_not_be_is_refused_before_files_are_read(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(5):
            (tmp_path / name / f"{number}.npz").write_bytes(b"no recording")
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path, sensor_size=(34, 34), **options)


def test_hidden_folders_and_files_are_none(tmp_path: Path) -> None:
    write(tmp_path)
    for name in (".git", ".ipynb_checkpoints", "__MACOSX"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.npz").write_bytes(b"PK")
    (tmp_path / "cat/._0.npz").write_bytes(b"\0\5\26\7")
    assert loaded(tmp_path).num_classes == 2


@pytest.mark.parametrize("folders", [[], ["cat"], ["Train", "Test"], ["val", "test"]])
def test_the_layout_is_drawn_where_there_are_no_classes(folders: list[str], tmp_path: Path) -> None:
    for name in folders or ["."]:
        (tmp_path / name).mkdir(exist_ok=True)
        savez(tmp_path / name / "0.npz", **events())
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        loaded(tmp_path)
    first, *drawn = str(caught.value).splitlines()
    assert "a folder for each of several classes is due" in first
    assert len(drawn) == 2 and f"{tmp_path}/cat/1.bin" in drawn[0] and "train/cat" in drawn[1]
