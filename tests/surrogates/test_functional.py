"""HTAF's mathematics against its definition, in closed form and by finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from paper import function
from scipy.integrate import quad

from htaf_snn.surrogates import functional as F
from tests.helpers import htaf_reference as reference

SHARPNESS = st.floats(1e-3, 1e4)
MODERATE = st.floats(0.1, 20)
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def finite_inputs(dtype: torch.dtype) -> torch.Tensor:
    magnitudes = torch.logspace(-45, 38, 500, base=10, dtype=torch.float64)
    values = torch.cat([-magnitudes, torch.zeros(1), magnitudes, torch.linspace(-9, 9, 2001)])
    values = torch.cat([values, torch.tensor([1e30, -1e30, torch.finfo(dtype).max])]).to(dtype)
    return values[values.isfinite()]


@pytest.mark.parametrize(
    "alphas", [(0.67, 6), (1.5, 6), (2, 11), (1e4, 1e4), (1e-3, 1e4), (1e4, 1)]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_value_and_gradient_are_finite_and_right(
    alphas: tuple[float, float], dtype: torch.dtype
) -> None:
    x = finite_inputs(dtype).requires_grad_()
    value = F.htaf(x, *alphas)
    value.sum().backward()
    assert x.grad is not None and value.dtype == x.grad.dtype == dtype
    expected = np.array([reference(float(y), *alphas) for y in x.detach()])
    eps = torch.finfo(dtype).eps
    computed = min(eps, torch.finfo(torch.float32).eps)
    largest, smallest = torch.finfo(dtype).max, torch.finfo(dtype).tiny
    # An exponent of size a1 carries that many rounding errors of the computation.
    tolerance = 4 * eps + 8 * computed * (1 + alphas[1])
    np.testing.assert_allclose(
        value.detach().double(), expected[:, 0], rtol=tolerance, atol=smallest
    )
    underflow = smallest * (2 + 4 * alphas[0] * alphas[1])  # of a sigmoid, times its factor
    slope = np.minimum(expected[:, 1], largest)
    with np.errstate(over="ignore"):
        exponent = 1 + alphas[1] + np.minimum(np.abs(alphas[0] * x.detach().double().numpy()), 1e3)
    error = np.abs(x.grad.double().numpy() - slope)
    assert (error <= slope * (4 * eps + 8 * computed * exponent) + underflow).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_stays_nan(dtype: torch.dtype) -> None:
    x = torch.tensor([math.nan, 0.0], dtype=dtype, requires_grad=True)
    value = F.htaf(x, 1.5, 6)
    value.sum().backward()
    assert x.grad is not None
    for tensor in (value, x.grad, F.htaf_derivative(x, 1.5, 6), F.heaviside(x)):
        assert tensor.isnan().tolist() == [True, False]


@given(x=st.floats(-50, 50), alpha0=SHARPNESS, alpha1=SHARPNESS)
def test_symmetry_and_range(x: float, alpha0: float, alpha1: float) -> None:
    both = F.htaf(torch.tensor([x, -x], dtype=torch.float64), alpha0, alpha1)
    assert both.sum() == pytest.approx(1, abs=1e-15)
    leak = math.exp(-alpha1) / (1 + math.exp(-alpha1))
    assert leak * (1 - 1e-12) - 1e-300 <= both.min() and both.max() <= (1 - leak) * (1 + 1e-12)


@given(x=st.floats(-5, 5), alpha0=MODERATE, alpha1=MODERATE)
def test_derivative_is_that_of_the_value(x: float, alpha0: float, alpha1: float) -> None:
    h = 1e-5 / (alpha0 * (1 + alpha1))
    upper, lower = F.htaf(torch.tensor([x + h, x - h], dtype=torch.float64), alpha0, alpha1)
    derivative = F.htaf_derivative(torch.tensor(x, dtype=torch.float64), alpha0, alpha1)
    assert derivative == pytest.approx(
        float(upper - lower) / (2 * h), rel=1e-4, abs=1e-6 * alpha0 * alpha1
    )


def test_gradients_of_input_and_parameters_twice_differentiable() -> None:
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    alpha0 = torch.tensor([[0.5, 1.5, 3.0]], dtype=torch.float64, requires_grad=True)
    alpha1 = torch.tensor(6.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(F.htaf, (x, alpha0, alpha1))
    assert torch.autograd.gradgradcheck(F.htaf, (x, alpha0, alpha1))


@given(eps=st.floats(1e-3, 0.4), delta=st.floats(1e-2, 2), factor=st.floats(1.01, 5))
def test_from_tolerance_meets_its_bound_and_is_the_least(
    eps: float, delta: float, factor: float
) -> None:
    alpha1 = factor * math.log((1 - eps) / eps)
    alpha0 = function.from_tolerance(eps, delta, alpha1)
    x = torch.cat([torch.linspace(delta, delta + 5, 50, dtype=torch.float64)])
    assert (F.htaf(x, alpha0, alpha1) >= 1 - eps - 1e-9).all()
    assert (F.htaf(-x, alpha0, alpha1) <= eps + 1e-9).all()
    assert F.htaf(x[:1], 0.99 * alpha0, alpha1) < 1 - eps


def test_from_tolerance_gives_the_papers_pair() -> None:
    assert function.from_tolerance(0.1, 0.1, 11) == pytest.approx(2.025, abs=1e-3)
    assert function.from_tolerance(0.1, 0.1, 1e4) * 1e4 == pytest.approx(21.97, abs=1e-2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.1, 11), "eps"),
        ((0.5, 0.1, 11), "eps"),
        ((0.1, 0, 11), "delta"),
        ((0.1, 0.1, 2), "2.19"),
    ],
)
def test_from_tolerance_refuses(arguments: tuple[float, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function.from_tolerance(*arguments)


@given(alpha0=MODERATE, alpha1=MODERATE)
def test_slope_and_tail(alpha0: float, alpha1: float) -> None:
    zero = F.htaf_derivative(torch.zeros((), dtype=torch.float64), alpha0, alpha1)
    assert zero == pytest.approx(function.slope_at_zero(alpha0, alpha1))
    far = torch.tensor(20 / alpha0, dtype=torch.float64)
    tail = function.tail_coefficient(alpha0, alpha1) * math.exp(-function.tail_rate(alpha0) * far)
    assert F.htaf_derivative(far, alpha0, alpha1) == pytest.approx(tail, rel=1e-9)


@given(radius=st.floats(0.01, 3), alpha0=st.floats(0.2, 4), alpha1=st.floats(0.5, 12))
def test_gradient_mass_is_the_integral(radius: float, alpha0: float, alpha1: float) -> None:
    assume(alpha0 * radius < 10)
    integral, _ = quad(lambda x: reference(x, alpha0, alpha1)[1], -radius, radius)
    assert function.gradient_mass(radius, alpha0, alpha1) == pytest.approx(integral, rel=1e-6)


def test_heavier_tail_than_the_sigmoid_of_equal_slope_above_alpha1_2() -> None:
    x = torch.tensor(6.0, dtype=torch.float64)
    for alpha1, heavier in ((1.8, False), (2.2, True), (6.0, True)):
        b = 2.0 * alpha1
        sigmoid = b * torch.sigmoid(b * x) * torch.sigmoid(-b * x)
        assert bool(F.htaf_derivative(x, 2.0, alpha1) > sigmoid) is heavier
