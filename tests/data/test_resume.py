"""Where a loader stands, with any number of workers, and what is left of processes."""

from __future__ import annotations

import functools
import multiprocessing
import os
import pickle
import signal
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch

from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.data.cache import map_in_order
from htaf_snn.data.loader import TrainLoader

SMALL: dict[str, Any] = {"T": 1, "batch_size": 128, "mixup": 0.2}


ALL = [(epoch, stop) for epoch in range(2) for stop in range(1, 11)]  # 10 batches an epoch


def loader(name: str, workers: int, **options: Any) -> Any:
    return SpikingDataModule(
        DataConfig(name, num_workers=workers, **SMALL | options)
    ).train_dataloader()


def sums(batches: Any) -> list[float]:
    return [float((x.double() * torch.arange(x.numel()).view_as(x)).sum()) for x, _ in batches]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_goes_on_after_any_batch_of_any_epoch(workers: int) -> None:
    whole = loader("digits", 0)
    epochs = []
    for epoch in range(3):
        whole.sampler.set_epoch(epoch)
        epochs.append(sums(whole))
    assert len(set(map(tuple, epochs))) == 3 and len(whole) == 10
    for epoch, stop in ((0, 4), (1, 3), (1, 10)) if workers else ALL:
        interrupted = loader("digits", workers)
        for before in range(epoch):
            interrupted.sampler.set_epoch(before)
            sums(interrupted)  # earlier epochs, as persistent workers have run them
        interrupted.sampler.set_epoch(epoch)
        batches = iter(interrupted)
        for _ in range(stop):
            next(batches)
        state = interrupted.state_dict()
        del batches, interrupted
        resumed = loader("digits", workers)
        resumed.load_state_dict(state)
        if stop < len(whole):
            resumed.sampler.set_epoch(epoch)  # as Lightning does
            assert sums(resumed) == epochs[epoch][stop:]
        following = epoch + 1
        if following < 3:
            resumed.sampler.set_epoch(following)
            assert sums(resumed) == epochs[following]


def test_refuses_another_place() -> None:
    state = loader("digits", 0).state_dict()
    with pytest.raises(ValueError, match="with 128 batch_size a process, here there are 64"):
        loader("digits", 0, batch_size=64).load_state_dict(state)
    with pytest.raises(ValueError, match="by an earlier version"):
        loader("digits", 0).load_state_dict({"_snapshot": 1})


def test_what_spawned_workers_get_by_pickle_gives_the_same_batches() -> None:
    augment = "drop,event_drop,time_jitter,spatial_jitter,shift,flip,roll,rotate,nda"
    options: dict[str, Any] = {"T": 2, "batch_size": 256, "augment": augment, "cutmix": 0.2}
    whole = loader("digits_events", 0, **options)
    sent = bytes(ForkingPickler.dumps((whole.dataset, whole.collate_fn)))
    assert len(sent) < 200_000  # frames and events are mapped anew, not copied
    dataset, collate = pickle.loads(sent)
    same = TrainLoader(dataset, 256, sampler=whole.sampler, collate_fn=collate)
    batches = sums(whole)
    assert len(batches) == 5 and batches == sums(same)


def wait(folder: Path, number: int) -> int:
    (folder / str(os.getpid())).touch()
    time.sleep(0.2)
    return number


def build(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: range(2), raising=False)
        list(map_in_order(functools.partial(wait, folder), range(10_000), "", ""))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_build_leaves_no_process(by: signal.Signals, tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=build, args=(tmp_path,))
    process.start()
    assert process.pid is not None
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    os.kill(process.pid, by)
    process.join()
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        assert not any(map(alive, workers))
    finally:
        for worker in filter(alive, workers):
            os.kill(worker, signal.SIGKILL)
