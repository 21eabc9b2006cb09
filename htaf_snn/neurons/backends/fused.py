"""A neuron layer on the fused kernel: which function, which mode, which layout."""

from __future__ import annotations

from typing import NamedTuple

import torch
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor

from ...surrogates.expressions import Expression, class_name, expression, parameters
from ...surrogates.spike_function import SpikeFunction
from . import operators
from .call import HARD, SOFT, STEP, X_TYPES, Layer

_SMOOTH = torch.zeros((), dtype=torch.float64)  # the hardness of functions that have none


class Leak(NamedTuple):
    """What distinguishes IF, LIF and PLIF: ``charge`` of `call`, and 1/tau."""

    charge: int
    reciprocal_tau: float = 0.0
    learned: Tensor | None = None  # 1/tau where it is learned


def firing_mode(function: SurrogateFunctionBase) -> int:
    """The kernel's mode for a spike function as it stands."""
    if isinstance(function, SpikeFunction):
        if not function.spiking:
            return SOFT
        return HARD if function.mode == "hard" else STEP
    return HARD if getattr(function, "spiking", True) else SOFT


def obstacle(function: SurrogateFunctionBase, leak: Leak | None, x_seq: Tensor) -> str | None:
    """Why the layer can't run fused, or None if it can."""
    name = type(function).__name__
    if leak is None:
        return "the neuron has a charge equation of its own, or a tensor for a constant"
    if x_seq.dtype not in X_TYPES:
        return f"there is no kernel for {x_seq.dtype}"
    found = expression(function)
    if found is None:
        return f"{name} has no C expression"
    if found.primitive is None and firing_mode(function) == SOFT:
        return f"{name} has no C expression of its primitive"
    values = parameters(function, found).values()
    learned = [value for value in values if isinstance(value, Tensor)]
    if learned:
        if not isinstance(function, SpikeFunction):
            return f"{name} has a tensor for a parameter"
        if not found.parameter_derivatives:
            return f"{name} has no C expressions of its parameters' derivatives"
        channels = max(value.numel() for value in learned)
        if channels > 1 and (x_seq.ndim < 3 or x_seq.shape[2] != channels):
            return f"{name} has {channels} channels, unlike its input"  # the reference explains
    return None


def multi_step(
    x_seq: Tensor,
    v: Tensor,
    leak: Leak,
    function: SurrogateFunctionBase,
    v_threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    store_v_seq: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`reference.multi_step` on the fused kernel of the tensors' device."""
    found = expression(function)
    assert found is not None
    learned, constants = _split(function, found)
    order = None if x_seq.is_contiguous() else _memory_order(x_seq)
    inner = 1
    if any(value.ndim for value in learned):
        dimensions = order or list(range(x_seq.ndim))
        for dimension in dimensions[dimensions.index(2) + 1 :]:
            inner *= x_seq.shape[dimension]
    if order is not None:
        x_seq = x_seq.permute(order)
        v = v.permute([d - 1 for d in order[1:]])
    layer = Layer(
        class_name(function), leak.charge, leak.reciprocal_tau, v_threshold, v_reset, detach_reset
    )
    spike_seq, v_last, v_seq = operators.neuron(
        x_seq.contiguous(),
        v.contiguous(),
        leak.learned,
        learned,
        constants,
        layer.encode(),
        firing_mode(function),
        getattr(function, "_hardness", _SMOOTH),
        inner,
        store_v_seq,
    )
    if order is not None:
        back = sorted(range(len(order)), key=order.__getitem__)
        spike_seq = spike_seq.permute(back)
        # Not a view: `functional.detach_net` detaches the state in place.
        v_last = v_last.permute([d - 1 for d in back[1:]]).clone()
        v_seq = v_seq.permute(back) if store_v_seq else v_seq
    return spike_seq, v_last, v_seq if store_v_seq else None


def _split(function: SurrogateFunctionBase, of: Expression) -> tuple[list[Tensor], list[float]]:
    values = parameters(function, of).values()
    learned = [value for value in values if isinstance(value, Tensor)]
    return learned, [] if learned else [float(value) for value in values]


def _memory_order(x_seq: Tensor) -> list[int]:
    """The dimensions from the slowest to the fastest, time first: channels_last stays in place."""
    return [0, *sorted(range(1, x_seq.ndim), key=x_seq.stride, reverse=True)]
