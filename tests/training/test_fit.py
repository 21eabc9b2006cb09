"""`htaf-snn fit`, `test` and `predict`, as commands."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from htaf_snn.checkpoint_io import read_checkpoint
from htaf_snn.data import SpikingDataModule
from htaf_snn.data.digits_events import encode
from htaf_snn.training import ModelConfig, SpikingClassifier
from htaf_snn.training.fit import _Best
from tests.helpers import command, new_process

SMALL = ["--data.T=2", "--data.batch_size=128", "--model.widths=[4]"]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    found: dict[str, torch.Tensor] = state["state_dict"]
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A finished run of three epochs on static digits."""
    out = tmp_path_factory.mktemp("fit") / "out"
    log = out.with_name("log")
    new_process(log, "fit", "--data=digits", *SMALL, "--trainer.max_epochs=3", "--out", out)
    return out


def test_writes_logs_configuration_and_checkpoints(trained: Path) -> None:
    files = {str(p.relative_to(trained)) for p in trained.rglob("*") if p.is_file()}
    assert {"config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= files
    assert any("tfevents" in name for name in files)
    header, *rows = (trained / "csv/version_0/metrics.csv").read_text().splitlines()
    assert {"train_loss_step", "train_accuracy", "val_loss", "val_accuracy"} <= set(
        header.split(",")
    )
    epochs = {row.split(",")[header.split(",").index("epoch")] for row in rows}
    assert epochs == {"1", "2", "3"}


def test_a_seed_repeats_a_run_to_the_bit_and_a_file_replaces_options(
    trained: Path, tmp_path: Path
) -> None:
    options = ("--config", trained / "config.yaml", "--out", tmp_path / "again")
    new_process(tmp_path / "log", "fit", *options)
    first, again = (weights(o / "checkpoints/last.ckpt") for o in (trained, tmp_path / "again"))
    for key, value in first.items():
        assert torch.equal(value, again[key]), key
    command(
        "fit", "--config", trained / "config.yaml", "--out", tmp_path / "other", "--seed=1",
        "--trainer.max_epochs=1",
    )  # fmt: skip
    other = weights(tmp_path / "other/checkpoints/last.ckpt")
    assert any(not torch.equal(v, other[k]) for k, v in first.items())


def test_nothing_that_is_there_is_replaced_unasked(trained: Path, tmp_path: Path) -> None:
    once = ("--data=digits", *SMALL, "--trainer.max_epochs=1")
    out = tmp_path / "out"
    shutil.copytree(trained / "checkpoints", out / "checkpoints")
    best, last = out / "checkpoints/best.ckpt", out / "checkpoints/last.ckpt"
    before = last.read_bytes()
    for name in ("last.onnx", "last-step.onnx", "last.py", "best.pt", "last-calibrated.ckpt"):
        (out / "checkpoints" / name).write_text("a lab's own")
    refused: list[tuple[tuple[str | Path, ...], str]] = [
        (("fit", *once, "--out", out), f"{best} is there already"),
        (("fit", *once, "--out", out, "--ckpt_path", trained / "checkpoints/last.ckpt"), "already"),
        (("fit", *once, "--out", tmp_path / "new", "--ckpt_path=last"), "no checkpoint"),
        (("export", last, "--format=onnx"), f"{last.with_suffix('.onnx')} is there already"),
        (("export", last, "--format=onnx", "--step"), "last-step.onnx is there already"),
        (("export", last, "--format=spikingjelly"), "last.py is there already"),
        (("export", best, "--format=spikingjelly"), "best.pt is there already"),
        (("calibrate", last), "last-calibrated.ckpt is there already"),
    ]
    for arguments, message in refused:
        done = command(*arguments, check=False)
        assert done.returncode == 1 and message in done.stderr
        assert "--overwrite" in done.stderr or "leave it out to begin anew" in done.stderr
    assert last.read_bytes() == before and not (tmp_path / "new").exists()
    command("fit", *once, "--out", out, "--overwrite")
    assert read_checkpoint(last)["epoch"] == 0
    exported = command("export", last, "--format=spikingjelly", "--overwrite").stdout
    assert exported.endswith(
        f"wrote                {last.with_suffix('.pt')}, {out}/checkpoints/last.py\n"
    )
    assert last.with_suffix(".onnx").read_text() == "a lab's own"


def test_of_equally_good_epochs_the_last_is_best(tmp_path: Path) -> None:
    best = _Best(dirpath=tmp_path, monitor="val_accuracy", mode="max")
    best.best_model_score, best.kth_best_model_path = torch.tensor(0.9), "one"
    best.best_k_models = {"one": torch.tensor(0.9)}
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=bool))
    found = [best.check_monitor_top_k(trainer, torch.tensor(a)) for a in (0.89, 0.9, 0.91)]
    assert found == [False, True, True]


def test_test_reports_both_accuracies_gap_and_rates(trained: Path) -> None:
    printed = command("test", trained / "checkpoints/best.ckpt").stdout
    hard, soft, gap = (
        float(re.search(rf"^{name} +([-+.\d]+)", printed, re.MULTILINE)[1])  # type: ignore[index]
        for name in ("hard accuracy", "soft accuracy", "transfer gap")
    )
    assert 0.1 < hard <= 1 and 0.1 < soft <= 1
    assert gap == pytest.approx(100 * (soft - hard), abs=0.02)
    assert re.search(r"^  features\.2 +0\.\d+$", printed, re.MULTILINE)


def test_predict_labels_a_recording_and_a_folder(
    tmp_path: Path, trained: Path, cache: Path
) -> None:
    pytest.importorskip("tonic")
    command(
        "fit", "--data.T=2", "--data.batch_size=16", "--model.widths=[8,8]",
        "--trainer.max_epochs=2", "--out", tmp_path / "out",
    )  # fmt: skip
    checkpoint = tmp_path / "out/checkpoints/best.ckpt"
    folder = cache / "digits_events-v1/NMNIST/Train/0"
    lines = command("predict", checkpoint, folder).stdout.splitlines()
    pattern = re.compile(r"(.*\.bin)  (\d)  confidence (0\.\d{4}|1\.0000)")
    found = [pattern.fullmatch(line) for line in lines]
    assert len(found) == len(list(folder.iterdir()))
    labels = [match[2] for match in found if match]
    assert labels.count("0") > len(labels) / 2
    assert command("predict", checkpoint, sorted(folder.iterdir())[0]).stdout == lines[0] + "\n"

    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(encode({k: __import__("numpy").array([40]) for k in "xytp"}))
    for arguments, message in (
        ([checkpoint, damaged], "damaged.bin: row 0: event at x=40"),
        ([checkpoint, tmp_path / "none"], "no event recording"),
        ([trained / "checkpoints/best.ckpt", folder], "was trained on digits, not on events"),
        ([tmp_path / "none.ckpt", folder], "no checkpoint"),
        ([damaged, folder], "can't be read as a checkpoint"),
    ):
        done = command("predict", *arguments, check=False)
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spike": "htfa"}, "unknown spike function 'htfa'"),
        ({"neuron": "izhikevich"}, "unknown neuron 'izhikevich'; the known ones are if, lif, plif"),
        ({"learning_rate": 0.0}, r"`learning_rate` \(=0.0\)"),
        ({"weight_decay": -1.0}, r"`weight_decay` \(=-1.0\)"),
        ({"freeze_norm": 1.5}, r"`freeze_norm` \(=1.5\)"),
        (
            {"recipe": "surrogate_free", "optimizer": "sgd"},
            r"step of `optimizer` \(=sgd\); take adamw",
        ),
        ({"initialise": 1.0}, r"`initialise` \(=1.0\) must lie in \(0, 1\)"),
    ],
)
def test_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpikingClassifier((1, 8, 8), 10, ModelConfig(**arguments))


def test_no_detaching_between_time_steps() -> None:
    model = SpikingClassifier((1, 8, 8), 3, ModelConfig(widths=(4,)))
    x_seq = torch.rand(4, 2, 1, 8, 8, requires_grad=True)
    model.net(x_seq)[-1].sum().backward()  # the last step's logits depend on the first input
    assert x_seq.grad is not None and x_seq.grad[0].abs().sum() > 0


def test_gap_by_layer_and_calibration(trained: Path, tmp_path: Path) -> None:
    hardened = command("gap", trained / "checkpoints/last.ckpt").stdout
    assert "gap +0.00 pp, most of it born in no layer" in hardened
    command(
        "fit", "--data=digits", *SMALL, "--trainer.max_epochs=1", "--model.hardening=null",
        "--out", tmp_path,
    )  # fmt: skip
    checkpoint = tmp_path / "checkpoints/last.ckpt"
    lines = command("gap", checkpoint).stdout.splitlines()
    assert lines[0].startswith("layer") and lines[2].startswith("net.features.2 ")
    before = float(lines[1].split()[-1])
    *_, after, gap_pp = lines[2].split()
    assert 100 * (before - float(after)) == pytest.approx(float(gap_pp), abs=0.01)
    calibrated = Path(command("calibrate", checkpoint, "--batches=2").stdout.strip())
    assert calibrated == tmp_path / "checkpoints/last-calibrated.ckpt"
    old, new = weights(checkpoint), weights(calibrated)
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {f"net.features.1.{name}" for name in
                       ("running_mean", "running_var", "num_batches_tracked")}  # fmt: skip
    assert "hard accuracy" in command("test", calibrated).stdout


def test_a_network_and_a_data_set_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs/own.md").read_text()
    mine = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[-1]
    (tmp_path / "my_module.py").write_text(
        f"{mine}\n"
        "from torch import nn\n"
        "class MyNet(nn.Sequential):\n"
        "    def __init__(self, in_shape, num_classes, spiking_neuron, **arguments):\n"
        "        read_out = nn.Linear(64, num_classes)\n"
        "        spiking = spiking_neuron(step_mode='m', **arguments)\n"
        "        super().__init__(nn.Flatten(2), spiking, read_out)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = ("--model.model=my_module.MyNet", "--data.name=my_module.MINE", "--data.T=2")
    command("fit", *options, "--trainer.max_epochs=1", "--out", tmp_path / "out")
    checkpoint = tmp_path / "out/checkpoints/last.ckpt"
    del sys.modules["my_module"]
    done = command("test", checkpoint, check=False)
    assert done.returncode == 1 and "add --allow my_module" in done.stderr
    assert "hard accuracy" in command("test", checkpoint, "--allow=my_module").stdout
    done = command("fit", *options, "--model.width=2", "--out", tmp_path / "no", check=False)
    assert done.returncode == 1 and "unexpected keyword argument 'width'" in done.stderr


def test_batches_that_are_trained_on_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    step = SpikingClassifier.training_step

    def training_step(self: SpikingClassifier, batch: Any, index: int) -> torch.Tensor:
        seen.append(batch[0].sum((0, 2, 3, 4)))
        return step(self, batch, index)

    monkeypatch.setattr(SpikingClassifier, "training_step", training_step)
    command(
        "fit", "--data=digits", *SMALL, "--trainer.max_epochs=2", "--trainer.overfit_batches=3",
        "--out", tmp_path,
    )  # fmt: skip
    assert len(seen) == 6
    for first, second in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(first, second)


def test_a_checkpoint_of_an_earlier_version_is_read(trained: Path) -> None:
    content = torch.load(trained / "checkpoints/last.ckpt", weights_only=True)
    assert sorted(content["hyper_parameters"]) == [
        "T", "backend", "checkpoint_activations", "compile", "cuda_graph", "depths",
        "dropout", "freeze_norm", "hardening", "in_shape", "initialise", "label_smoothing",
        "learning_rate", "loss", "model", "neuron",
        "neuron_options", "norm", "num_classes", "optimizer", "recipe", "seed", "sharpness",
        "sharpness_shape", "spike", "tbptt_steps", "warmup_epochs", "weight_decay", "width",
        "widths",
    ]  # fmt: skip
    data = content["datamodule_hyper_parameters"]
    assert content["hyper_parameters"]["T"] == data["T"]  # as a network with weights for each takes
    assert len(data) == 34
    for name in (
        "T",
        "cuda_graph",
        "depths",
        "freeze_norm",
        "initialise",
        "recipe",
    ):  # which earlier versions had not
        del content["hyper_parameters"][name]
    del data["camera"], data["split"]
    torch.save(content, trained / "checkpoints/earlier.ckpt")
    earlier = SpikingClassifier.load_from_checkpoint(trained / "checkpoints/earlier.ckpt")
    assert earlier.config.freeze_norm is None
    assert (
        SpikingDataModule.load_from_checkpoint(trained / "checkpoints/earlier.ckpt").config.split
        == "random"
    )
    (trained / "checkpoints/earlier.ckpt").unlink()
    assert content["hyper_parameters"]["model"] == "vgg_small"
    model = SpikingClassifier.load_from_checkpoint(trained / "checkpoints/last.ckpt")
    assert model.config.widths == (4,)
