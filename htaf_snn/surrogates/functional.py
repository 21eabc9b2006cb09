"""HTAF's mathematics as plain functions.

Every tensor function works in any floating dtype; half precisions are computed in float32 and
rounded once, at the end.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# A parameter of a spike function: a constant, or a tensor that broadcasts against x.
Parameter = float | Tensor


def htaf(x: Tensor, alpha0: Parameter, alpha1: Parameter) -> Tensor:
    """HTAF, the Heavy-Tailed Activation Function: a sigmoid of a tanh.

    ``HTAF(x) = sigmoid(alpha1 * tanh(alpha0 * x))``, with value 1/2 at 0, symmetry
    ``HTAF(-x) = 1 - HTAF(x)`` and range ``(sigmoid(-alpha1), sigmoid(alpha1))``.

    Its gradient is the closed form of `htaf_derivative`, which stays right in the tails, where
    differentiating the formula term by term rounds to zero.

    Args:
        x: input, dimensionless; for a neuron, the charged potential minus the threshold.
        alpha0: inner sharpness, > 0; the tail decays as ``exp(-2 alpha0 |x|)``.
        alpha1: outer saturation, > 0; the output leaks ``sigmoid(-alpha1)`` from 0 and 1.

    Shape:
        ``x`` any; a tensor ``alpha0`` or ``alpha1`` broadcasts to it. The output is like ``x``.

    Source:
        arXiv 2605.11558, "A Composite Activation Function for Learning Stable Binary
        Representations". The text at hand names a sigmoid-tanh composite and its parameter
        values, not the formula; this is the one reading that fits every value it gives.
    """
    of = _HTAF if torch.compiler.is_compiling() else _DualHTAF
    return of.apply(x, alpha0, alpha1)


def htaf_derivative(x: Tensor, alpha0: Parameter, alpha1: Parameter) -> Tensor:
    """The derivative of `htaf` with respect to ``x``.

    ``alpha0 alpha1 s (1 - s) (1 - tanh(alpha0 x)^2)`` with ``s = HTAF(x)``, where both
    ``s (1 - s)`` and the last factor are written as ``sigmoid(z) sigmoid(-z)``, so that no term
    cancels or overflows. A derivative beyond the dtype's range (float16 only) is its largest
    finite number.
    """
    y = alpha0 * x.to(compute_dtype(x.dtype))
    slope = (4 * alpha0 * alpha1) * _bump(alpha1 * torch.tanh(y)) * _bump(2 * y)
    if x.dtype == torch.float16:
        slope = slope.clamp(max=torch.finfo(x.dtype).max)
    return slope.to(x.dtype)


def heaviside(x: Tensor) -> Tensor:
    """The exact step: 1 where ``x >= 0``, else 0, as SpikingJelly's; NaN stays NaN."""
    return torch.where(x.isnan(), x, (x >= 0).to(x.dtype))


def staircase(x: Tensor, levels: int) -> Tensor:
    """The sum of ``levels`` exact steps, at 0, 1, 2, ...: an integer; NaN stays NaN."""
    return heaviside(x) if levels == 1 else (x.floor() + 1).clamp(0, levels)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a spike function of ``dtype`` is computed."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _bump(z: Tensor) -> Tensor:
    """The derivative of the sigmoid, with a relative error that stays small in both tails."""
    return torch.sigmoid(z) * torch.sigmoid(-z)


class _HTAF(torch.autograd.Function):
    """`htaf` with its closed-form gradients for x, alpha0 and alpha1."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, alpha0: Parameter, alpha1: Parameter) -> Tensor:
        y = x.to(compute_dtype(x.dtype))
        return torch.sigmoid(alpha1 * torch.tanh(alpha0 * y)).to(x.dtype)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Parameter, Parameter], output: Tensor
    ) -> None:
        x, *alphas = inputs
        tensors = [a if isinstance(a, Tensor) else None for a in alphas]
        ctx.constants = [None if isinstance(a, Tensor) else a for a in alphas]
        ctx.save_for_backward(x, *tensors)
        ctx.save_for_forward(x, *tensors)

    @staticmethod
    def _partials(ctx: Any, needed: Sequence[bool]) -> tuple[Tensor, list[Any], list[Any]]:
        """x, the alphas, and the derivatives by all three that are needed, in a wide dtype."""
        x, *saved = ctx.saved_tensors  # once: a checkpoint gives what is saved once alone
        alphas = [c if t is None else t for t, c in zip(saved, ctx.constants, strict=True)]
        alpha0, alpha1 = alphas
        wide = compute_dtype(x.dtype)
        y = x.to(wide)
        slope = htaf_derivative(x, alpha0, alpha1).to(wide)
        by_alpha1 = None
        if needed[2]:
            t = torch.tanh(alpha0 * y)
            by_alpha1 = t * _bump(alpha1 * t)
        return x, alphas, [slope, slope * y / alpha0 if needed[1] else None, by_alpha1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, alphas, (by_x, *by_alphas) = _HTAF._partials(ctx, ctx.needs_input_grad)
        g = grad.to(compute_dtype(x.dtype))
        of_x = (g * by_x).to(x.dtype) if ctx.needs_input_grad[0] else None
        of_alphas = [
            None if by is None else (g * by).sum_to_size(alpha.shape).to(alpha.dtype)
            for by, alpha in zip(by_alphas, alphas, strict=True)
        ]
        return (of_x, *of_alphas)


class _DualHTAF(_HTAF):
    """Adds a rule for forward-mode differentiation, which torch.compile does not take."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        x, _, partials = _HTAF._partials(ctx, [t is not None for t in tangents])
        total: Any = sum(
            p * t
            for p, t in zip(partials, tangents, strict=True)
            if p is not None and t is not None
        )
        return total.to(x.dtype)
