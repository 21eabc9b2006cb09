"""Checking a user's C expressions against the Python function, before a kernel uses them."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from ...surrogates.spike_function import SpikeFunction
from . import operators
from .call import HARD, IF, SOFT, Layer

_GRID = torch.cat(
    [torch.linspace(-8, 8, 1601), torch.tensor([-1e-3, 1e-3]), torch.linspace(-0.995, 0.995, 200)]
).double()
_TOLERANCE = 1e-6  # relative to the function's largest magnitude on the grid


def check(function: SpikeFunction) -> None:
    """Compares the kernel's value and derivatives with the Python function's, in float64.

    The derivative is compared with autograd's of `primitive_function`, and that with central
    differences, at 1803 points in [-8, 8], with the function's current parameters.

    Raises:
        ValueError: they differ; the message shows where most.
    """
    if not type(function).__module__.startswith("htaf_snn."):
        values = tuple(
            float(v.detach().mean()) if isinstance(v, Tensor) else v
            for v in function.current_parameters().values()
        )
        _check(type(function), values)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=128)
def _check(cls: type[SpikeFunction], values: tuple[float, ...]) -> None:
    parameters = dict(zip(cls.parameter_names, values, strict=True))
    x = _GRID.clone().requires_grad_()
    value = cls.primitive_function(x, **parameters)
    (slope,) = torch.autograd.grad(value.sum(), x)
    h = 1e-6
    with torch.no_grad():
        ends = [cls.primitive_function(_GRID + s * h, **parameters) for s in (1, -1)]
    _compare(cls, "the gradient of primitive_function", slope, (ends[0] - ends[1]) / (2 * h), 1e-4)

    layer = Layer(f"{cls.__module__}:{cls.__qualname__}", IF, 0, 0, None, True)
    x_seq, v = _GRID[None].contiguous(), torch.zeros_like(_GRID)
    settings: tuple[Any, ...] = (None, [], list(values), layer.encode())
    tail = (torch.zeros((), dtype=torch.float64), 1)  # hardness, inner
    of = cls.expression
    assert of is not None
    if of.primitive is not None:
        spikes, _, _ = operators.neuron(x_seq, v, *settings, SOFT, *tail, False)
        _compare(cls, f"c_primitive {of.primitive!r}", spikes[0], value.detach(), _TOLERANCE)
    grad_x, *_ = torch.ops.htaf_snn.neuron_backward(
        torch.ones_like(x_seq), None, None, x_seq, v, *settings, HARD, *tail
    )
    _compare(cls, f"c_derivative {of.derivative!r}", grad_x[0], slope, _TOLERANCE)


def _compare(
    cls: type[SpikeFunction], what: str, actual: Tensor, expected: Tensor, tolerance: float
) -> None:
    error = (actual - expected).abs().nan_to_num(torch.inf)
    allowed = tolerance * max(float(expected.abs().max()), 1e-12)
    # At a kink, finite differences and one-sided derivatives disagree; a few points may.
    wrong = error > allowed
    if int(wrong.sum()) > 8:
        worst = int(error.argmax())
        raise ValueError(
            f"{cls.__name__}: {what} disagrees with the Python function at {int(wrong.sum())} of "
            f"{len(_GRID)} points, most at x = {float(_GRID[worst]):.6g}: "
            f"{float(actual[worst]):.9g} instead of {float(expected[worst]):.9g}"
        )
