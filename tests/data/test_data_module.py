"""Data sets by name, to batches of frames."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from htaf_snn.data import DataConfig, DataSet, SpikingDataModule, data_set
from htaf_snn.data.digits_events import encode
from htaf_snn.data.recordings import read_recording

from .files import events

pytest.importorskip("tonic")

ROOTS = {"nmnist": "nmnist_small", "mnist": "mnist_5k", "fashion_mnist": "fashion_mnist_subset"}


@pytest.fixture
def subset(tmp_path: Path) -> Path:
    """A folder of N-MNIST's exact layout, 6 + 4 recordings a class."""
    for folder, count in (("Train", 6), ("Test", 4)):
        for label in range(10):
            where = tmp_path / "NMNIST" / folder / str(label)
            where.mkdir(parents=True)
            for i in range(count):
                path = where / f"{label}{i:04d}.bin"
                path.write_bytes(encode(events(seed=100 * label + 10 * count + i)))
    return tmp_path


@pytest.mark.parametrize("name", ["digits_events", "digits", *ROOTS])
def test_every_data_set_loads(name: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue("shared_data") / ROOTS[name] if name in ROOTS else None
    data = SpikingDataModule(DataConfig(name, root, T=3, batch_size=16))
    data.prepare_data()
    data.setup()
    x_seq, labels = next(iter(data.train_dataloader()))
    assert x_seq.shape == (3, 16, *data.in_shape)
    assert x_seq.dtype == torch.float32 and x_seq.max() > 0 and x_seq.min() >= 0
    assert labels.shape == (16,) and labels.min() >= 0 and labels.max() < data.num_classes
    splits = data.splits
    for loader, part in (
        (data.train_dataloader(), splits.train),
        (data.val_dataloader(), splits.validation),
        (data.test_dataloader(), splits.test),
    ):
        counts = torch.bincount(torch.cat([y for _, y in loader]), minlength=10)
        assert counts.sum() == len(part)  # type: ignore[arg-type]
        assert counts.min() > 0


def test_events_are_counted_in_their_bins(subset: Path) -> None:
    data = SpikingDataModule(DataConfig("nmnist", subset, T=4))
    recording = events(seed=60)  # label 0, Train, number 0
    expected = np.zeros((4, 2, 34, 34))
    edges = recording["t"][0] + np.arange(5) * ((recording["t"][-1] - recording["t"][0]) // 4)
    for x, y, t, p in zip(*(recording[name] for name in "xytp"), strict=True):
        expected[min(3, np.flatnonzero(edges <= t)[-1]), p, y, x] += 1
    assert expected.sum() == len(recording["t"])
    splits = data.splits
    every = [splits.train, splits.validation, splits.test]
    assert any((sample[0].numpy() == expected).all() for part in every for sample in part)  # type: ignore[attr-defined]


def test_training_samples_are_shifted_whole(subset: Path) -> None:
    still, moved = (
        SpikingDataModule(DataConfig("nmnist", subset, T=2, shift=shift)).train_dataloader().dataset
        for shift in (0.0, 0.06)
    )
    frames, (shifted, label) = still[0, 0][0], moved[0, 0]
    assert shifted.shape == frames.shape and label == still[0, 0][1]
    padded = torch.nn.functional.pad(frames, (2, 2, 2, 2))
    windows = padded.unfold(2, 34, 1).unfold(3, 34, 1)  # [T, P, 5, 5, 34, 34]
    assert any(torch.equal(shifted, windows[:, :, y, x]) for y in range(5) for x in range(5))
    firsts = [moved[epoch, 0][0] for epoch in range(20)]
    assert len({tuple(frames.flatten().tolist()) for frames in firsts}) > 5


def test_splits_are_apart_and_fixed(subset: Path) -> None:
    def indices(seed: int = 0, **options: Any) -> list[set[int]]:
        splits = SpikingDataModule(DataConfig("nmnist", subset, T=2, **options), seed).splits
        return [set(part.indices) for part in (splits.train, splits.validation, splits.test)]  # type: ignore[attr-defined]

    shares: dict[str, Any] = {"validation": 0.2, "test": 0.3}
    parts = indices(**shares)
    assert [len(p) for p in parts] == [50, 20, 30]
    assert len(set.union(*parts)) == 100
    assert indices(**shares, seed=5) == parts  # the order's seed moves no sample
    assert indices(**shares, split_seed=1) != parts


def test_order_depends_on_seed_and_epoch_alone(subset: Path) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        loader = SpikingDataModule(DataConfig("nmnist", subset, T=2), seed=seed).train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        keys = list(loader.sampler)
        assert {of for of, _ in keys} == {epoch}
        return [index for _, index in keys]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_frames_are_cached_and_renewed_when_a_recording_changes(
    subset: Path, own_cache: Path
) -> None:
    def folders() -> set[Path]:
        return {p for p in (own_cache / "frames").iterdir() if p.is_dir()}

    SpikingDataModule(DataConfig("nmnist", subset, T=2)).setup()
    before = folders()
    SpikingDataModule(DataConfig("nmnist", subset, T=2)).setup()
    assert folders() == before
    (subset / "NMNIST/Train/3/30001.bin").write_bytes(encode(events(n=99)))
    SpikingDataModule(DataConfig("nmnist", subset, T=2)).setup()
    assert len(folders() - before) == 1


def spoil(path: str, content: bytes | None) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        target = root / "NMNIST" / path
        if content is None:
            for file in target.iterdir():
                file.unlink()
        else:
            target.write_bytes(content)

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (spoil("Train/3/30001.bin", b""), r"30001.bin: 0 bytes"),
        (spoil("Train/3/30001.bin", encode(events())[:-2]), r"30001.bin: 198 bytes.*cut short"),
        (
            spoil("Test/9/90001.bin", encode(events(size=(60, 60)))),
            r"90001.bin: row \d+: event at x=.*outside the 34x34",
        ),
        (
            spoil("Test/9/90001.bin", encode({k: v[::-1] for k, v in events().items()})),
            r"90001.bin: row \d+: timestamps run backwards",
        ),
        (spoil("Test/9/90001.bin", bytes([0, 240, 0, 0, 0])), r"90001.bin: no event"),
        (
            lambda root: [spoil(f"{f}/7", None)(root) for f in ("Train", "Test")],
            "too few in class 7",
        ),
    ],
    ids=["empty", "truncated", "outside", "unsorted", "overflow only", "empty class"],
)
def test_damage_is_named(
    subset: Path, damage: Callable[[Path], None], message: str, own_cache: Path
) -> None:
    damage(subset)
    with pytest.raises(ValueError, match=message):
        SpikingDataModule(DataConfig("nmnist", subset, T=2)).prepare_data()
    assert not list((own_cache / "frames").glob("*.partial-*"))


def test_real_recordings_pass_the_checks(shared_data: Path) -> None:
    files = sorted((shared_data / "nmnist_small/NMNIST/Test").rglob("*.bin"))
    assert all(len(read_recording(path, (34, 34, 2))) > 1000 for path in files[::10])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "nmist"}, ValueError, "unknown data set 'nmist'; .* are digits_events, nmnist"),
        ({"T": 0}, ValueError, r"`T` \(=0\)"),
        ({"shift": 0.5}, ValueError, r"`shift` \(=0.5\)"),
        ({"batch_size": 0}, ValueError, r"`batch_size` \(=0\)"),
        ({"validation": 0.5, "test": 0.5}, ValueError, "leave something to train on"),
        ({"validation": -0.1}, ValueError, r"`validation` \(=-0.1\) must not be negative"),
        ({"split": "time"}, ValueError, r"`split` \(=time\).*set `data.window`"),
        ({"split": "time", "window": 9, "group": "x"}, ValueError, "`group`.*leave one out"),
        ({"sensor_size": "34*34"}, ValueError, r"`sensor_size` \(='34\*34'\).*such as 346x260"),
        ({"camera": "dvs"}, ValueError, r"`camera` \(='dvs'\) must be one of dvs128, "),
        ({"mixup": -1.0}, ValueError, r"`mixup` \(=-1.0\)"),
        ({"encoder": "poisson"}, ValueError,
         r"`encoder` \(=poisson\) does not apply to digits_events.*these do: denoise, downsample"),
        ({"name": "digits", "encoder": "rate"}, ValueError, "unknown encoder 'rate'; .* latency"),
        ({"name": "digits", "downsample": 4}, ValueError, r"`downsample` \(=4\) does not apply"),
        ({"name": "digits", "frames_by": "count"}, ValueError, "does not apply .*: encoder"),
        ({"name": "digits", "size": 4}, ValueError, r"`size` \(=4\) does not apply"),
        ({"name": "dvs_gesture", "first_saccade": True}, ValueError, "`first_saccade`"),
        ({"name": "nmnist", "sensor_size": (9, 9)}, ValueError, r"`sensor_size` \(=\(9, 9\)\)"),
        ({"name": "event_folder", "ordering": "xyt"}, ValueError,
         "`ordering` .*permutation"),
        ({"frames_by": "events"}, ValueError, "unknown frames_by 'events'; .* time, count"),
        ({"augment": "autoaugment"}, ValueError, "no 'autoaugment' for events; there are shift"),
        ({"name": "digits", "augment": "flip,drop"}, ValueError, "no 'drop' for images"),
        ({"name": "nmnist"}, ValueError, "`data.root` is needed"),
        ({"name": "nmnist", "root": Path("/nowhere")}, FileNotFoundError, "/nowhere.*no such"),
        ({"name": "nmnist", "root": Path("/")}, FileNotFoundError, "NMNIST/Train.*download=true"),
        ({"name": "mnist", "root": Path("/")}, FileNotFoundError, "train-images.*download=true"),
    ],
)  # fmt: skip
def test_refuses(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SpikingDataModule(DataConfig(**arguments)).prepare_data()


def test_without_tonic_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tonic", None)
    for name in [m for m in sys.modules if m.startswith("tonic.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'htaf-snn\[events\]'"):
        SpikingDataModule(DataConfig("nmnist", Path("/tmp"), download=True)).prepare_data()


def test_workers_give_the_same_batches() -> None:
    batches = [
        [
            x.sum().item()
            for x, _ in SpikingDataModule(
                DataConfig("digits", T=2, num_workers=n)
            ).train_dataloader()
        ]
        for n in (0, 2)
    ]
    assert batches[0] == batches[1]


def test_a_share_smaller_than_the_classes_is_named(subset: Path) -> None:
    with pytest.raises(ValueError, match=r"`validation` \(=0.05\) of 100 samples .*10 classes"):
        SpikingDataModule(DataConfig("nmnist", subset, T=2, validation=0.05)).setup()


def test_lookup() -> None:
    assert data_set("digits").shape == (1, 8, 8)
    with pytest.raises(TypeError, match="mine needs shape, num_classes and load, or an open of"):
        DataSet("mine", "images", "noise", None, 3).open(DataConfig())


def on_device(rank: int, world: int) -> SpikingDataModule:
    data = SpikingDataModule(DataConfig("digits", batch_size=7, validation=0.1))
    data.trainer = SimpleNamespace(world_size=world, global_rank=rank)  # type: ignore[assignment]
    return data


@pytest.mark.parametrize("world", [2, 3, 180])
def test_devices_measure_every_sample_once(world: int) -> None:
    ranks = range(world) if world < 9 else (0, 179)
    seen = [i for rank in ranks for i in on_device(rank, world).val_dataloader().sampler]
    assert sorted(seen) == (list(range(180)) if world < 9 else [0, 179])


def test_more_devices_than_samples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"180 samples .*`trainer.devices` \(=181\)"):
        on_device(0, 181).val_dataloader()
