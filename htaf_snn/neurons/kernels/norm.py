"""Batch norm and a neuron in one call of a kernel each way; nothing between the two is kept."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .buffers import BATCH, GIVEN, NORM, RUNNING, Words
from .layer import Layer


class Norm(NamedTuple):
    """A batch norm's arguments, as the neurons' kernel takes them.

    Attributes:
        eps: added to the variance.
        momentum: the least share of the newest batch in the running statistics.
        batch: whether the statistics are the input's, not the running ones.
        running: mean, variance and the number of batches: read, or in training moved; or none.
        follows: whether they are moved.
        group: the processes whose inputs the statistics are of; None for this one alone.
    """

    eps: float
    momentum: float
    batch: bool
    running: tuple[Tensor, ...]
    follows: bool
    group: Any = None


def batch_moments(layer: Layer, words: Words, group: Any) -> tuple[Tensor, int]:
    """Mean and biased variance of each channel over processes, and of how many elements.

    Args:
        layer: of the norm and the neurons.
        words: a call of its forward pass.
        group: the processes; None for this one alone.

    Returns:
        [2, C] in float64, and the number of elements a channel.
    """
    found = torch.empty(2, layer.channels, dtype=torch.float64)
    values = dict.fromkeys((b.name for b in NORM), 0) | {"moments": found.data_ptr()}
    layer.kernel.norm("moments", words, values)
    count = layer.elements
    if group is None:
        return found, count
    mean, variance = found
    sums = torch.cat([mean * count, (variance + mean * mean) * count, mean.new_tensor([count])])
    torch.distributed.all_reduce(sums, group=group)
    total = sums[-1]
    mean, square = (sums[:-1] / total).view(2, -1)
    return torch.stack([mean, (square - mean * mean).clamp(min=0)]), int(total)


class NormedCall:
    """One call of a batch norm and the neurons behind it: a `Layer`'s, of weight and bias too.

    Args:
        layer: of the norm and the neurons.
        norm: the norm's arguments.
    """

    def __init__(self, layer: Layer, norm: Norm) -> None:
        self._layer, self._norm = layer, norm
        self._elements = layer.elements if norm.batch else 0
        self._scaling = torch.empty(5 * layer.channels, dtype=torch.float64, device=layer.device)

    def forward(
        self, given: Sequence[Any], head: Words, at_rest: bool, sequences: bool
    ) -> tuple[Tensor, ...]:
        """`Layer.forward` of the norm of the first input."""
        weight, bias, *tensors = given
        layer, norm = self._layer, self._norm
        self._corrects = norm.batch and tensors[0].requires_grad

        def run(_name: str, words: Words, _learned: Any, live: Any) -> None:
            moments, mode = None, BATCH if norm.batch else RUNNING
            if norm.group is not None:
                moments, self._elements = batch_moments(layer, words, norm.group)
                mode = GIVEN
            mean, variance, tracked = norm.running or (None, None, None)
            values = {
                "mode": mode,
                "elements": self._elements,
                "eps": norm.eps,
                "momentum": norm.momentum,
                "weight": 0 if weight is None else weight.data_ptr(),
                "bias": 0 if bias is None else bias.data_ptr(),
                "running_mean": 0 if mean is None else mean.data_ptr(),
                "running_var": 0 if variance is None else variance.data_ptr(),
                "tracked": tracked.data_ptr() if norm.follows and tracked is not None else 0,
                "moments": 0 if moments is None else moments.data_ptr(),
                "scaling": self._scaling.data_ptr(),
            }
            layer.kernel.norm("norm_forward", words, values, live)

        made = layer.forward(tensors, head, at_rest, sequences, run)
        if norm.follows:
            torch.autograd.graph.increment_version(norm.running)
        return made

    def backward(
        self, grads: Sequence[Tensor | None], given: Sequence[Any], head: Words, at_rest: bool
    ) -> list[Tensor | None]:
        """The gradients of what `forward` was given."""
        weight, bias, *tensors = given
        layer, group = self._layer, self._norm.group
        g_weight = None if weight is None else torch.empty_like(weight)
        g_bias = None if bias is None else torch.empty_like(bias)
        sums = None if group is None else torch.empty(2, layer.channels, dtype=torch.float64)

        def run(_name: str, words: Words, _learned: Any, live: Any) -> None:
            values = {
                "elements": self._elements if self._corrects else 0,
                "g_weight": 0 if g_weight is None else g_weight.data_ptr(),
                "g_bias": 0 if g_bias is None else g_bias.data_ptr(),
                "sums": 0 if sums is None else sums.data_ptr(),
                "scaling": self._scaling.data_ptr(),
            }
            layer.kernel.norm("norm_backward", words, values, live)
            if sums is not None and self._corrects:
                torch.distributed.all_reduce(sums, group=group)
                layer.kernel.norm("correct", words, values)

        return [g_weight, g_bias, *layer.backward(grads, tensors, head, at_rest, run)]
