"""What is measured of a trained network beside its accuracy."""

from __future__ import annotations

from collections.abc import Iterable

import lightning as L
import torch
from spikingjelly.activation_based import functional, monitor, neuron, op_counter
from torch import Tensor, nn

from ..neurons import BackendNode
from ..transfer import firing_as_trained, firing_hard
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


def operations(net: nn.Module, x_seq: Tensor) -> tuple[float, float]:
    """Synaptic operations and energy in nJ, a sample, of the network that fires exactly.

    Counted by SpikingJelly: an input of spikes costs an accumulate for each spike and synapse, any
    other a multiply-accumulate; the neurons' own operations count too; batch norm is folded into
    the weights, and memory is left out.

    Args:
        net: a network in ``eval()``.
        x_seq: frames [T, N, C, H, W].

    Source:
        4.6 pJ a multiply-accumulate, 0.9 pJ an accumulate, float32 at 45 nm: Horowitz, "Computing's
        energy problem", ISSCC 2014, doi.org/10.1109/ISSCC.2014.6757323.
    """
    norms = list({type(m) for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)})
    config = op_counter.SimpleEnergyConfig(extra_ignore_modules=norms)
    functional.reset_net(net)
    named = {m: m.backend for m in net.modules() if isinstance(m, BackendNode)}
    for node in named:
        node.backend = "torch"  # a counter sees no operation inside a kernel
    try:
        with firing_hard(net):
            report = op_counter.estimate_simple_energy(net, x_seq, config=config)
    finally:
        for node, backend in named.items():
            node.backend = backend
    samples = x_seq.shape[1]
    return report.counts["synop"] / samples, report.energy_compute_pj / 1000 / samples
