"""One term of a kernel at a time, in a place where nothing else hides it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn

import htaf_snn
from htaf_snn import HTAFSpike, ScaledSigmoid
from htaf_snn.neurons.norm_fusion import fuse_norms
from htaf_snn.neurons.traced import frozen


def gradients(net: nn.Module, x: Tensor, weights: Tensor | None = None) -> list[Tensor]:
    functional.reset_net(net)
    net.zero_grad()
    x = x.detach().clone().requires_grad_()
    y = net(x)
    if weights is None:
        weights = 1 + torch.arange(y.numel()).view_as(y).remainder(7)
    (y * weights.to(y)).sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad for p in net.parameters() if p.grad is not None)]


@pytest.mark.parametrize("frozen_norm", [False, True])
def test_what_rounding_took_from_a_mean_is_given_back(frozen_norm: bool) -> None:
    """The mean lies between two floats, a thirtieth of a standard deviation from the nearer."""
    torch.manual_seed(0)
    x = 1000 + 1e-3 * torch.randn(4, 8, 3, 50)
    net: Any = nn.Sequential(
        layer.BatchNorm1d(3), htaf_snn.IFNode(0.4, None, HTAFSpike(mode="soft"))
    )
    functional.set_step_mode(net, "m")
    if frozen_norm:
        net[0].running_mean.copy_(x.double().mean((0, 1, 3)))
        net[0].running_var.fill_(1e-6)
        net[0].eval()
    net[0].eps = 1e-9
    weights = 1 + 1e3 * (x.double() - 1000)  # go with x, so that its weight's gradient is large
    exact = gradients(copy.deepcopy(net).double(), x.double(), weights)
    assert not fuse_norms(net)
    for got, wanted in zip(gradients(net, x, weights), exact, strict=True):
        scale = float(wanted.abs().max())
        torch.testing.assert_close(got.double(), wanted, rtol=0, atol=2e-3 * scale)


class Function(htaf_snn.SpikeFunction):
    scale: float = 1.0


def of(primitive: Any) -> Any:
    return type("Own", (Function,), {"primitive_function": staticmethod(primitive)})(mode="soft")


def on_both(node: Any, x: Tensor) -> list[list[Tensor]]:
    seen = []
    for backend in ("torch", "cpu"):
        node.backend = backend
        seen.append(gradients(node, x))
    return seen


@pytest.mark.parametrize("other", [1.0, -2.0, -1.0])
def test_a_product_of_sigmoids_is_no_derivative_unless_they_mirror(other: float) -> None:
    function = of(lambda x, scale: torch.sigmoid(scale * x) * torch.sigmoid(other * x))
    node = htaf_snn.IFNode(surrogate_function=function, step_mode="m")
    for a, b in zip(*on_both(node, torch.randn(3, 40)), strict=True):
        torch.testing.assert_close(b, a)


def test_the_tails_of_a_sigmoids_gradient_are_right_to_where_floats_end() -> None:
    node = htaf_snn.IFNode(0.0, surrogate_function=of(lambda x, scale: torch.sigmoid(scale * x)))
    node.backend = "cpu"
    x = torch.cat([torch.linspace(-75, 75, 301), torch.tensor([-1e38, -1e30, 1e30, 1e38])])
    x.requires_grad_()
    node(x[None]).sum().backward()
    z = x.detach().double()
    wanted = torch.sigmoid(z) * torch.sigmoid(-z)
    torch.testing.assert_close(x.grad, wanted.float(), rtol=3e-5, atol=1e-38)


@pytest.mark.parametrize("function", [HTAFSpike, ScaledSigmoid])
def test_a_potential_of_1e38_has_no_gradient(function: Any) -> None:
    x = torch.tensor([[1e38, -1e38, 3e38, 0.5], [0.5, 0.5, 0.5, 0.5]])
    node = htaf_snn.LIFNode(surrogate_function=function(mode="soft"), step_mode="m")
    for a, b in zip(*on_both(node, x), strict=True):
        torch.testing.assert_close(b, a, equal_nan=True)


class Sum(htaf_snn.Neuron):
    def step(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        return self.surrogate_function(v + x), x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_ties_to_even(dtype: torch.dtype) -> None:
    ulp = torch.finfo(dtype).eps
    first = torch.tensor([1.0, 1 + ulp, 1 + 2 * ulp, -1.0, -1 - ulp, 2.0**-14, 1.0])
    tie = torch.tensor([ulp, ulp, ulp, -ulp, -ulp, 0.0, ulp * 1.01]) / 2
    x = torch.stack([first, tie]).to(dtype)
    function = of(lambda x, scale: scale * x)
    node = Sum(surrogate_function=function, step_mode="m", backend="cpu")
    wanted = torch.stack([x[0].float(), x[0].float() + x[1].float()]).to(dtype)
    assert torch.equal(node(x), wanted)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 41, 41), (2, 7, 300, 3, 3), (3, 2, 2500, 2, 1)])
def test_parameters_of_channels_over_many_chunks(
    shape: tuple[int, ...], channels_last: bool
) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    if channels_last:
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    node = htaf_snn.LIFNode(
        surrogate_function=HTAFSpike(mode="soft"), step_mode="m", learn=("v_threshold", "tau"),
        num_channels=shape[2],
    ).double()  # fmt: skip
    with torch.no_grad():
        node.tau.copy_(1.5 + torch.rand(shape[2]))
        node.v_threshold.copy_(0.5 + torch.rand(shape[2]))
    for a, b in zip(*on_both(node, x), strict=True):
        torch.testing.assert_close(b, a)


def test_frozen_values_tell_types_apart() -> None:
    for a, b in (
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ([1], [1.0]),
        ([1], (1,)),
        ({"a": 0}, {"a": 0.0}),
    ):
        assert frozen(a) != frozen(b) and frozen(a) == frozen(copy.deepcopy(a))
    assert frozen(float("nan")) == frozen(float("nan"))


def test_a_replica_has_no_part_in_its_originals_calls() -> None:
    node = htaf_snn.LIFNode(surrogate_function=HTAFSpike(mode="soft"), step_mode="m")
    x = torch.randn(4, 3)
    node(x)
    replica = node._replicate_for_data_parallel()
    replica.reset()
    replica.tau = 5.0
    assert not torch.equal(replica(x), node(x))
    node.reset()
    other = htaf_snn.LIFNode(5.0, surrogate_function=HTAFSpike(mode="soft"), step_mode="m")
    replica.reset()
    assert torch.equal(replica(x), other(x))


def test_a_buffer_that_is_replaced_or_filled_is_read_anew() -> None:
    class Scaled(htaf_snn.Neuron):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.register_buffer("scale", torch.tensor(0.5))

        def step(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
            spike = self.surrogate_function(x + v * self.scale - self.v_threshold)
            return spike, x + v

    node, x = Scaled(step_mode="m"), torch.randn(4, 3)
    for change in (
        lambda: None,
        lambda: setattr(node, "scale", torch.tensor(2.0)),
        lambda: node.scale.data.fill_(3.0),
        lambda: setattr(node, "scale", torch.tensor([1.0, 2.0, 3.0])),
    ):
        change()
        for a, b in zip(*on_both(node, x), strict=True):
            torch.testing.assert_close(b, a)
