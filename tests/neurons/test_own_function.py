"""A user's own spike function: one Python function, fused, and told why where it can't be."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

import htaf_snn
from htaf_snn.neurons import traced
from htaf_snn.neurons.kernels import cuda
from htaf_snn.neurons.kernels.buffers import cuda_source
from tests import nvrtc
from tests.neurons.test_cuda_source import lif
from tests.neurons.test_fused import assert_backends_agree


class Gaussian(htaf_snn.SpikeFunction):
    """What a user writes."""

    sigma: float = 0.4

    @staticmethod
    def primitive_function(x: Tensor, sigma: float | Tensor) -> Tensor:
        return 0.5 * torch.erfc(-x / (sigma * 2**0.5))


class Skewed(Gaussian):
    """Adds a parameter, and asks in Python for its value."""

    skew: float = 1.5

    @staticmethod
    def primitive_function(x: Tensor, sigma: float | Tensor, skew: float = 1.0) -> Tensor:
        if skew > 1:
            return Gaussian.primitive_function(skew * x, sigma)
        return Gaussian.primitive_function(x, sigma)


@pytest.mark.parametrize("learnable", [False, True], ids=["", "learnable"])
@pytest.mark.parametrize("mode", ["soft", "hard"])
@pytest.mark.parametrize("function", [Gaussian, Skewed])
def test_runs_fused_as_on_torch(function: Any, mode: str, learnable: bool) -> None:
    if function is Skewed and learnable:
        pytest.skip("its control flow asks for a learned value")

    def make(**options: Any) -> htaf_snn.LIFNode:
        of = function(
            sigma=0.3, mode=mode, learnable=learnable, num_channels=7 if learnable else None
        )
        return htaf_snn.LIFNode(surrogate_function=of, step_mode="m", **options)

    assert_backends_agree(make, torch.randn(5, 2, 7, 3, dtype=torch.float64))


def test_control_flow_on_a_value_is_traced_for_each_value() -> None:
    x_seq = torch.randn(5, 7)
    node = htaf_snn.LIFNode(surrogate_function=Skewed(mode="soft"), step_mode="m", backend="cpu")
    seen = []
    for skew in (1.5, 0.5):
        node.surrogate_function.skew = skew
        node.reset()
        seen.append(node(x_seq))
        node.reset()
        node.backend = "torch"
        torch.testing.assert_close(seen[-1], node(x_seq))
        node.backend = "cpu"
    assert not torch.equal(*seen)


def test_what_was_traced_or_refused_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Centred(Gaussian):
        @staticmethod
        def primitive_function(x: Tensor, sigma: float | Tensor) -> Tensor:
            return Gaussian.primitive_function(x - x.mean(), sigma)

    tried: list[str] = []
    trace = traced.trace  # type: ignore[attr-defined]
    monkeypatch.setattr(traced, "trace", lambda *a: [tried.append("once"), trace(*a)][1])  # type: ignore[func-returns-value]
    for function, most in ((Gaussian(), 1), (Skewed(), 2), (Centred(), 2)):
        node = htaf_snn.LIFNode(surrogate_function=function, tau=2.25)
        tried.clear()
        for step in range(4):
            function.hardness = 0.1 * (step + 1)  # another tensor: the plan is made anew
            traced.step_of(node)
        assert len(tried) == most, function


def test_declares_its_parameters() -> None:
    assert Gaussian.parameter_names == ("sigma",) and Skewed.parameter_names == ("sigma", "skew")
    shown = "(sigma=0.4, skew=1.5, *, mode='auto', learnable=False, num_channels=None, levels=1)"
    assert str(inspect.signature(Skewed)) == shown
    function = Skewed(0.7, skew=2.0, learnable=True)
    assert {k: v.item() for k, v in function.named_parameters()} == pytest.approx(
        {"sigma": 0.7, "skew": 2.0}
    )
    assert Gaussian().sigma == 0.4 and repr(Gaussian()) == "Gaussian(sigma=0.4, mode='auto')"
    other = Gaussian(0.9)
    other.load_state_dict(Gaussian(0.2).state_dict())
    assert other.sigma == 0.2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Gaussian(tau=1.0), TypeError, "has the fields sigma, not tau"),
        (lambda: Gaussian(1.0, 2.0), TypeError, "not 2 of them"),
        (lambda: Gaussian(-1.0), ValueError, r"`sigma` \(=-1.0\) must be positive"),
    ],
)
def test_refuses(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC: torch is not a CUDA build")
def test_compiles_for_cuda() -> None:
    source = cuda_source(lif(Gaussian()), torch.float32, 4)
    nvrtc.compile_ptx(source, 80, cuda.FLAGS)


def test_by_import_path() -> None:
    path = f"{__name__}.Gaussian"
    assert htaf_snn.spike_function(f"{path}:sigma=0.7").sigma == 0.7
    for wrong in ("no.such.Module", f"{__name__}.nothing", f"{__name__}.lif"):
        with pytest.raises(ValueError, match=wrong):
            htaf_snn.spike_function(wrong)


@pytest.mark.parametrize("function", [torch.atan, torch.erf, torch.erfc, torch.sigmoid, torch.tanh])
def test_functions_of_our_own_are_as_exact_as_they_say(function: Any) -> None:
    class One(htaf_snn.SpikeFunction):
        scale: float = 1.0

        @staticmethod
        def primitive_function(x: Tensor, scale: float | Tensor) -> Tensor:
            return function(x * scale)

    node = htaf_snn.IFNode(surrogate_function=One(mode="soft"), step_mode="m", backend="cpu")
    x = torch.cat([torch.linspace(-8, 9, 20001), torch.logspace(-6, 30, 2001),
                   torch.tensor([torch.nan, torch.inf, -torch.inf])])  # fmt: skip
    wanted = function((x - 1).double()).float()
    torch.testing.assert_close(node(x[None])[0], wanted, rtol=1e-5, atol=3e-7, equal_nan=True)
