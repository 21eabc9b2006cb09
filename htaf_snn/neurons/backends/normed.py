"""Batch norm and a neuron as one layer: neither reads again, nor keeps, what lies between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import cpu, operators
from .call import channels_last, dense
from .program import normalised


class Norm(NamedTuple):
    """What a batch norm does to a sequence [T, N, C, *] before the neurons read it.

    Attributes:
        weight, bias: [C], or None for 1 and 0.
        moments: mean and variance, [2, C] in float64.
        elements: of how many elements a channel these are the mean and variance; 0 if they do not
            depend on this input.
        eps: added to the variance.
        group: the processes whose inputs they are of; None for this one alone.
    """

    weight: Tensor | None
    bias: Tensor | None
    moments: Tensor
    elements: int
    eps: float
    group: Any = None


def batch_moments(x: Tensor, group: Any = None) -> tuple[Tensor, int]:
    """Mean and biased variance of each channel of ``x`` [T, N, C, *], and of how many elements.

    Args:
        x: the input, in a floating-point type.
        group: processes whose inputs count too.

    Returns:
        [2, C] in float64, and the number of elements a channel.
    """
    x = dense(x.detach())
    count = x.numel() // x.shape[2]
    found: Tensor = cpu.moments(x, *_layout(x))
    if group is None:
        return found, count
    mean, variance = found
    sums = torch.cat([mean * count, (variance + mean * mean) * count, mean.new_tensor([count])])
    torch.distributed.all_reduce(sums, group=group)
    total = sums[-1]
    mean, square = (sums[:-1] / total).view(2, -1)
    return torch.stack([mean, (square - mean * mean).clamp(min=0)]), int(total)


def norm_neuron(
    x: Sequence[Tensor],
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    numbers: Sequence[float],
    program: str,
    sequences: bool,
    norm: Norm,
) -> Sequence[Tensor]:
    """`operators.neuron` of the first input's norm."""
    tensors = [*x, *states, *parameters, norm.weight, norm.bias]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        states = operators.trainable(states)
        counts = (len(x), len(states))
        return _NormNeuron.apply(  # type: ignore[no-any-return]
            counts, numbers, program, sequences, norm._replace(weight=None, bias=None),
            norm.weight, norm.bias, *x, *states, *parameters,
        )  # fmt: skip
    return operators.run(
        x, states, [*parameters, *_scaling(norm, x[0]).parameters(x[0])], numbers,
        normalised(program), sequences,
    )  # fmt: skip


class _Scaling(NamedTuple):
    """(x - center) scale + shift, by channel; what rounding took from the mean is in the shift."""

    center: Tensor
    scale: Tensor
    shift: Tensor
    rstd: Tensor  # in float64, as the next
    offset: Tensor  # center - mean

    def parameters(self, x: Tensor) -> list[Tensor]:
        shape = (-1, *[1] * (x.ndim - 3))
        return [p.view(shape) for p in self[:3]]


def _scaling(norm: Norm, x: Tensor) -> _Scaling:
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    mean, variance = norm.moments
    center = mean.to(kind)
    offset = center - mean
    rstd = (variance + norm.eps).rsqrt()
    scale = rstd if norm.weight is None else rstd * norm.weight.detach()
    shift = offset * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach()
    return _Scaling(center, scale.to(kind), shift.to(kind), rstd, offset)


class _NormNeuron(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        counts: tuple[int, int],
        numbers: Sequence[float],
        program: str,
        sequences: bool,
        norm: Norm,
        weight: Tensor | None,
        bias: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        x, states, parameters = operators.split(counts, tensors)
        scaling = _scaling(norm._replace(weight=weight, bias=bias), x[0])
        ctx.save_for_backward(weight, bias, *tensors)
        ctx.settings = (counts, numbers, program, norm, scaling)
        ctx.set_materialize_grads(False)
        return tuple(
            operators.run(x, states, [*parameters, *scaling.parameters(x[0])], numbers,
                          normalised(program), sequences)
        )  # fmt: skip

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        counts, numbers, program, norm, scaling = ctx.settings
        weight, bias, *tensors = operators.saved(ctx)
        x, states, parameters = operators.split(counts, tensors)
        operators.check_gradients(grads)
        found = operators.run_backward(
            list(grads), x, states, [*parameters, *scaling.parameters(x[0])], numbers,
            normalised(program),
        )  # fmt: skip
        *found, g_scale, g_shift = found
        g_shift = g_shift.double().flatten()
        g_weight = scaling.rstd * (g_scale.double().flatten() + scaling.offset * g_shift)
        if norm.elements and ctx.needs_input_grad[7]:
            sums = torch.stack([g_weight, g_shift])
            if norm.group is not None:
                torch.distributed.all_reduce(sums, group=norm.group)
            scale = scaling.scale.double() / norm.elements
            b = -scale * scaling.rstd * sums[0]
            a = b * scaling.offset - scale * sums[1]
            first = dense(x[0])
            cpu.correct(
                first, *_layout(first), found[0], *(t.to(scaling.center) for t in (a, b)),
                scaling.center,
            )  # fmt: skip
        own = operators.by_parameter(program, found[len(x) + len(states) :], len(parameters))
        return (
            None, None, None, None, None,
            None if weight is None else g_weight.to(weight),
            None if bias is None else g_shift.to(bias),
            *found[: len(x) + len(states)], *own,
        )  # fmt: skip


def _layout(x: Tensor) -> tuple[int, int, int]:
    """Rows, channels and what lies within a channel of a dense [T, N, C, *]."""
    channels = x.shape[2]
    if channels_last(x) and not x.is_contiguous():
        return x.numel() // channels, channels, 1
    inner = x[0, 0, 0].numel()
    return x.numel() // (channels * inner), channels, inner
