"""Several processes: DDP on CPUs, and the host's own trainer."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from spikingjelly.activation_based import neuron
from spikingjelly.activation_based.distributed import vision
from spikingjelly.activation_based.model import sew_resnet
from torch import nn

import htaf_snn
from htaf_snn.cli import main
from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.training import ModelConfig, SpikingClassifier
from tests.helpers import forked


class FrozenNorm(L.Callback):
    def on_train_batch_start(self, _trainer: Any, module: Any, *_: Any) -> None:
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()


def train(processes: int, out: str) -> None:
    """Measures and trains on so many processes, forks of this one, and saves what was found."""
    found: dict[str, Any] = {}

    def trainer(**options: Any) -> L.Trainer:
        return L.Trainer(
            accelerator="cpu", devices=processes, strategy="ddp_fork" if processes > 1 else "auto",
            logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, **options,
        )  # fmt: skip

    # 135 samples of a process's 136 are batches of 15: one batch less.
    L.seed_everything(0)
    data = SpikingDataModule(DataConfig("digits", T=2, batch_size=15, validation=271 / 1797))
    model = SpikingClassifier(data.in_shape, data.num_classes, ModelConfig(widths=(4, 4)))
    if processes == 1:
        assert len(data.splits.validation) == 271  # type: ignore[arg-type]
    measuring = trainer(max_steps=1)
    found["metrics"] = [
        measure(model, data, verbose=False)[0] for measure in (measuring.validate, measuring.test)
    ]
    measuring.fit(model, data)  # as it validates at an epoch's end

    L.seed_everything(0)
    data = SpikingDataModule(DataConfig("digits", T=2, batch_size=64 // processes, shift=0))
    config = ModelConfig(widths=(4, 4), optimizer="sgd", learning_rate=0.5)
    model = SpikingClassifier(data.in_shape, data.num_classes, config)
    training = trainer(max_steps=2, limit_val_batches=0, callbacks=[FrozenNorm()])
    training.fit(model, data)
    torch.save(found | {"weights": model.net.state_dict()}, out)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a process, and two, found."""
    folder, found = tmp_path_factory.mktemp("scale"), []
    for processes in (1, 2):
        out, log = folder / f"{processes}.pt", folder / f"{processes}.log"
        process = forked(log, train, processes, str(out))
        process.join(300)
        assert process.exitcode == 0, log.read_text()[-2000:]
        found.append(torch.load(out, weights_only=True))
    return found


@pytest.mark.slow
def test_two_processes_with_half_the_batch_train_as_one(one_and_two: list[dict[str, Any]]) -> None:
    one, two = (found["weights"] for found in one_and_two)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-6, msg=name)
    assert any(value.abs().max() > 1e-3 for value in one.values())


@pytest.mark.slow
def test_every_sample_is_measured_once_on_any_number_of_processes(
    one_and_two: list[dict[str, Any]],
) -> None:
    for one, two in zip(*(found["metrics"] for found in one_and_two), strict=True):
        assert one.keys() == two.keys() and {"val_accuracy", "hard_accuracy"} & one.keys()
        for metrics in (one, two):  # the statistics of a batch are those of a process's batch
            metrics.pop("trained_accuracy", None), metrics.pop("statistics_gap_pp", None)
        assert two == pytest.approx(one, rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_the_command_trains_on_two_processes(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "htaf_snn", "fit", "--data=digits", "--data.T=2",
            "--data.batch_size=64", "--model.widths=[4]", "--trainer.max_epochs=1",
            "--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp",
            f"--out={tmp_path}",
        ],
        capture_output=True, text=True, env=environment(), timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 10  # 1168 samples in batches of twice 64


def test_synchronised_batch_norm_on_cpus_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([
            "fit", "--data=digits", "--trainer.accelerator=cpu", "--trainer.sync_batchnorm=true",
            f"--out={tmp_path}",
        ])  # fmt: skip
    assert "SyncBatchNorm refuses CPU tensors" in capsys.readouterr().err


def host_configuration(root: Path, **options: Any) -> Any:
    """A training configuration of the host's DDP/FSDP2 trainer with our neuron and HTAF."""
    htaf_snn.register()
    return vision.TrainingConfig(
        model=sew_resnet.SEWResNet34Config(
            time_steps=2,
            num_classes=2,
            image_size=32,
            neuron_config=vision.NeuronConfig(
                "htaf_snn.neurons.nodes.LIFNode",
                {"tau": 2.0, "detach_reset": True},
                "htaf_snn.surrogates.htaf.HTAFSpike",
                {"alpha0": 1.5, "alpha1": 6.0},
            ),
        ),
        dataset_builder=f"{vision.__name__}.training.build_imagefolder_datasets",
        dataset_kwargs={"root": str(root), "image_size": 32},
        batch_size=2,
        workers=0,
        **options,
    )


def test_the_hosts_configuration_round_trips_and_builds_our_network(tmp_path: Path) -> None:
    config = host_configuration(tmp_path)
    restored = vision.TrainingConfig.from_dict(json.loads(json.dumps(config.as_dict())))
    assert restored == config
    builder = restored.model.get_builder_cls()(restored.model)
    nodes = [
        m for m in builder._build_canonical_model().modules() if isinstance(m, neuron.BaseNode)
    ]
    assert nodes and all(type(node) is htaf_snn.LIFNode for node in nodes)
    assert all(isinstance(node.surrogate_function, htaf_snn.HTAFSpike) for node in nodes)


@pytest.mark.gpu
def test_the_hosts_trainer_trains_our_network(tmp_path: Path) -> None:
    for part, label, index in itertools.product(("train", "val"), "ab", range(4)):
        folder = tmp_path / part / label
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    metrics = vision.train_classification(host_configuration(tmp_path, max_steps=2))
    assert metrics
