"""Batch norm statistics of the network that fires."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from .firing import firing_hard, modes_kept

_DROPOUT = (nn.modules.dropout._DropoutNd, layer.Dropout, layer.Dropout2d)


class _FromRest(nn.Module):
    """The network, its neurons reset before each batch."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        for module in self.net.modules():
            if isinstance(module, _DROPOUT):
                module.eval()
        functional.reset_net(self.net)
        return self.net(x)


def calibrate(
    net: nn.Module, batches: Iterable[Any], limit: int | None = None, device: Any = None
) -> None:
    """Re-estimates batch norm statistics with every spike function firing exactly.

    A network that was trained smooth has the statistics of smooth outputs; the hard network's
    differ, layer by layer. The average is over all the batches, each weighted alike. Neurons are
    reset before each batch and after the last; modes, including training or not, stay. Dropout
    is off. An error on the way leaves the statistics as they were.

    Args:
        net: a network with batch norm layers, of any number of time steps or none.
        batches: inputs, or tuples whose first element is the input; of the training data.
        limit: most batches to use, >= 1; None for all.
        device: where the batches are moved to; None leaves them.

    Raises:
        ValueError: the network has no batch norm with running statistics, or there is no batch.

    Source:
        `torch.optim.swa_utils.update_bn` does the work.
    """
    norms = _norms(net)
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` (={limit}) must be at least 1")
    rest = iter(batches)
    first = list(itertools.islice(rest, 1))
    if not first:
        raise ValueError("`batches` is empty; batch norm statistics need at least one batch")
    before = [(norm, norm.momentum, copy.deepcopy(norm.state_dict())) for norm in norms]
    chosen = itertools.islice(itertools.chain(first, rest), limit)
    try:
        with modes_kept(net), firing_hard(net), torch.no_grad():
            update_bn(chosen, _FromRest(net), device)
    except BaseException:
        for norm, momentum, state in before:
            norm.momentum = momentum
            norm.load_state_dict(state)
        raise


def freeze_norms(net: nn.Module, frozen: bool = True) -> None:
    """Has the batch norms use their running statistics, as at inference, until ``net.train()``.

    A network that trains with the statistics of each batch to the end can come to need them: where
    many inputs of a neuron are alike (a picture's background, with few time steps), the noise of
    the batches decides whether it fires, and at inference there is none. Frozen in the last part
    of the training, what is trained is what is used.

    Args:
        net: a network with batch norm layers. Their weights and biases go on learning.
        frozen: False has them use each batch's statistics, as in training.

    Raises:
        ValueError: the network has no batch norm with running statistics.
    """
    for norm in _norms(net):
        norm.train(not frozen)


def _norms(net: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not any(norm.track_running_stats for norm in norms):
        raise ValueError(f"{type(net).__name__} has no batch norm whose statistics are kept")
    return norms
