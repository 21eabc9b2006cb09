"""Training of a spiking classifier by direct BPTT, as a Lightning module."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from spikingjelly.activation_based import functional, monitor, neuron
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from .. import neurons
from ..models import SpikingVGG
from ..surrogates import spike_function, trains_smooth
from .firing import firing_as_trained, firing_hard, spike_functions

NEURONS: dict[str, type[neurons.BackendNode]] = {
    "if": neurons.IFNode,
    "lif": neurons.LIFNode,
    "plif": neurons.ParametricLIFNode,
}

Batch = tuple[Tensor, Tensor]  # frames [T, N, C, H, W], labels [N]


class SpikingClassifier(L.LightningModule):
    """A spiking VGG, trained by full BPTT on the cross-entropy of its mean logits.

    Nothing is detached between time steps. Validation and test fire with the exact step; the
    test also measures the network as it was trained, and the transfer gap between the two.

    Args:
        in_shape: (C, H, W) of a frame.
        num_classes: number of labels.
        spike: a spike function, ``name`` or ``name:parameter=value``; see
            `htaf_snn.spike_function`.
        neuron: "if", "lif" or "plif".
        widths: channels of each block.
        backend: of the neurons; "auto" or "torch".
        learning_rate: AdamW's, at the start of a cosine schedule down to 0; > 0.
        weight_decay: AdamW's, >= 0.
        seed: of what is random within an epoch, such as dropout.

    Raises:
        ValueError: an unknown spike function or neuron, or a number out of its range.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        num_classes: int,
        spike: str = "htaf",
        neuron: str = "lif",
        widths: tuple[int, ...] = (16, 32, 32),
        backend: neurons.Backend = "auto",
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if neuron not in NEURONS:
            raise ValueError(f"unknown neuron {neuron!r}; the known ones are {', '.join(NEURONS)}")
        if not learning_rate > 0:
            raise ValueError(f"`learning_rate` (={learning_rate}) must be positive")
        if not weight_decay >= 0:
            raise ValueError(f"`weight_decay` (={weight_decay}) must not be negative")
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.seed = seed
        self.net = SpikingVGG(
            in_shape,
            num_classes,
            widths,
            NEURONS[neuron],
            surrogate_function=spike_function(spike),
            backend=backend,
        )
        self.train_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.hard_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.soft_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.firing_rates = nn.ModuleDict(
            {name.replace(".", "_"): MeanMetric() for name in [*self.layer_names(), "network"]}
        )

    def layer_names(self) -> list[str]:
        """The names of the network's neuron layers, in order."""
        return [n for n, m in self.net.named_modules() if isinstance(m, neuron.BaseNode)]

    def forward(self, x_seq: Tensor) -> Tensor:
        """Logits [N, num_classes], averaged over time, of frames [T, N, C, H, W]."""
        functional.reset_net(self.net)
        logits_seq: Tensor = self.net(x_seq)
        return logits_seq.mean(0)

    def on_train_epoch_start(self) -> None:
        # An epoch's randomness depends on seed, epoch and rank alone: a resumed run repeats it.
        torch.manual_seed(self.seed + 1_000_003 * self.current_epoch + 7919 * self.global_rank)

    def training_step(self, batch: Batch, _batch_index: int) -> Tensor:
        x_seq, labels = batch
        logits = self(x_seq)
        loss = nn.functional.cross_entropy(logits, labels)
        self.train_accuracy(logits, labels)
        self._log("train_loss", loss, labels, on_step=True, on_epoch=True, prog_bar=True)
        self._log(
            "train_accuracy",
            self.train_accuracy,
            labels,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
        )
        return loss

    def validation_step(self, batch: Batch, _batch_index: int) -> None:
        x_seq, labels = batch
        with firing_hard(self.net):
            logits = self(x_seq)
        self.val_accuracy(logits, labels)
        self._log("val_loss", nn.functional.cross_entropy(logits, labels), labels, prog_bar=True)
        self._log("val_accuracy", self.val_accuracy, labels, prog_bar=True)

    def test_step(self, batch: Batch, _batch_index: int) -> None:
        x_seq, labels = batch
        with (
            firing_hard(self.net),
            monitor.OutputMonitor(self.net, neuron.BaseNode, _rate_and_count) as fired,
        ):
            hard = self(x_seq)
        self.hard_accuracy(hard, labels)
        self._log("hard_accuracy", self.hard_accuracy, labels)
        for name in self.layer_names():
            rate, count = fired[name][0]
            for key in (name, "network"):
                self._firing_rate(key).update(rate, weight=count)
            self._log(f"firing_rate/{name}", self._firing_rate(name), labels)
        self._log("firing_rate", self._firing_rate("network"), labels)
        if any(trains_smooth(f) for f in spike_functions(self.net)):
            with firing_as_trained(self.net):
                soft = self(x_seq)
        else:
            soft = hard
        self.soft_accuracy(soft, labels)
        self._log("soft_accuracy", self.soft_accuracy, labels)

    def on_test_epoch_end(self) -> None:
        gap = self.soft_accuracy.compute() - self.hard_accuracy.compute()
        self.log("gap_pp", 100 * gap)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=int(self.trainer.estimated_stepping_batches)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _firing_rate(self, name: str) -> MeanMetric:
        metric = self.firing_rates[name.replace(".", "_")]
        assert isinstance(metric, MeanMetric)
        return metric

    def _log(self, name: str, value: Tensor | Metric, labels: Tensor, **options: Any) -> None:
        self.log(name, value, batch_size=len(labels), **options)


def _rate_and_count(spike_seq: Tensor) -> tuple[Tensor, int]:
    return spike_seq.mean(), spike_seq.numel()
