"""Augmentation by name: what it changes, what it leaves alone, and that it repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from htaf_snn.data import DataConfig, SpikingDataModule, augment
from htaf_snn.data.augment import Mixing, event_transform, frame_transform, names_for
from htaf_snn.data.loader import Sampler
from htaf_snn.data.recordings import EVENT

pytest.importorskip("tonic")

OF_EVENTS = [name for name in names_for("events") if name not in names_for("images")]
OF_FRAMES = [name for name in names_for("images") if name in names_for("events")]


def ramp(*lead: int) -> torch.Tensor:
    """Frames that are all the same, 16 by 24, of different positive pixels."""
    image = (1 + torch.arange(16 * 24) % 250).to(torch.uint8).reshape(16, 24)
    return image.expand(*lead, 16, 24)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
@pytest.mark.parametrize("name", OF_FRAMES)
def test_all_frames_are_changed_alike(name: str, dtype: torch.dtype) -> None:
    frames = ramp(3, 2).to(dtype)
    transform = frame_transform([name], (16, 24), shift=0.2)
    results = [transform(frames) for _ in range(20)]
    for result in results:
        assert result.shape == frames.shape and result.dtype == dtype
        assert (result == result[:1, :1]).all()
        assert set(result.unique().tolist()) <= {0, *frames.unique().tolist()}
    assert len({tuple(r[0, 0].flatten().tolist()) for r in results}) > 1


def test_what_each_does() -> None:
    frames = ramp(1, 1)

    def results(name: str) -> list[torch.Tensor]:
        transform = frame_transform([name], (16, 24), shift=0.1)
        return [transform(frames)[0, 0] for _ in range(60)]

    image = frames[0, 0]
    flips = [torch.equal(r, image.flip(-1)) for r in results("flip")]
    assert 10 < sum(flips) < 50
    holes = [int((r == 0).sum()) for r in results("cutout")]
    assert set(holes) == {0, 10 * 10}  # of 16 by 24, a quarter
    for rolled in results("roll"):
        assert any(
            torch.equal(rolled, image.roll((dy, dx), (0, 1)))
            for dy in range(-2, 3)
            for dx in range(-2, 3)
        )


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 96, 96)])
def test_autoaugment_of_grey_and_colour(shape: tuple[int, int, int]) -> None:
    image = torch.randint(256, shape, dtype=torch.uint8)
    transform = frame_transform(["autoaugment"], shape[1:], shift=0)
    results = [transform(image) for _ in range(10)]
    assert all(r.shape == image.shape and r.dtype == torch.uint8 for r in results)
    assert any(not torch.equal(r, image) for r in results)


def recording(n: int = 500) -> Any:
    rng = np.random.default_rng(0)
    events = np.zeros(n, EVENT)
    events["x"], events["y"] = rng.integers(0, 34, (2, n))
    events["t"], events["p"] = np.sort(rng.integers(0, 300_000, n)), rng.integers(0, 2, n)
    return events


@pytest.mark.parametrize("name", OF_EVENTS)
def test_events_are_changed_by_torchs_random_numbers(name: str) -> None:
    events = recording()
    before = events.copy()
    transform = event_transform([name], (34, 34, 2))
    assert transform is not None
    numpys_state = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    results = []
    for seed in (0, 0, 1, 2, 3, 4):
        torch.manual_seed(seed)
        results.append(transform(events))
    assert (np.random.get_state()[1] == numpys_state).all()  # type: ignore[index]  # noqa: NPY002
    assert (events == before).all()
    assert np.array_equal(results[0], results[1])
    assert len({r.tobytes() for r in results}) > 2
    for result in results:
        assert (np.diff(result["t"]) >= 0).all() and len(result) <= len(events)
        for field in "xy":
            assert result[field].min() >= 0 and result[field].max() < 34


@pytest.mark.parametrize("names", [*OF_EVENTS, "drop,flip,shift,time_jitter"])
def test_training_alone_sees_changed_events(names: str) -> None:
    data = SpikingDataModule(DataConfig(T=3, augment=names))
    plain = SpikingDataModule(DataConfig(T=3, augment=""))
    trained, still = data.train_dataloader().dataset, plain.train_dataloader().dataset
    assert any(not torch.equal(trained[0, i][0], still[0, i][0]) for i in range(8))
    assert trained[0, 0][0].shape == still[0, 0][0].shape
    assert trained[0, 0][0].dtype == torch.float32
    for part in ("train", "validation", "test"):
        ours, theirs = getattr(data.splits, part), getattr(plain.splits, part)
        assert all(torch.equal(ours[i][0], theirs[i][0]) for i in range(3))


def test_no_event_left_is_an_empty_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "_OF_EVENTS", {"drop": lambda events, *_: events[:0]})
    data = SpikingDataModule(DataConfig(T=3, augment="drop"))
    frames, _ = data.train_dataloader().dataset[0, 0]
    assert frames.shape == (3, 2, 28, 28) and not frames.any()


def batches(data: SpikingDataModule, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """An epoch's first batches, seeded as the training module does."""
    torch.manual_seed(epoch)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return [batch for _, batch in zip(range(3), loader, strict=False)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_repeats_whatever_came_before(workers: int) -> None:
    options: dict[str, Any] = {
        "T": 3, "augment": "nda,drop,time_jitter", "mixup": 0.5, "num_workers": workers,
    }  # fmt: skip
    through = SpikingDataModule(DataConfig(**options))
    first, second = batches(through, 0), batches(through, 1)
    resumed = batches(SpikingDataModule(DataConfig(**options)), 1)
    for (x_seq, labels), (x_again, labels_again) in zip(second, resumed, strict=True):
        assert torch.equal(x_seq, x_again) and torch.equal(labels, labels_again)
    assert not torch.equal(first[0][0], second[0][0])


@pytest.mark.parametrize(("workers", "taken"), [(0, 5), (2, 5), (0, 37), (2, 37)])
def test_a_loader_goes_on_within_an_epoch(workers: int, taken: int) -> None:
    """As a resumed run does: its state is taken up by a new loader, of another epoch's sampler."""
    options: dict[str, Any] = {"T": 2, "augment": "nda", "mixup": 0.5, "num_workers": workers}
    loader = SpikingDataModule(DataConfig("digits", **options)).train_dataloader()
    loader.sampler.set_epoch(3)  # type: ignore[attr-defined]
    batches_of_epoch = iter(loader)
    for _ in range(taken):
        next(batches_of_epoch)
    state = loader.state_dict()  # type: ignore[attr-defined]
    torch.manual_seed(17)
    resumed = SpikingDataModule(DataConfig("digits", **options)).train_dataloader()
    resumed.load_state_dict(state)  # type: ignore[attr-defined]
    if taken == len(loader):  # nothing is left of this epoch: the next one follows
        loader.sampler.set_epoch(4)  # type: ignore[attr-defined]
        batches_of_epoch, taken = iter(loader), 0
    expected, actual = list(batches_of_epoch), list(resumed)
    assert len(expected) == len(actual) == len(loader) - taken
    for (x_seq, labels), (x_again, labels_again) in zip(expected, actual, strict=True):
        assert torch.equal(x_seq, x_again) and torch.equal(labels, labels_again)


@pytest.mark.parametrize("kinds", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}])
def test_mixed_batches(kinds: dict[str, float]) -> None:
    data = SpikingDataModule(DataConfig("digits", T=3, batch_size=16, augment="", **kinds))  # type: ignore[arg-type]
    loader = data.train_dataloader()
    x_seq, labels = next(iter(loader))
    assert x_seq.shape == (3, 16, 1, 8, 8) and x_seq.is_contiguous() and type(x_seq) is torch.Tensor
    assert labels.shape == (16, 10) and labels.dtype == torch.float32
    torch.testing.assert_close(labels.sum(1), torch.ones(16))
    assert (x_seq == x_seq[:1]).all()  # all time steps alike
    assert any(((y > 0).sum(1) > 1).any() for _, y in loader)
    torch.nn.functional.cross_entropy(torch.zeros(16, 10), labels)
    assert next(iter(data.val_dataloader()))[1].shape == (16,)


def test_mixup_mixes_frames_and_labels_in_the_same_proportion() -> None:
    batch = [(torch.full((2, 1, 4, 4), float(i)), i) for i in range(5)]
    x_seq, labels = Mixing(1.0, 0.0, 5)(batch)
    torch.testing.assert_close(x_seq[0, :, 0, 0, 0], labels @ torch.arange(5.0))


def test_cutmix_pastes_as_much_as_the_labels_say() -> None:
    batch = [(torch.full((2, 1, 20, 20), float(i)), i) for i in range(5)]
    for _ in range(5):
        x_seq, labels = Mixing(0.0, 1.0, 5)(batch)
        own = torch.stack([(x_seq[1, i] == i).float().mean() for i in range(5)])
        torch.testing.assert_close(own, labels.diagonal())


@pytest.mark.parametrize("name", OF_EVENTS)
@pytest.mark.parametrize("begin", [0, 1_600_000_000_000_000])
def test_changes_do_not_depend_on_where_a_recording_begins(name: str, begin: int) -> None:
    """And so `event_drop` leaves about a quarter unchanged, `time_jitter` leaves nothing out."""
    events = recording()
    late = events.copy()
    late["t"] += begin
    transform = event_transform([name], (34, 34, 2))
    assert transform is not None
    unchanged = 0
    for seed in range(200):
        results = []
        for given in (events, late):
            torch.manual_seed(seed)
            results.append(transform(given))
        results[1]["t"] -= begin
        np.testing.assert_array_equal(results[0], results[1])
        unchanged += np.array_equal(results[0], events)
        assert name != "time_jitter" or len(results[0]) == len(events)
    assert 30 < unchanged < 70 if name == "event_drop" else unchanged < 10


def test_jitter_moves_events_as_often_one_way_as_the_other() -> None:
    events = np.repeat(recording(1), 20_000)
    events["x"], events["y"] = 17, 17
    for name, field, spread in (
        ("spatial_jitter", "x", 0.5), ("spatial_jitter", "y", 0.5), ("time_jitter", "t", 1e6)
    ):  # fmt: skip
        transform = event_transform([name], (34, 34, 2))
        assert transform is not None
        moved = transform(events)[field].astype(float) - events[field]
        assert abs(moved.mean()) < 0.02 * spread**0.5
        assert 0.9 * spread < moved.var() < 1.2 * spread  # rounding adds a twelfth


@pytest.mark.parametrize(
    "options",
    [
        {"name": "digits", "encoder": "poisson", "augment": ""},
        {"augment": "event_drop,shift"},
        {"augment": "nda,time_jitter"},
    ],
    ids=["poisson", "events", "frames"],
)
def test_samples_are_drawn_anew_in_every_epoch_whatever_their_batch(
    options: dict[str, Any],
) -> None:
    def drawn(epoch: int, batch_size: int, workers: int = 0) -> dict[int, torch.Tensor]:
        config = DataConfig(T=2, batch_size=batch_size, num_workers=workers, **options)
        loader = SpikingDataModule(config).train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        indices = [index for _, index in loader.sampler]
        found: dict[int, torch.Tensor] = {}
        for x_seq, _ in loader:
            for frames in x_seq.unbind(1):
                found[indices[len(found)]] = frames
            if len(found) >= 96:
                break
        return found

    first = drawn(1, 1)
    for other in (drawn(1, 7), drawn(1, 32, 2)):
        assert {*first} <= {*other}
        assert all(torch.equal(other[index], frames) for index, frames in first.items())
    config = DataConfig(T=2, batch_size=1, **options)
    samples = SpikingDataModule(config).train_dataloader().dataset
    epochs = [[samples[epoch, index][0] for index in first] for epoch in (0, 1, 2)]
    repeated = sum(
        all(torch.equal(x, one) for x in more) for one, *more in zip(*epochs, strict=True)
    )
    assert repeated < 0.1 * len(first)
    assert all(map(torch.equal, epochs[1], first.values()))


@pytest.mark.parametrize(("steps", "left"), [(1, 99), (2, 100)])
def test_a_last_batch_of_one_sample_is_left_out_where_there_is_one_step(
    steps: int, left: int
) -> None:
    """Batch norm can't train on one value a channel; another sample is left out in each epoch."""
    samples = Subset(SpikingDataModule(DataConfig("digits")).splits.train, range(100))
    for replicas in (1, 3):
        size = 33 if replicas == 1 else 11
        missing = []
        for epoch in range(4):
            seen: list[int] = []
            for rank in range(replicas):
                options = {"num_replicas": replicas, "rank": rank, "seed": 3}
                sampler = Sampler(samples, size, steps == 1, **options)
                sampler.set_epoch(epoch)
                own = [index for _, index in sampler]
                assert len(own) == len(sampler) and len(own) % size == (0 if steps == 1 else 1)
                seen += own
            assert len({*seen}) == left
            missing.append({*range(100)} - {*seen})
        assert steps == 2 or len(set.union(*missing)) > 1
    assert len(Sampler(samples, 1, True, num_replicas=1, rank=0)) == 100
