"""A network that fails without an error is named, with the remedy, wherever it is measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer
from torch import Tensor, nn

from htaf_snn.training.progress import concerns
from tests.helpers import command

GOOD = {
    "hard_accuracy": 0.9, "soft_accuracy": 0.9, "trained_accuracy": 0.9, "gap_pp": 0.0,
    "statistics_gap_pp": 0.0, "commonest_class": 0.1, "samples": 500.0, "firing_rate/a.b": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "train_accuracy", "said"),
    [
        ({}, 0.95, []),
        ({}, None, []),
        ({"soft_accuracy": 0.7, "hard_accuracy": 0.7, "statistics_gap_pp": 20.0}, 0.9,
         ["as trained, the accuracy is 0.90, .* as used, 0.70: freeze .*--model.freeze_norm"]),
        ({"hard_accuracy": 0.6, "gap_pp": 30.0}, 0.9, ["smooth .* 0.90, .* 0.60: bring"]),
        ({}, 0.999, []),
        ({"hard_accuracy": 0.8, "soft_accuracy": 0.8, "trained_accuracy": 0.8}, 0.95,
         ["training accuracy is 0.95, on held-out data 0.80 .*--data.augment"]),
        ({"hard_accuracy": 0.12}, None, [r"0.12, can't be told .*\(0.10 of 500 samples\)"]),
        ({"hard_accuracy": 0.13}, None, []),
        ({"commonest_class": 1.0, "hard_accuracy": 1.0}, None, []),
        ({"firing_rate/a.b": 5e-5, "firing_rate/c": 2e-4}, None, [r"^a\.b fire less .*v_thresh"]),
        ({"samples": 11.0, "soft_accuracy": 0.72, "statistics_gap_pp": 18.0}, None, []),
    ],
)  # fmt: skip
def test_what_is_said(
    changes: dict[str, float], train_accuracy: float | None, said: list[str]
) -> None:
    found = concerns(GOOD | changes, train_accuracy)
    assert len(found) == len(said)
    for sentence, pattern in zip(found, said, strict=True):
        assert re.search(pattern, sentence)


class Needy(nn.Module):
    """A network whose input is moved by the same noise for a whole batch, which a norm undoes."""

    def __init__(
        self, in_shape: Any, num_classes: int, spiking_neuron: Any, **options: Any
    ) -> None:
        super().__init__()
        self.norm = layer.BatchNorm1d(64, step_mode="m")
        self.linear = layer.Linear(64, 32, step_mode="m")
        self.node = spiking_neuron(step_mode="m", **options)
        self.read_out = layer.Linear(32, num_classes, step_mode="m")

    def forward(self, x_seq: Tensor) -> Tensor:
        x = x_seq.flatten(2) + 4 * torch.randn(64)
        logits_seq: Tensor = self.read_out(self.node(self.linear(self.norm(x))))
        return logits_seq


NEEDY = [
    "--data=digits", "--data.T=1", "--data.batch_size=64", "--model.freeze_norm=null",
    "--model.model=tests.training.test_concerns.Needy",
]  # fmt: skip


def test_a_network_that_needs_batch_statistics_is_told_everywhere(tmp_path: Path) -> None:
    done = command("fit", *NEEDY, "--trainer.max_epochs=10", "--out", tmp_path / "fit")
    warned = done.stderr.partition("what to look at in this network:")[2]
    found = re.search(
        r"as trained, the accuracy is ([\d.]+), with running .* used, ([\d.]+)", warned
    )
    assert found and float(found[1]) > 0.6 > 0.5 > float(found[2])
    checkpoint, allow = (
        tmp_path / "fit/checkpoints/last.ckpt",
        "--allow=tests.training.test_concerns",
    )
    for name in ("test", "gap"):
        printed = command(name, checkpoint, allow).stdout
        gap = re.search(r"statistics gap +([-+\d.]+) pp", printed)
        assert gap and float(gap[1]) > 20
    out = tmp_path / "compare"
    done = command("compare", *NEEDY, "--epochs=10", "--spikes=atan", "--out", out)
    assert "what to look at in these networks:\n  digits, atan, seed 0: with each" in done.stderr
    page = (out / "report.html").read_text()
    assert "<summary>Things to look at" in page and "freeze the norms earlier" in page
    widest = re.search(r"widest mean statistics gap is \+([\d.]+) pp \(atan, digits\)", page)
    assert widest and float(widest[1]) > 20


@pytest.mark.slow
@pytest.mark.parametrize("spike", ["htaf", "atan"])
def test_a_pilot_of_few_recordings_learns(spike: str, tmp_path: Path, shared_data: Path) -> None:
    for digit in "017":
        (tmp_path / "data" / digit).mkdir(parents=True)
        files = sorted((shared_data / "nmnist_small/NMNIST/Train" / digit).iterdir())[:24]
        for file in files:
            (tmp_path / "data" / digit / file.name).symlink_to(file)
    done = command(
        "fit", "--data=event_folder", f"--data.root={tmp_path / 'data'}",
        "--data.sensor_size=[34,34]", f"--model.spike={spike}", "--out", tmp_path / "out",
    )  # fmt: skip
    assert "what to look at" not in done.stderr
    printed = command("test", tmp_path / "out/checkpoints/best.ckpt").stdout
    hard = re.search(r"hard accuracy +([\d.]+)", printed)
    assert hard and float(hard[1]) > 0.75
