"""What a killed process, a full disk, a damaged file or a dying worker leaves behind."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from htaf_snn.checkpoint_io import WholeCheckpointIO, check_writable, read_checkpoint
from htaf_snn.cli import main
from htaf_snn.data import loader
from htaf_snn.training import SpikingClassifier
from htaf_snn.training.use import load
from tests.helpers import command, forked

FIT = [
    "fit", "--data=digits", "--data.T=2", "--data.batch_size=64", "--model.widths=[4]",
    "--model.dropout=0.1", "--model.hardening=[0.2,0.7]", "--trainer.max_epochs=2",
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
]  # fmt: skip


def killed_at(step: int, arguments: list[str]) -> None:
    """Runs a command that is killed when that step begins."""
    training_step, left = SpikingClassifier.training_step, [step]

    def counted(self: SpikingClassifier, *batch: Any) -> torch.Tensor:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return training_step(self, *batch)

    SpikingClassifier.training_step = counted  # type: ignore[method-assign,assignment]
    main(arguments)


def dying(arguments: list[str]) -> None:
    """Runs a command whose data loader's workers die."""
    loader.Drawn.__getitems__ = lambda *_: os._exit(9)  # type: ignore[method-assign]
    main(arguments)


def run(log: Path, function: Callable[..., object], *arguments: object) -> int | None:
    """Runs a function in a process of its own; what nothing kills runs in this one."""
    process = forked(log, function, *arguments)
    process.join(300)
    return process.exitcode


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # The sum's order, so the last bit, depends on how many there are.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(out: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = read_checkpoint(out / "checkpoints/last.ckpt")["state_dict"]
    return {name: value for name, value in state.items() if name.startswith("net.")}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fit") / "out"
    command(*FIT, f"--out={out}")
    return out


@pytest.mark.slow
def test_resuming_after_the_last_step_of_an_epoch_skips_none(
    uninterrupted: Path, tmp_path: Path
) -> None:
    arguments = [*FIT, "--save_steps=19", f"--out={tmp_path / 'out'}"]  # 19 steps are an epoch
    assert run(tmp_path / "log", killed_at, 20, arguments) == -signal.SIGKILL
    command(*arguments, "--ckpt_path=last")
    resumed = weights(tmp_path / "out")
    for name, value in weights(uninterrupted).items():
        assert torch.equal(value, resumed[name]), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "killed"),
    [
        # 19 batches, 7 steps an epoch; the first batch of the second epoch is no whole step.
        (("--trainer.accumulate_grad_batches=3", "--save_steps=1"), 20 + 2),
        # Validations after batches 5, 10 and 15, a checkpoint with each; the first is "best".
        (
            ("--trainer.val_check_interval=0.3", "--save_steps=5", "--checkpoint.monitor=val_loss"),
            13,
        ),
    ],
)
def test_going_on_repeats_gradients_and_the_best_score(
    tmp_path: Path, options: tuple[str, ...], killed: int
) -> None:
    whole = [
        *FIT,
        *options,
        "--checkpoint.mode=max",
        "--model.hardening=[0,0]",
        f"--out={tmp_path / 'whole'}",
    ]
    expected = command(*whole)
    out = tmp_path / "resumed"
    arguments = [*whole[:-1], f"--out={out}"]
    assert run(tmp_path / "log", killed_at, killed, arguments) == -signal.SIGKILL
    done = command(*arguments, "--ckpt_path=last")
    assert done.stdout.partition("\n")[0] == expected.stdout.partition("\n")[0]
    resumed = weights(out)
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(value, resumed[name]), name


@pytest.mark.parametrize("damage", ["cut short", "empty", "no dictionary"])
def test_a_damaged_checkpoint_is_refused(uninterrupted: Path, tmp_path: Path, damage: str) -> None:
    whole = (uninterrupted / "checkpoints/last.ckpt").read_bytes()
    path = tmp_path / "damaged.ckpt"
    path.write_bytes({"cut short": whole[:-2000], "empty": b""}.get(damage, whole))
    if damage == "no dictionary":
        torch.save(torch.ones(3), path)
    with pytest.raises(ValueError, match=r"damaged\.ckpt can't be read as a checkpoint"):
        load(path)


def test_going_on_from_a_damaged_or_other_checkpoint_is_refused(
    uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = uninterrupted / "checkpoints/last.ckpt"
    (tmp_path / "cut.ckpt").write_bytes(last.read_bytes()[:-2000])
    for options, message in (
        ([f"--ckpt_path={tmp_path / 'cut.ckpt'}"], "can't be read as a checkpoint"),
        ([f"--ckpt_path={last}", "--model.widths=[8]"], "another network: its widths is"),
    ):
        with pytest.raises(SystemExit):
            main([*FIT, f"--out={tmp_path / 'out'}", *options])
        assert message in capsys.readouterr().err


def test_a_malicious_checkpoint_runs_nothing(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Malicious()}, tmp_path / "bad.ckpt")
    for read in (load, read_checkpoint, WholeCheckpointIO().load_checkpoint):
        with pytest.raises(ValueError, match=r"bad\.ckpt can't be read"):
            read(tmp_path / "bad.ckpt")
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path: Path) -> None:
    io, path = WholeCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": torch.ones(10)}, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # of a file, as a full disk would
    try:
        with pytest.raises(OSError, match=r"last\.ckpt could not be written: .*--ckpt_path=last"):
            io.save_checkpoint({"step": torch.ones(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert torch.equal(io.load_checkpoint(path)["step"], torch.ones(10))
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_folder_that_cannot_be_written_is_found_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"can't write into .*--out"):
        check_writable(tmp_path / "file" / "out")
    with pytest.raises(SystemExit):
        main([*FIT, f"--out={tmp_path / 'file' / 'out'}"])
    assert "can't write into" in capsys.readouterr().err


@pytest.mark.slow
def test_a_worker_that_dies_is_an_error_in_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = [*FIT, "--data.num_workers=1", f"--out={tmp_path / 'out'}"]
    assert run(log, dying, arguments) == 1
    said = log.read_text()
    assert "worker" in said and "exited unexpectedly" in said and "Traceback" not in said
