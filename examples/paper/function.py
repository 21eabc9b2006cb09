"""The numbers behind the figures about HTAF as a function, in float64.

Every quantity here is dimensionless. The derivatives are even, so that their curves need x >= 0
alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from htaf_snn.surrogates import ScaledSigmoid, functional

TOLERANCE = 0.1  # eps and delta of the bound
REFERENCE = (1.5, 1.5)  # (alpha0, alpha1) that gradient ratios are taken against
_POINTS = 401


@dataclass(frozen=True)
class Curve:
    """One line of a figure: HTAF's parameters, and the points ``x`` and ``y``, both [points]."""

    alpha0: float
    alpha1: float
    x: Tensor
    y: Tensor


def slope_at_zero(alpha0: float, alpha1: float) -> float:
    """HTAF's greatest slope, at 0: ``alpha0 * alpha1 / 4``."""
    return alpha0 * alpha1 / 4


def tail_rate(alpha0: float) -> float:
    """The rate r at which the derivative decays, as ``exp(-r |x|)``: ``2 * alpha0``.

    A scaled sigmoid of the same slope decays at the rate ``alpha0 * alpha1``, so HTAF's tail is
    the heavier one exactly when ``alpha1 > 2``.
    """
    return 2 * alpha0


def tail_coefficient(alpha0: float, alpha1: float) -> float:
    """The factor before ``exp(-tail_rate |x|)`` in the derivative, far from 0."""
    return 4 * alpha0 * alpha1 * math.exp(-alpha1) / (1 + math.exp(-alpha1)) ** 2


def gradient_mass(radius: float, alpha0: float, alpha1: float) -> float:
    """The integral of HTAF's derivative over ``[-radius, radius]``: ``2 HTAF(radius) - 1``.

    Args:
        radius: half-width of the interval around the threshold, >= 0.
        alpha0: inner sharpness, > 0.
        alpha1: outer saturation, > 0.
    """
    return math.tanh(alpha1 * math.tanh(alpha0 * radius) / 2)


def from_tolerance(eps: float, delta: float, alpha1: float) -> float:
    """The least ``alpha0`` that brings HTAF within ``eps`` of the step beyond ``delta``.

    ``|HTAF(x) - 1[x >= 0]| <= eps`` for every ``|x| >= delta`` holds if ``alpha1 > L`` and
    ``alpha0 >= atanh(L / alpha1) / delta``, where ``L = ln((1 - eps) / eps)``.

    Args:
        eps: tolerance on the output, in (0, 1/2).
        delta: half-width of the band around 0 that is left out, > 0.
        alpha1: outer saturation, > L.

    Raises:
        ValueError: an argument lies outside its range.

    Source:
        Proposition 3.1 of arXiv 2605.11558.
    """
    if not 0 < eps < 0.5:
        raise ValueError(f"`eps` (={eps}) must lie in (0, 0.5)")
    if not (delta > 0 and math.isfinite(delta)):
        raise ValueError(f"`delta` (={delta}) must be positive and finite")
    limit = math.log((1 - eps) / eps)
    if not alpha1 > limit:
        raise ValueError(
            f"`alpha1` (={alpha1}) must exceed ln((1 - eps) / eps) = {limit:.6g}, "
            f"or no alpha0 reaches eps = {eps}; raise alpha1 or eps"
        )
    return math.atanh(limit / alpha1) / delta


def outputs() -> list[Curve]:
    """HTAF over x in [-1, 1] at alpha0 = 1.5 and four alpha1."""
    x = _grid(-1, 1)
    return [Curve(1.5, alpha1, x, functional.htaf(x, 1.5, alpha1)) for alpha1 in (6, 12, 18, 24)]


def gradient_ratio(x: Tensor, alpha0: float, alpha1: float) -> Tensor:
    """HTAF's derivative at ``x`` over that of HTAF with `REFERENCE`.

    At 0 it is ``alpha0 * alpha1 / 2.25``. It grows without bound in the tail if alpha0 < 1.5,
    falls to zero if alpha0 > 1.5, and tends to a constant if alpha0 = 1.5.
    """
    reference = functional.htaf_derivative(x, *REFERENCE)
    return functional.htaf_derivative(x, alpha0, alpha1) / reference


def gradient_ratios_of_alpha1() -> list[Curve]:
    """`gradient_ratio` over x in [0, 3] at alpha0 = 1.5, where the tails run in parallel."""
    x = _grid(0, 3)
    return [Curve(1.5, a, x, gradient_ratio(x, 1.5, a)) for a in (0.75, 3, 6, 12)]


def gradient_ratios_of_alpha0() -> list[Curve]:
    """`gradient_ratio` over x in [0, 3] at alpha1 = 1.5, where alpha0 sets the tail's rate."""
    x = _grid(0, 3)
    return [Curve(a, 1.5, x, gradient_ratio(x, a, 1.5)) for a in (0.5, 0.75, 2, 3)]


def tail_ratio(u: Tensor, alpha1: float) -> Tensor:
    """HTAF's derivative over that of ``sigmoid(b x)``, ``b = alpha0 alpha1``, at ``u = b x``.

    The slopes at 0 are equal and the ratio there is 1. As HTAF is
    ``sigmoid(alpha1 tanh(u / alpha1))``, the ratio depends on alpha0 through u alone. It falls
    at first, and comes back above 1 exactly when ``alpha1 > 2``.

    Args:
        u: the input times b, [*], float64; beyond 700 both derivatives round to zero.
        alpha1: outer saturation, > 0.
    """
    # On the left, where sigmoid's derivative does not cancel; at b = 1 u is the input.
    x = -u.abs().detach().requires_grad_()
    sigmoid = ScaledSigmoid.primitive_function(x, 1.0)
    (derivative,) = torch.autograd.grad(sigmoid.sum(), x)
    return functional.htaf_derivative(x.detach(), 1 / alpha1, alpha1) / derivative


def tail_ratios() -> list[Curve]:
    """`tail_ratio` over ``b x`` in [0, 30] for b = 22, with the pairs of the depth figure."""
    u = _grid(0, 30)
    return [Curve(22 / a, a, u, tail_ratio(u, a)) for a in (1.5, 2, 2.75, 4, 11)]


def tolerance_limit() -> float:
    """What ``alpha1 * least_alpha0(alpha1)`` falls to as alpha1 grows, 21.97.

    ``ln((1 - eps) / eps) / delta`` with eps = delta = `TOLERANCE`.
    """
    return math.log((1 - TOLERANCE) / TOLERANCE) / TOLERANCE


def least_alpha0(alpha1: float) -> float:
    """The least alpha0 that brings HTAF within eps of the step beyond delta, both `TOLERANCE`.

    Args:
        alpha1: outer saturation, > ln 9 = 2.197.
    """
    return from_tolerance(TOLERANCE, TOLERANCE, alpha1)


def bound() -> tuple[Tensor, Tensor]:
    """alpha1 from 2.2 to 50, and the `least_alpha0` of each; both [points]."""
    alpha1 = torch.logspace(math.log10(2.2), math.log10(50), _POINTS, dtype=torch.float64)
    alpha0 = torch.tensor([least_alpha0(a) for a in alpha1.tolist()], dtype=torch.float64)
    return alpha1, alpha0


def _grid(start: float, end: float) -> Tensor:
    return torch.linspace(start, end, _POINTS, dtype=torch.float64)
