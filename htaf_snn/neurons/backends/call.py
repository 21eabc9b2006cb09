"""One run of a layer, as the kernels of every device take it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .program import Program, decode


class Call(NamedTuple):
    """One run of a layer; every tensor is dense, in one layout, and on one device.

    Attributes:
        program: what one neuron computes in one step.
        x: the input sequences [T, N, *].
        states: the first states [N, *], float32, or float64 for float64 input.
        numbers: of the layer: the program's arguments, then its parameters "u", of which one that
            lies on another device than the CPU stays a tensor.
        table: its parameters "n" [count, channels], of the states' dtype; None if it has none.
        channels, inner: neuron i has the parameters of channel ``(i // inner) % channels``.
    """

    program: Program
    x: Sequence[Tensor]
    states: Sequence[Tensor]
    numbers: Sequence[float | Tensor]
    table: Tensor | None
    channels: int
    inner: int

    @property
    def neurons(self) -> int:
        return self.states[0].numel() if self.states else self.x[0][0].numel()


def make_call(
    x: Sequence[Tensor],
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    numbers: Sequence[float],
    program: str,
) -> Call:
    """The run that the operators' arguments describe; copies what lies in another layout."""
    known = decode(program)
    x = [dense(x[0]), *(like(other, x[0]) for other in x[1:])]
    states = [like(state, x[0][0]) for state in states]
    if not parameters:
        return Call(known, x, states, numbers, None, 1, 1)
    letters = known.parameters
    uniform = [p.detach() for p, letter in zip(parameters, letters, strict=True) if letter == "u"]
    held = [float(p) if p.device.type == "cpu" else p for p in uniform]
    all_numbers: list[float | Tensor] = [*numbers, *held]
    each = [p.detach() for p, letter in zip(parameters, letters, strict=True) if letter == "n"]
    if not each:
        return Call(known, x, states, all_numbers, None, 1, 1)
    axes = varied(each, x[0])
    sizes = [x[0].shape[1 + a] for a in axes]
    order = memory_order(x[0])
    inner = math.prod(x[0].shape[1 + a] for a in order[order.index(axes[-1]) + 1 :])
    rows = [
        padded(p, x[0]).to(states[0].dtype).permute(order).expand(
            [x[0].shape[1 + a] if a in axes else 1 for a in order]
        )
        for p in each
    ]  # fmt: skip
    table = torch.stack([row.reshape(-1) for row in rows])
    return Call(known, x, states, all_numbers, table, math.prod(sizes), inner)


def parameter_gradients(call: Call, parameters: Sequence[Tensor], sums: Tensor) -> list[Tensor]:
    """The gradients of the learned parameters, like each, from the kernel's [learned, channels]."""
    if not call.program.learned:
        return []
    x, letters = call.x[0], call.program.parameters
    each = [p for p, letter in zip(parameters, letters, strict=True) if letter == "n"]
    axes, order = varied(each, x), memory_order(x)
    shape = [x.shape[1 + a] if a in axes else 1 for a in order]
    back = sorted(range(len(order)), key=order.__getitem__)
    found = []
    for k, own in zip(call.program.learned, sums, strict=True):
        parameter = parameters[k]
        if letters[k] == "u":
            grad = own.sum()
        else:
            grad = own.reshape(shape).permute(back).sum_to_size(padded(parameter, x).shape)
        found.append(grad.reshape(parameter.shape).to(parameter.dtype))
    return found


def dense(x_seq: Tensor) -> Tensor:
    """``x_seq`` [T, N, *] contiguous, or as it is if the channels alone are last in memory."""
    if x_seq.is_contiguous() or channels_last(x_seq):
        return x_seq
    return x_seq.contiguous()


def channels_last(x_seq: Tensor) -> bool:
    """Whether a sequence [T, N, C, *] lies in memory as [T, N, *, C]."""
    return x_seq.ndim > 3 and x_seq.movedim(2, -1).is_contiguous()


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """``tensor`` in the layout of ``other``, which has its shape and is dense."""
    if tensor.stride() == other.stride() or (tensor.is_contiguous() and other.is_contiguous()):
        return tensor
    return torch.empty_like(other, dtype=tensor.dtype).copy_(tensor)


def memory_order(x_seq: Tensor) -> list[int]:
    """The dimensions of one step from the slowest to the fastest."""
    last = x_seq.ndim - 1
    return [0, *range(2, last), 1] if not x_seq.is_contiguous() else list(range(last))


def padded(parameter: Tensor, x_seq: Tensor) -> Tensor:
    """A parameter with as many dimensions as one step has."""
    return parameter.reshape((1,) * (x_seq.ndim - 1 - parameter.ndim) + tuple(parameter.shape))


def varied(parameters: Sequence[Tensor], x_seq: Tensor) -> list[int]:
    """The dimensions of a step along which parameters vary, and those between."""
    order, dimensions = memory_order(x_seq), x_seq.ndim - 1
    along = {
        dimensions - p.ndim + a for p in parameters for a, size in enumerate(p.shape) if size != 1
    }
    found = [place for place, a in enumerate(order) if a in along]
    return order[min(found) : max(found) + 1] if found else order[:1]
