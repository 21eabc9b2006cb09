"""What is measured of a trained network beside its accuracy."""

from __future__ import annotations

from collections.abc import Iterable

import lightning as L
import torch
from spikingjelly.activation_based import functional, monitor, neuron
from torch import Tensor, nn

from ..transfer import firing_as_trained
from .record import Epoch

OUTPUT_BINS = 50


class History(L.Callback):
    """The epochs of a training: losses, accuracies, and gradient norms by layer of weights."""

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []
        self._norms: dict[str, list[Tensor]] = {}

    def on_before_optimizer_step(
        self, _trainer: L.Trainer, module: L.LightningModule, _optimizer: torch.optim.Optimizer
    ) -> None:
        for name, layer in module.get_submodule("net").named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.grad is not None:
                self._norms.setdefault(name, []).append(layer.weight.grad.norm())

    def on_train_epoch_end(self, trainer: L.Trainer, _module: L.LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        norms = {name: float(torch.stack(steps).mean()) for name, steps in self._norms.items()}
        self._norms.clear()
        self.epochs.append(
            Epoch(
                epoch=trainer.current_epoch,
                train_loss=metrics["train_loss"],
                train_accuracy=metrics["train_accuracy"],
                val_loss=metrics["val_loss"],
                val_accuracy=metrics["val_accuracy"],
                gradient_norms=norms,
            )
        )


def output_shares(net: nn.Module, batches: Iterable[Tensor]) -> list[float]:
    """Shares of the neurons' outputs in equal bins of [0, 1], the network firing as trained.

    Args:
        net: a network in ``eval()``.
        batches: frames [T, N, C, H, W], at least one batch.
    """
    with (
        torch.no_grad(),
        firing_as_trained(net),
        monitor.OutputMonitor(net, neuron.BaseNode, _histogram) as counts,
    ):
        for x_seq in batches:
            functional.reset_net(net)
            net(x_seq)
    total = torch.stack(counts.records).sum(0)
    shares: list[float] = (total / total.sum()).tolist()
    return shares


def _histogram(outputs: Tensor) -> Tensor:
    return outputs.float().histc(OUTPUT_BINS, 0, 1).double()
