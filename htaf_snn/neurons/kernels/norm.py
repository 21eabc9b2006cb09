"""Batch norm and a neuron in one call of a kernel each way; nothing between the two is kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .buffers import NORM, Words, packer
from .layer import Layer, once, saved

_pack, _pack_backward = packer("NormForward"), packer("NormBackward")
BATCH, RUNNING, GIVEN = range(3)  # whose statistics: kernel_norm.h's Mode


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
    layer.kernel.run("moments", words + _pack(values))
    count = layer.elements
    if group is None:
        return found, count
    mean, variance = found
    sums = torch.cat([mean * count, (variance + mean * mean) * count, mean.new_tensor([count])])
    torch.distributed.all_reduce(sums, group=group)
    total = sums[-1]
    mean, square = (sums[:-1] / total).view(2, -1)
    return torch.stack([mean, (square - mean * mean).clamp(min=0)]), int(total)


class NormNeuron(torch.autograd.Function):
    """`Layer.forward` of the first input's norm, differentiable once."""

    @staticmethod
    def forward(
        ctx: Any, layer: Layer, norm: Norm, head: Words, at_rest: bool, sequences: bool,
        weight: Tensor | None, bias: Tensor | None, *tensors: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        scaling = torch.empty(5 * layer.channels, dtype=torch.float64)
        elements = layer.elements if norm.batch else 0

        def call(_name: str, words: Words) -> None:
            nonlocal elements
            moments, mode = None, BATCH if norm.batch else RUNNING
            if norm.group is not None:
                moments, elements = batch_moments(layer, words, norm.group)
                mode = GIVEN
            mean, variance, tracked = norm.running or (None, None, None)
            values = {
                "mode": mode,
                "elements": elements,
                "eps": norm.eps,
                "momentum": norm.momentum,
                "weight": 0 if weight is None else weight.data_ptr(),
                "bias": 0 if bias is None else bias.data_ptr(),
                "running_mean": 0 if mean is None else mean.data_ptr(),
                "running_var": 0 if variance is None else variance.data_ptr(),
                "tracked": tracked.data_ptr() if norm.follows and tracked is not None else 0,
                "moments": 0 if moments is None else moments.data_ptr(),
                "scaling": scaling.data_ptr(),
            }
            layer.kernel.run("norm_forward", words + _pack(values))

        made = layer.forward(tensors, head, at_rest, sequences, call)
        if norm.follows:
            torch.autograd.graph.increment_version(norm.running)
        ctx.save_for_backward(weight, bias, *tensors)
        ctx.call = layer, norm, head, at_rest, scaling, elements
        ctx.set_materialize_grads(False)
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        layer, norm, head, at_rest, scaling, elements = ctx.call
        needs_x = ctx.needs_input_grad[7]
        weight, bias, *tensors = saved(ctx, grads)

        def run(grads: Any, tensors: Any) -> list[Tensor | None]:
            g_weight = None if weight is None else torch.empty_like(weight)
            g_bias = None if bias is None else torch.empty_like(bias)
            sums = None
            if norm.group is not None:
                sums = torch.empty(2, layer.channels, dtype=torch.float64)

            def call(_name: str, words: Words, _learned: Any) -> None:
                values = {
                    "elements": elements if needs_x else 0,
                    "g_weight": 0 if g_weight is None else g_weight.data_ptr(),
                    "g_bias": 0 if g_bias is None else g_bias.data_ptr(),
                    "sums": 0 if sums is None else sums.data_ptr(),
                    "scaling": scaling.data_ptr(),
                }
                words += _pack_backward(values)
                layer.kernel.run("norm_backward", words)
                if sums is not None and elements and needs_x:
                    torch.distributed.all_reduce(sums, group=norm.group)
                    layer.kernel.run("correct", words)

            return [g_weight, g_bias, *layer.backward(grads, tensors, head, at_rest, call)]

        if torch.is_grad_enabled():
            found = once(grads, [weight, bias, *tensors], lambda g, t: run(g, t[2:]))
        else:
            found = run(grads, tensors)
        return None, None, None, None, None, *found
