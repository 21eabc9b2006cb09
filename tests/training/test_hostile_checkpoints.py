"""Checkpoints that somebody crafted, or that a disk damaged."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from htaf_snn.checkpoint_io import read_checkpoint
from htaf_snn.training import SpikingClassifier
from htaf_snn.training.use import load
from tests.helpers import command

Content = dict[str, Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    out = tmp_path_factory.mktemp("fit") / "out"
    command(
        "fit", "--data=digits", "--data.T=2", "--data.batch_size=256", "--model.widths=[4]",
        "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--out", out,
    )  # fmt: skip
    return out / "checkpoints/last.ckpt"


@pytest.fixture
def crafted(trained: Path, tmp_path: Path) -> Callable[[Callable[[Content], object]], Path]:
    def craft(change: Callable[[Content], object]) -> Path:
        content = read_checkpoint(trained)
        change(content)
        torch.save(content, tmp_path / "crafted.ckpt")
        return tmp_path / "crafted.ckpt"

    return craft


def refused(checkpoint: Path, message: str, *options: str | Path) -> None:
    for name in ("test", "gap", "calibrate"):
        done = command(name, checkpoint, *options, check=False)
        assert done.returncode == 1, name
        assert message in done.stderr and "fault of htaf-snn" not in done.stderr


@pytest.mark.parametrize("key", ["hyper_parameters", "datamodule_hyper_parameters"])
def test_no_setting_runs_a_command(crafted: Any, tmp_path: Path, key: str) -> None:
    command_ = {
        "class_path": "subprocess.Popen", "init_args": {"args": ["touch", str(tmp_path / "ran")]},
    }  # fmt: skip
    for name in read_checkpoint(crafted(lambda _: None))[key]:
        for value in (command_, {"tau": command_}):

            def put(content: Content, name: str = name, value: Any = value) -> None:
                content[key][name] = value

            done = command("test", crafted(put), check=False)
            assert done.returncode == 1 and "crafted.ckpt can't be read" in done.stderr, name
    assert not (tmp_path / "ran").exists()


def test_a_yaml_runs_no_command(tmp_path: Path) -> None:
    text = (
        "data: {name: digits}\nmodel: {neuron_options: {tau: {class_path: subprocess.Popen, "
        f"init_args: {{args: [touch, {tmp_path / 'ran'}]}}}}}}}}\n"
    )
    (tmp_path / "c.yaml").write_text(text)
    done = command("fit", "--config", tmp_path / "c.yaml", "--out", tmp_path / "o", check=False)
    assert done.returncode and "neuron_options" in done.stderr
    assert not (tmp_path / "ran").exists() and not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("key", "what", "base"),
    [("spike", "spike function", "HTAFSpike"), ("neuron", "neuron", "LIFNode")],
)
def test_a_class_is_not_imported_unless_allowed(
    key: str, what: str, base: str, crafted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_module.py").write_text(
        f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        f"from htaf_snn import {base}\n"
        f"class Mine({base}): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "evil_module", raising=False)

    def named(path: str) -> Path:
        return Path(crafted(lambda content: content["hyper_parameters"].update({key: path})))

    refused(named("evil_module.Mine"), "if you trust it, add --allow evil_module")
    refused(named("subprocess.Popen"), f"subprocess.Popen, which is not a {what}")
    refused(named("venv.__main__.X"), "venv.__main__")
    assert not (tmp_path / "ran").exists()
    assert load(named("evil_module.Mine"), "evil_module").hparams[key] == "evil_module.Mine"
    assert (tmp_path / "ran").exists()
    load(named("evil_module.Mine"))  # imported by now


def test_settings_must_be_there(crafted: Any) -> None:
    without = crafted(lambda content: content.pop("datamodule_hyper_parameters"))
    refused(without, "it lacks 'datamodule_hyper_parameters'")
    refused(crafted(lambda c: c["hyper_parameters"].pop("norm")), "there is no entry of its")
    refused(
        crafted(lambda c: c["datamodule_hyper_parameters"].update(name="digits_events")),
        "was trained on frames (1, 8, 8)",
    )
    refused(crafted(lambda c: c["sharpness_schedule"].update(total_steps=0)), "`total_steps` (=0)")


def test_weights_that_are_not_finite_are_refused(crafted: Any) -> None:
    def put(content: Content) -> None:
        next(iter(content["state_dict"].values()))[0] = torch.nan

    refused(crafted(put), "a tensor in its state_dict is not finite")


def test_a_tensor_larger_than_its_file_is_refused(crafted: Any) -> None:
    huge = torch.zeros(1).expand(10**12)
    refused(crafted(lambda c: c["state_dict"].update(huge=huge)), "larger than the file")
    refused(crafted(lambda c: c.update(extra=bytearray(10))), "it names")


def test_no_flipped_bit_changes_the_weights(trained: Path, tmp_path: Path) -> None:
    whole = trained.read_bytes()
    expected = read_checkpoint(trained)["state_dict"]
    draw = random.Random(0)
    damaged = tmp_path / "damaged.ckpt"
    for _ in range(200):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        damaged.write_bytes(data)
        try:
            found = read_checkpoint(damaged)["state_dict"]
        except ValueError as error:
            assert "damaged.ckpt can't be read" in str(error)
            continue
        assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_test_says_which_epoch(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="htaf_snn"):
        model = load(trained)
    assert isinstance(model, SpikingClassifier)
    assert "last.ckpt: the weights of epoch 1, step 5" in caplog.text


def test_going_on_from_a_crafted_checkpoint_is_refused(
    crafted: Any, trained: Path, tmp_path: Path
) -> None:
    changes: list[Callable[[Content], object]] = [
        lambda c: c.update(loops=3),
        lambda c: c.update(hyper_parameters=[1]),
        lambda c: c.update(optimizer_states=[{}]),
        lambda c: c.update(callbacks={"a": 1, 2: 3}),
        lambda c: c["sharpness_schedule"].update(last_step="x"),
        lambda c: c.update(global_step=None),
        lambda c: c.pop("state_dict"),
    ]
    for number, change in enumerate(changes):
        done = command(
            "fit", "--data=digits", "--data.T=2", "--data.batch_size=256", "--model.widths=[4]",
            "--trainer.max_epochs=2", "--trainer.enable_progress_bar=false", "--out",
            tmp_path / "out", "--ckpt_path", crafted(change), check=False,
        )  # fmt: skip
        if number in (3, 5):  # what a callback of none, or the step beside the loops', would hold
            assert "fault of htaf-snn" not in done.stderr
            continue
        assert done.returncode == 1 and "can't go on from the checkpoint" in done.stderr, number
        assert not (tmp_path / "out").exists()
