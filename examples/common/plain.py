"""A plain training loop, and images for it, for networks without time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DistributedSampler

from htaf_snn.transfer import SharpnessSchedule, unit_gradients

Batch = TypeVar("Batch")
Batch_co = TypeVar("Batch_co", covariant=True)


class Batches(Protocol[Batch_co]):
    """An epoch's batches: a list, or a loader that draws anew each time it is iterated over."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch_co]: ...


def train_plain(
    net: nn.Module,
    batches: Batches[Batch],
    loss: Callable[[nn.Module, Batch], Tensor],
    epochs: int,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    hardening: tuple[float, float] | None = (0.0, 0.8),
    true_gradient: bool = False,
    on_step: Callable[[], object] = lambda: None,
) -> SharpnessSchedule:
    """Trains by AdamW with a one-cycle learning rate, bringing the exact step in on the way.

    Args:
        net: any torch network, with spike functions or without; in ``train()`` from now on.
        batches: of an epoch.
        loss: of the network on a batch, a scalar.
        epochs: >= 1.
        learning_rate: the highest, > 0.
        weight_decay: >= 0.
        hardening: shares of the training between which the step comes in; see
            `SharpnessSchedule`.
        true_gradient: whether no surrogate is used to the end; see `SharpnessSchedule`.
        on_step: called after each step, for a progress bar.

    Returns:
        the schedule of the spike functions; ``set(0)`` makes them as smooth as at the start.

    Raises:
        ValueError: no epoch, no batch, or a loss that is not finite.
    """
    if epochs < 1 or not len(batches):
        raise ValueError(f"`epochs` (={epochs}) and batches (={len(batches)}) must be at least 1")
    steps = epochs * len(batches)
    optimizer = torch.optim.AdamW(
        net.parameters(), learning_rate, weight_decay=weight_decay, fused=True
    )
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps + 1)
    sharpness = SharpnessSchedule(net, steps, hardening=hardening, true_gradient=true_gradient)
    net.train()
    for _ in range(epochs):
        for batch in batches:
            value = loss(net, batch)
            if not value.isfinite():
                raise ValueError(
                    f"the loss is {value.item()} at step {sharpness.last_step}; lower "
                    f"`learning_rate` (={learning_rate})"
                )
            optimizer.zero_grad()
            value.backward()
            if true_gradient:
                unit_gradients(net.parameters())
            optimizer.step()
            rate.step()
            sharpness.step()
            on_step()
    return sharpness


def classification_loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of the logits [N, classes] of inputs [N, *], labels [N]."""
    x, labels = batch
    return nn.functional.cross_entropy(net(x), labels)


class Images:
    """Images [N, C, H, W] and labels [N] of a loader's frames [1, N, C, H, W].

    For networks without time, of the loaders of `SpikingDataModule` with ``T`` = 1. Images that a
    loader draws anew in each epoch are drawn anew each time this is iterated over.

    Raises:
        ValueError: frames of more than one time step.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self._epoch = 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if isinstance(getattr(self.loader, "sampler", None), DistributedSampler):
            self.loader.sampler.set_epoch(self._epoch)  # as Lightning's trainer does
            self._epoch += 1
        for x_seq, labels in self.loader:
            if len(x_seq) != 1:
                raise ValueError(f"frames of {len(x_seq)} time steps are no images; set T=1")
            yield x_seq[0], labels
