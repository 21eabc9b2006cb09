"""Signals stop a training with the exit code that a shell expects, and say how to go on."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from htaf_snn.checkpoint_io import read_checkpoint
from htaf_snn.cli import main
from htaf_snn.process import Stopped, advising, raise_if_asked, stoppable
from tests.helpers import command, forked

OPTIONS = (
    "--data=digits", "--data.T=2", "--data.batch_size=64", "--model.widths=[4]",
)  # fmt: skip
FIT = ("fit", *OPTIONS, "--trainer.enable_progress_bar=false", "--trainer.max_epochs=500")


def started(log: Path, *arguments: str | Path) -> BaseProcess:
    return forked(log, main, list(map(str, arguments)))


def wait_for(condition: Path, process: BaseProcess) -> None:
    for _ in range(600):
        if condition.exists() or not process.is_alive():
            return
        time.sleep(0.1)
    raise AssertionError(f"no {condition}")


def stopped(process: BaseProcess, number: signal.Signals, log: Path) -> str:
    """Stops the process; returns what it said."""
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    return log.read_text()


def test_a_stop_outlives_what_the_clean_up_raises() -> None:
    with pytest.raises(Stopped, match="go on") as stop, stoppable(), advising(lambda: "go on"):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise RuntimeError("a library's, while it cleans up")
    assert stop.value.code == 143


def test_a_stop_outlives_code_that_ignores_it() -> None:
    with pytest.raises(Stopped), stoppable():
        with contextlib.suppress(BaseException):  # as Python does within __del__
            signal.raise_signal(signal.SIGINT)
        raise_if_asked()
    with pytest.raises(RuntimeError, match="another"), stoppable(), advising(lambda: "go on"):
        raise RuntimeError("another")


@pytest.mark.slow
def test_fit_is_the_only_writer_and_says_where_it_stopped(tmp_path: Path) -> None:
    number, code = signal.SIGINT, 130
    out = tmp_path / "out"
    process = started(tmp_path / "log", *FIT, "--out", out)
    wait_for(out / "checkpoints/last.ckpt", process)
    second = command(*FIT, "--out", out, "--overwrite", check=False)
    assert second.returncode == 1 and "another process is writing into" in second.stderr
    assert process.is_alive()
    start = time.monotonic()
    err = stopped(process, number, tmp_path / "log")
    assert process.exitcode == code, err
    assert time.monotonic() - start < 10
    last = err.strip().splitlines()[-1]
    assert last.startswith("htaf-snn fit: stopped at step ") and "--ckpt_path last" in last
    assert number.name in last and "Traceback" not in err
    assert read_checkpoint(out / "checkpoints/last.ckpt")["global_step"] > 0
    assert not [p for p in out.rglob("*") if "partial" in p.name or p.name == ".lock"]


@pytest.mark.slow
def test_compare_says_how_to_go_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = started(
        log, "compare", *OPTIONS, "--epochs=300", "--spikes=htaf,atan", "--out", tmp_path
    )
    wait_for(tmp_path / ".lock", process)
    time.sleep(1)
    err = stopped(process, signal.SIGTERM, log)
    assert process.exitcode == 143, err
    assert f"the same command goes on, with --out {tmp_path}" in err.strip().splitlines()[-1]


@pytest.mark.slow
def test_the_best_is_of_an_epoch_after_the_hardening(tmp_path: Path) -> None:
    done = command(
        "fit", *OPTIONS, "--trainer.max_epochs=5", "--trainer.enable_progress_bar=false",
        "--model.hardening=[0.2,0.8]", "--checkpoint.monitor=train_loss", "--checkpoint.mode=max",
        "--out", tmp_path,
    )  # fmt: skip
    # The loss is greatest at first, but the epochs 0 to 2 do not compete.
    assert read_checkpoint(tmp_path / "checkpoints/best.ckpt")["epoch"] >= 3
    assert "best.ckpt is of epoch" in done.stdout
    assert "after the end of the hardening" in done.stdout
    assert torch.isfinite(read_checkpoint(tmp_path / "checkpoints/last.ckpt")["state_dict"]
                          ["net.read_out.1.weight"]).all()  # fmt: skip
