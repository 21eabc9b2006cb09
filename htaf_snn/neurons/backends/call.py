"""One run of a layer, as the kernels of every device take it."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...surrogates.expressions import Expression, expression_of_class

SOFT, HARD, STEP = 0, 1, 2  # as in kernel.h
IF, LIF, LIF_INPUT_NOT_DECAYED = 0, 1, 2

# The C types of kernel.h's LAYER_FIELDS, as `struct` writes them; P is a pointer.
LAYER_FIELDS = "qqqPPddddiiiPP"

X_TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


class Layer(NamedTuple):
    """What a layer is compiled and parametrised by, apart from what may change in training."""

    function: str  # a `class_name`
    charge: int
    reciprocal_tau: float
    v_threshold: float
    v_reset: float | None
    detach_reset: bool

    def encode(self) -> str:
        """The layer as the string that the operators take."""
        return (
            f"{self.function} {self.charge} {self.reciprocal_tau} {self.v_threshold} "
            f"{self.v_reset} {int(self.detach_reset)}"
        )

    @property
    def expression(self) -> Expression:
        return expression_of_class(self.function)


@functools.lru_cache(maxsize=1024)
def decode(text: str) -> Layer:
    """The layer that `Layer.encode` wrote."""
    function, charge, reciprocal_tau, v_threshold, v_reset, detach_reset = text.rsplit(" ", 5)
    return Layer(
        function,
        int(charge),
        float(reciprocal_tau),
        float(v_threshold),
        None if v_reset == "None" else float(v_reset),
        detach_reset == "1",
    )


class Call(NamedTuple):
    """One run of a layer; every tensor is contiguous and on one device.

    ``x_seq`` is [T, N, *]; ``v`` [N, *], ``reciprocal_tau`` a scalar (None where it is not learned)
    and ``parameters`` of the spike function [K, channels], all of the state's dtype. ``hardness``
    is the share of the step in what mode SOFT puts out, ``inner`` the number of neurons from one
    channel to the next, ``learned`` whether the parameters are.
    """

    layer: Layer
    mode: int
    hardness: float
    x_seq: Tensor
    v: Tensor
    reciprocal_tau: Tensor | None
    parameters: Tensor
    inner: int
    learned: bool

    @property
    def channels(self) -> int:
        return self.parameters.shape[1]

    def fields(self) -> tuple[Any, ...]:
        """The values of `LAYER_FIELDS`."""
        layer = self.layer
        return (
            self.v.numel(),
            self.channels,
            self.inner,
            self.parameters.data_ptr(),
            pointer(self.reciprocal_tau),
            layer.reciprocal_tau,
            layer.v_threshold,
            layer.v_reset or 0.0,
            self.hardness,
            layer.charge,
            layer.v_reset is None,
            layer.detach_reset,
            self.x_seq.data_ptr(),
            self.v.data_ptr(),
        )


def make_call(
    x_seq: Tensor,
    v: Tensor,
    learned_reciprocal_tau: Tensor | None,
    learned: list[Tensor],
    constants: list[float],
    layer: str,
    mode: int,
    hardness: Tensor,
    inner: int,
) -> Call:
    """The run that the operators' arguments describe."""
    if learned_reciprocal_tau is not None:
        learned_reciprocal_tau = learned_reciprocal_tau.detach().to(v.dtype)
    if learned:
        count = max(p.numel() for p in learned)
        table = torch.stack([p.detach().to(v.dtype).expand(count) for p in learned])
    else:
        table = _constant_table(tuple(constants), v.dtype, v.device)
    known = decode(layer)
    return Call(
        known, mode, float(hardness), x_seq, v, learned_reciprocal_tau, table, inner, bool(learned)
    )


@functools.lru_cache(maxsize=256)
def _constant_table(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)[:, None]


def pointer(tensor: Tensor | None) -> int | None:
    """A tensor's address; None stays None, a null pointer."""
    return None if tensor is None else tensor.data_ptr()
