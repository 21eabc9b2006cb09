"""Which samples stand in which part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from htaf_snn.data import DataConfig, Samples, SpikingDataModule, split
from htaf_snn.data.splits import split_in_time, summary_lines

from .files import events

savez: Any = np.savez


def samples(labels: np.ndarray) -> Samples:
    return Samples(np.arange(len(labels)), labels, torch.Tensor.float)


def indices(splits: Any) -> list[list[int]]:
    return [part.indices for part in (splits.train, splits.validation, splits.test)]


@pytest.mark.parametrize("seed", range(5))
def test_every_class_has_its_share_of_every_part(seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat([0, 1, 2], [150, 40, 10]))
    splits = split(samples(labels), labels, 0.2, 0.3, seed)
    counts = [np.bincount(labels[part], minlength=3).tolist() for part in indices(splits)]
    assert counts == [[75, 20, 5], [30, 8, 2], [45, 12, 3]]
    assert sorted(np.concatenate(indices(splits)).tolist()) == list(range(200))


def test_without_validation() -> None:
    labels = np.repeat([0, 1], 10)
    splits = split(samples(labels), labels, 0.0, 0.2, 0)
    assert [len(part) for part in indices(splits)] == [16, 0, 4]


@pytest.mark.parametrize(
    ("validation", "test", "parts"),
    [(0.2, 0.3, [4, 2, 3]), (0.0, 0.2, [7, 0, 2]), (0.01, 0.01, [7, 1, 1])],
)
def test_the_end_of_each_recording_is_measured_on(
    validation: float, test: float, parts: list[int]
) -> None:
    """The first windows of a recording train, then one is left out, then come the others."""
    recordings = np.repeat([0, 2, 5], 10)  # those between could not be read
    splits = split_in_time(samples(recordings), recordings, list("abcdef"), validation, test)
    train, middle, end = indices(splits)
    for start in (0, 10, 20):
        own = [
            [i - start for i in part if start <= i < start + 10] for part in (train, middle, end)
        ]
        assert [len(part) for part in own] == parts
        gap = parts[0]
        assert own[0] == list(range(gap)) and own[1] + own[2] == list(range(gap + 1, 10))


def test_parts_of_their_own_are_not_taken_from_recordings() -> None:
    recordings = np.repeat([0, 1], 10)
    own = samples(np.zeros(3))
    splits = split_in_time(samples(recordings), recordings, "ab", 0.2, own)
    assert [len(part) for part in indices_of(splits)] == [14, 4, 3]
    splits = split_in_time(samples(recordings), recordings, "ab", own, own)
    assert [len(part) for part in indices_of(splits)] == [20, 3, 3]


def indices_of(splits: Any) -> list[Any]:
    return [splits.train, splits.validation, splits.test]


def test_a_recording_with_too_few_windows_is_named() -> None:
    recordings = np.repeat([0, 1], [10, 3])
    with pytest.raises(ValueError, match=r"b: 3 windows are too few .*lower `data.window`"):
        split_in_time(samples(recordings), recordings, ["a", "b"], 0.1, 0.1)


def write_pilot(root: Path, classes: str = "cat dog") -> None:
    """One recording of 1 s a class, of events at (0, 0) but for their first."""
    for number, name in enumerate(classes.split()):
        (root / name).mkdir(parents=True)
        t = np.arange(0, 1_000_000, 500)
        x = np.arange(len(t)) % (5 + number)
        savez(root / name / "a.npz", sensor_size=(34, 34), x=x, y=x, t=t, p=x % 2)


def test_one_recording_a_class_is_split_in_time(tmp_path: Path) -> None:
    write_pilot(tmp_path)
    options: dict[str, Any] = {"T": 2, "window": 50_000, "augment": ""}
    with pytest.raises(ValueError, match=r"2 groups can't be divided.*`data.split` time"):
        SpikingDataModule(DataConfig("event_folder", tmp_path, **options)).setup()
    data = SpikingDataModule(DataConfig("event_folder", tmp_path, split="time", **options))
    assert [len(part) for part in indices(data.splits)] == [22, 6, 8]
    lines = summary_lines(data.splits)
    assert lines[-1].startswith("the parts are of the same recordings, one after the other")
    assert not summary_lines(SpikingDataModule(DataConfig("digits")).splits)[-1].startswith("the")


def test_a_test_folder_alone(tmp_path: Path) -> None:
    for part, count in (("train", 2), ("test", 1)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                savez(tmp_path / part / name / f"{i}.npz", sensor_size=(34, 34), **events(seed=i))
    data = SpikingDataModule(DataConfig("event_folder", tmp_path, T=2, validation=0))
    data.setup("fit")
    assert not data.has_validation and list(data.val_dataloader()) == []
    assert [len(part) for part in indices_of(data.splits)] == [4, 0, 2]
    assert "validation none: no epoch is chosen" in "\n".join(summary_lines(data.splits))
