"""Where a loader stands, with any number of workers and either way that processes start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from htaf_snn.data import DataConfig, SpikingDataModule

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


SPAWN = """
import multiprocessing, sys
import torch
from htaf_snn.data import DataConfig, SpikingDataModule

def main():
    if sys.argv[1] != "None":
        multiprocessing.set_start_method(sys.argv[1])
    workers = 0 if sys.argv[1] == "None" else 1
    for name, augment, root in (
        ("digits_events", "drop,event_drop,time_jitter,spatial_jitter,shift,flip,rotate", None),
    ):
        data = SpikingDataModule(DataConfig(
            name, root, 2, 256, augment=augment, num_workers=workers, mixup=0.2, cutmix=0.2
        ))
        for loader in (data.train_dataloader(),):
            for x, y in loader:
                print(x.double().sum().item(), y.double().sum().item())

if __name__ == "__main__":
    main()
"""


def test_spawned_workers_give_the_same_batches(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SPAWN)
    printed = []
    for method in ("None", "spawn"):
        done = subprocess.run(
            [sys.executable, script, method], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed[0].count("\n") == 5
    assert printed[1] == printed[0]


KILLED = """
import sys, time
from pathlib import Path
from htaf_snn.data.cache import map_in_order

def wait(number):
    import os
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(0.2)
    return number

list(map_in_order(wait, range(10_000), "", "", 2))
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_build_leaves_no_process(by: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    os.kill(process.pid, by)
    process.wait()
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        assert not any(map(alive, workers))
    finally:
        for worker in filter(alive, workers):
            os.kill(worker, signal.SIGKILL)
