"""What a person sees of a training: a bar of 80 columns, or lines in a log."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from htaf_snn import cli
from htaf_snn.surrogates.spike_function import say_once
from htaf_snn.training import progress
from htaf_snn.training.fit import _to_take_less
from tests.helpers import command

DIGITS = ["--data=digits", "--data.T=2", "--data.batch_size=128", "--model.widths=[4]"]


def test_a_bar_of_80_columns_has_the_accuracies_and_no_line_tears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    say_once.cache_clear()
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        cli.main(
            ["fit", *DIGITS, "--trainer.max_epochs=2", "--trainer.enable_progress_bar=true",
             "--trainer.enable_model_summary=false", f"--out={tmp_path}"]
        )  # fmt: skip
    lines = shown.getvalue().split("\n")
    states = [state for line in lines for state in line.split("\r")]
    bars = [state for state in states if state.startswith("epoch ")]
    assert max(map(len, bars)) <= 80 and not any(bar.startswith("epoch 0") for bar in bars)
    assert any(b.startswith("epoch 2 of 2 100%") and "train_acc=" in b and "val_acc=" in b
               for b in bars)  # fmt: skip
    (said,) = (line for line in lines if "runs 'cpu'" in line)
    assert said.split("\r")[-1].startswith("backend 'auto'")


def test_a_log_has_a_line_an_epoch(tmp_path: Path) -> None:
    done = command(
        "compare", *DIGITS, "--spikes=htaf,atan", "--epochs=2", "--out", tmp_path,
    )  # fmt: skip
    log = done.stderr
    assert "\r" not in log and len(log) < 5000
    for name in ("htaf", "atan"):
        for epoch in (1, 2):
            assert log.count(f"digits, {name}, seed 0: epoch {epoch} of 2  train_loss") == 1
    assert "\r" not in done.stdout


def test_large_frames_of_events_can_be_made_smaller() -> None:
    def remedy(kind: str, side: int) -> str:
        data: Any = SimpleNamespace(
            in_shape=(2, side // 2, side), data_set=SimpleNamespace(kind=kind)
        )
        return _to_take_less(data)

    assert "--data.downsample 64 takes about a quarter" in remedy("events", 128)
    assert "downsample" not in remedy("events", 34) + remedy("images", 128)


@pytest.mark.parametrize(("seconds", "told"), [(0.5, False), (2.0, True)])
def test_a_long_epoch_is_told_by_its_first_steps(
    seconds: float, told: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    trainer: Any = SimpleNamespace(num_training_batches=100, is_global_zero=True)
    callback = progress.FirstEpochTime("; the remedy")
    with caplog.at_level(logging.INFO, logger="htaf_snn"):
        for step in range(20):
            now[0] += 60 if step == 0 else seconds  # the first compiles
            callback.on_train_batch_end(trainer)
    assert [r.getMessage() for r in caplog.records] == told * [
        "an epoch will take about 3 min on this machine (100 steps of 2 s); the remedy"
    ]
