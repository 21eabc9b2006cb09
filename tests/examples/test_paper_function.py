"""The numbers behind the figures, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from paper import function
from torch import Tensor

from tests.helpers import htaf_reference


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_outputs_cross_a_half_and_leak() -> None:
    curves = function.outputs()
    assert [(c.alpha0, c.alpha1) for c in curves] == [(1.5, a) for a in (6, 12, 18, 24)]
    for curve in curves:
        assert curve.y.dtype == torch.float64
        assert curve.y[200].item() == pytest.approx(0.5, abs=1e-14)
        end = 1 / (1 + math.exp(-curve.alpha1 * math.tanh(1.5)))
        assert curve.y[-1].item() == pytest.approx(end, rel=1e-14)


def test_gradient_ratio_at_the_threshold_and_in_the_tail() -> None:
    for alpha0, alpha1 in ((1.5, 6), (0.5, 1.5), (2, 11)):
        ratio = function.gradient_ratio(tensor(0), alpha0, alpha1).item()
        assert ratio == pytest.approx(alpha0 * alpha1 / 2.25)
    # Equal alpha0: the tails run in parallel, at a1 e^-a1 / (1 + e^-a1)^2 over that of 1.5.
    tail = function.gradient_ratio(tensor(15), 1.5, 6).item()
    bump = [a * math.exp(-a) / (1 + math.exp(-a)) ** 2 for a in (6, 1.5)]
    assert tail == pytest.approx(bump[0] / bump[1], rel=1e-9)
    # Another alpha0: the rates 2 alpha0 differ, by 2 (1.5 - 0.5) a unit of x.
    near, far = function.gradient_ratio(tensor(14, 15), 0.5, 1.5)
    assert math.log(far / near) == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize("alpha1", [1.5, 2.0, 2.75, 11.0])
def test_tail_ratio_by_the_definitions(alpha1: float) -> None:
    alpha0 = 22 / alpha1
    for x in (0.0, 0.1, 0.5, 1.3):
        e = math.exp(-22 * x)
        expected = htaf_reference(x, alpha0, alpha1)[1] / (22 * e / (1 + e) ** 2)
        ratio = function.tail_ratio(tensor(22 * x, -22 * x), alpha1)
        assert ratio.tolist() == pytest.approx([expected] * 2, rel=1e-12)


@pytest.mark.parametrize(
    ("alpha1", "crosses"),
    [(0.5, False), (1.99, False), (2.0, False), (2.1, True), (2.75, True), (11.0, True)],
)
def test_tail_is_heavier_exactly_above_two(alpha1: float, crosses: bool) -> None:
    ratio = function.tail_ratio(torch.linspace(0, 300, 3001, dtype=torch.float64), alpha1)
    assert ratio[0].item() == pytest.approx(1, abs=1e-14) and ratio[1] < 1
    above = ratio[1:] > 1
    assert above.any() == above[-1] == crosses
    assert (above[1:] >= above[:-1]).all()  # once above 1, it stays there


def test_tail_ratio_at_two_tends_to_a_constant() -> None:
    # 4 sigmoid(2) sigmoid(-2)
    assert function.tail_ratio(tensor(100), 2).item() == pytest.approx(0.4199743416)


def test_bound_of_alpha0() -> None:
    # atanh(ln 9 / 11) / 0.1, ln 9 = 2.1972246
    assert function.least_alpha0(11) == pytest.approx(2.02470, abs=1e-5)
    assert function.tolerance_limit() == pytest.approx(21.972246, abs=1e-6)
    alpha1, alpha0 = function.bound()
    product = alpha0 * alpha1
    assert alpha1[0] > math.log(9) and (product[1:] < product[:-1]).all()
    assert product[-1].item() == pytest.approx(21.9864, abs=1e-4)  # L/d (1 + (L/50)^2 / 3)
    for a1, a0 in list(zip(alpha1.tolist(), alpha0.tolist(), strict=True))[::100]:
        assert htaf_reference(0.1, a0, a1)[0] == pytest.approx(0.9, abs=1e-12)
