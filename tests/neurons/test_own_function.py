"""A user's own spike function: fused, checked, and told where it is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import htaf_snn
from htaf_snn.neurons.backends import cuda
from htaf_snn.surrogates import expressions
from tests import nvrtc
from tests.neurons.test_fused import assert_backends_agree


class Gaussian(htaf_snn.SpikeFunction):
    """What a user writes."""

    parameter_names = ("sigma",)
    c_primitive = "erfc(-x / (sigma * sqrt(2))) / 2"
    c_derivative = "exp_negative(-square(x / sigma) / 2) / (sigma * sqrt(6.283185307179586))"

    def __init__(self, sigma: float = 0.4, mode: htaf_snn.surrogates.Mode = "auto") -> None:
        super().__init__(sigma=sigma, mode=mode)

    @staticmethod
    def primitive_function(x: Tensor, sigma: float) -> Tensor:
        value: Tensor = torch.special.ndtr(x / sigma)
        return value


class WrongPrimitive(Gaussian):
    c_primitive = "erfc(-x / sigma) / 2"


class WrongDerivative(Gaussian):
    c_derivative = "exp_negative(-square(x / sigma) / 2) / sigma"


class WrongPython(Gaussian):
    c_primitive = Gaussian.c_primitive
    c_derivative = Gaussian.c_derivative

    @staticmethod
    def primitive_function(x: Tensor, sigma: float) -> Tensor:
        return Gaussian.primitive_function(x.detach(), sigma) + 0 * x


class NotC(Gaussian):
    c_primitive = "ndtr(x / sigma)"


class AnotherPrimitive(Gaussian):
    """Without expressions of its own it must not take its base's."""

    @staticmethod
    def primitive_function(x: Tensor, sigma: float) -> Tensor:
        return torch.sigmoid(x / sigma)


def layer(function: htaf_snn.SpikeFunction, backend: htaf_snn.neurons.Backend) -> Tensor:
    node = htaf_snn.LIFNode(surrogate_function=function, step_mode="m", backend=backend)
    spikes: Tensor = node(torch.randn(3, 4))
    return spikes


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_runs_fused_as_on_torch(mode: htaf_snn.surrogates.Mode) -> None:
    def make(**options: Any) -> htaf_snn.LIFNode:
        function = Gaussian(0.3, mode)
        return htaf_snn.LIFNode(surrogate_function=function, step_mode="m", **options)

    assert_backends_agree(make, torch.randn(5, 7, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (WrongPrimitive, r"WrongPrimitive: c_primitive .* most at x = -?\d.*instead of"),
        (WrongDerivative, r"WrongDerivative: c_derivative .* most at x = "),
        (WrongPython, r"WrongPython: the gradient of primitive_function disagrees"),
    ],
)
def test_disagreement_is_shown(wrong: type[Gaussian], message: str) -> None:
    for backend in ("auto", "cpu"):
        with pytest.raises(ValueError, match=message):
            layer(wrong(), backend)
    layer(wrong(), "torch")


def test_what_does_not_compile_says_so() -> None:
    with pytest.raises(htaf_snn.BackendUnavailableError, match=r"(?s)could not compile.*ndtr"):
        layer(NotC(), "cpu")
    layer(NotC(), "auto")


def test_another_primitive_without_expressions_runs_on_torch() -> None:
    assert AnotherPrimitive.expression is None
    layer(AnotherPrimitive(), "auto")
    with pytest.raises(htaf_snn.BackendUnavailableError, match="no C expression"):
        layer(AnotherPrimitive(), "cpu")


@pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC: torch is not a CUDA build")
def test_compiles_for_cuda() -> None:
    found = expressions.expression(Gaussian())
    assert found is not None
    nvrtc.compile_ptx(cuda.source(found, torch.float32, 4), 80, cuda._FLAGS)


def test_by_import_path() -> None:
    path = f"{__name__}.Gaussian"
    assert htaf_snn.spike_function(f"{path}:sigma=0.7").sigma == 0.7
    for wrong in ("no.such.Module", f"{__name__}.nothing", f"{__name__}.layer"):
        with pytest.raises(ValueError, match=wrong):
            htaf_snn.spike_function(wrong)
