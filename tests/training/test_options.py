"""A whole run is checked before anything is made, and is then said to be refused in a line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers import command

DIGITS = ("--data=digits", "--data.T=2", "--data.batch_size=256", "--model.widths=[4]")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.neuron_options={a: 1}", "unknown option of the neuron lif 'a'"),
        ("--model.neuron_options={v_treshold: 0.5}", "Did you mean v_threshold?"),
        ("--model.neuron_options={detach_reset: 0.5}", "must be true or false"),
        ("--model.width=1e300", "`width` (=1e+300) must be at most 64"),
        ("--model.widths=[10000000]", "parameters, more than this machine's memory"),
        ("--model.spike=../..", "'../..' must read module.Name"),
        ("--model.spike=hatf", "Did you mean htaf?"),
        ("--model.learning_rate=1e300", "`learning_rate` (=1e+300)"),
        ("--model.learning_rate=nan", "model.learning_rate"),
        ("--data.num_workers=-1", "`num_workers` (=-1)"),
        ("--data.T=16384 --data.batch_size=65536", "too much for this machine's memory"),
        ("--data.root=/tmp", "`root` (=/tmp) does not apply to digits"),
        ("--data.mixup=nan", "data.mixup"),
        (
            "--trainer.enable_checkpointing=false",
            "unrecognized arguments",
        ),
        ("--trainer.default_root_dir=/tmp", "unrecognized arguments"),
        (
            "--trainer.strategy=ddp_spawn",
            "unknown trainer.strategy 'ddp_spawn'; the known ones are ddp",
        ),
        ("--trainer.strategy=deepspeed", "Lightning refuses"),
        ("--trainer.devices=0", "`trainer.devices` (=0)"),
        ("--trainer.profiler=abc", "Literal['simple', 'advanced', 'pytorch']"),
        ("--trainer.max_time=-1", "`trainer.max_time` (=-1) must read DD:HH:MM:SS"),
        ("--trainer.max_epochs=0", "`trainer.max_epochs` (=0)"),
        ("--trainer.max_epoch=3", "Did you mean --trainer.max_epochs?"),
        ("--trainer.accumulate_grad_batches=-1", "`trainer.accumulate_grad_batches` (=-1)"),
        ("--trainer.gradient_clip_val=-1", "`trainer.gradient_clip_val` (=-1.0)"),
        ("--trainer.limit_val_batches=0", "`trainer.limit_val_batches` (=0)"),
        ("--trainer.check_val_every_n_epoch=13", "no network is validated"),
        ("--checkpoint.mode=abc", "Literal['max', 'min']. Got value: abc"),
        ("--checkpoint.monitor=nonsense", "Got value: nonsense"),
        ("--checkpoint.save_top_k=0", "unrecognized arguments"),
        ("--ckpt_path=none.ckpt", "no checkpoint none.ckpt"),
        ("--seed=-1", "`seed` (=-1)"),
        ("--save_steps=0", "`save_steps` (=0) must be at least 1"),
        (
            "--model.recipe=surrogate_free --trainer.precision=16-mixed",
            "`trainer.precision` (=16-mixed) has no numbers as small",
        ),
        ("--ema=1", "`ema` (=1.0) must lie in (0, 1)"),
        ("--trainer.max_epochs=-1", "need an end"),
    ],
)
def test_a_refused_run_leaves_no_folder(
    option: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("fit", *DIGITS, *re.split(" (?=--)", option), check=False)
    assert done.returncode and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "fault of htaf-snn" not in done.stderr
    assert len(done.stderr.splitlines()) < 10 and not list(tmp_path.iterdir())


def test_null_is_no_spike_function(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: {spike: null}\n")
    done = command("fit", "--config", tmp_path / "c.yaml", "--out", tmp_path / "o", check=False)
    assert done.returncode == 1 and "`spike` (=None) must be a string" in done.stderr


def test_another_neurons_option(tmp_path: Path) -> None:
    done = command(
        "fit", *DIGITS, "--model.neuron=plif", "--model.neuron_options={tau: 3.0}",
        "--out", tmp_path / "out", check=False,
    )  # fmt: skip
    assert "neuron plif 'tau'; the known ones are init_tau" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--spikes", "htaf,htaf:alpha0=0.67"), "htaf:alpha0=0.67 is the same as htaf"),
        (("--spikes", "atan,atan@learning_rate=3e-3"), "is the same as atan"),
        (("--data_folder", "/tmp"), "without --preset, name the folder with --data.root"),
        (("--spikes", "htaf@learning_rate=["), "'htaf@learning_rate=['"),
        (("--spikes", "htaf:mode=$a"), "must have letters"),
    ],
)
def test_compare_refuses_before_any_work(
    options: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = command("compare", *DIGITS, *options, "--out", tmp_path / "out", check=False)
    assert done.returncode == 1 and message in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_command_gets_the_nearest() -> None:
    assert "Did you mean fit?" in command("fitt", check=False).stderr
