"""Integer spikes: outputs from 0 to D, fused, hardened, and as binary steps at inference."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

import htaf_snn
from htaf_snn import HTAFSpike, LIFNode, SharpnessSchedule, SpikeFunction, spike_function
from htaf_snn.surrogates import functional as F
from htaf_snn.surrogates import trains_smooth
from htaf_snn.transfer import binarity, binary_steps, calibrate, transfer_gap
from tests.neurons.test_fused import assert_backends_agree

X = torch.tensor([-1.0, -1e-9, 0.0, 0.9, 1.0, 2.7, 3.0, 9.0, torch.inf])


def test_outputs_are_integers_when_exact_and_a_sum_of_shifted_functions_before() -> None:
    function = HTAFSpike(levels=4)
    assert function.eval()(X).tolist() == [0, 0, 1, 1, 2, 3, 4, 4, 4]
    assert function(torch.tensor([torch.nan])).isnan()
    smooth = function.train()(X[:-1])
    parts = torch.stack([F.htaf(X[:-1] - k, 0.67, 6.0) for k in range(4)])
    torch.testing.assert_close(smooth, parts.sum(0))
    function.hardness = 1.0
    torch.testing.assert_close(function(X), HTAFSpike(levels=4, mode="hard")(X))
    assert "levels=4" in repr(function) and "levels" not in repr(HTAFSpike())
    assert spike_function("htaf:levels=3").levels == 3


def test_the_gradient_is_the_true_derivative_and_in_mode_hard_the_same() -> None:
    x = torch.linspace(-2, 5, 15, dtype=torch.float64, requires_grad=True)
    function = HTAFSpike(levels=3, learnable=True).double()
    assert torch.autograd.gradcheck(function, x)
    (smooth,) = torch.autograd.grad(function(x).sum(), x)
    function.mode = "hard"
    (hard,) = torch.autograd.grad(function(x).sum(), x)
    assert torch.equal(smooth, hard) and smooth.min() > 0


def test_half_precision_rounds_once() -> None:
    x = torch.linspace(-2, 5, 100).to(torch.bfloat16)
    function = HTAFSpike(levels=4)
    assert torch.equal(function(x), function(x.float()).to(torch.bfloat16))


def test_a_function_of_ones_own_has_levels_too() -> None:
    class Ramp(SpikeFunction):
        width: float = 0.5

        @staticmethod
        def primitive_function(x: Tensor, width: float) -> Tensor:
            return (x / width + 0.5).clamp(0, 1)

    assert Ramp(levels=2)(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist() == [0, 0.5, 1, 1.5, 2]


@pytest.mark.parametrize("levels", [0, -1, 1.5])
def test_refuses_levels(levels: Any) -> None:
    with pytest.raises(ValueError, match=rf"`levels` \(={levels}\) must be an integer"):
        HTAFSpike(levels=levels)


def test_equals_spikingjellys_integer_neuron() -> None:
    """Which rounds, where ours rounds down: half a potential more at first, and in each input."""
    torch.manual_seed(0)
    tau, x_seq = 4 / 3, 3 * torch.randn(20, 50, dtype=torch.float64)
    theirs = neuron.ILIFNode(tau, step_mode="m", store_v_seq=True)
    options: dict[str, Any] = {"v_reset": None, "step_mode": "m", "store_v_seq": True}
    function = HTAFSpike(levels=4, mode="soft")
    function.hardness = 1.0
    ours = LIFNode(tau, decay_input=False, surrogate_function=function, **options)
    ours.v = 0.5 * torch.ones(50, dtype=torch.float64)
    expected = theirs(x_seq)
    assert expected.unique().tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(ours(x_seq + 0.5 / tau), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.v_seq - 0.5, theirs.v_seq)


def test_rounding_makes_spikingjellys_integer_neuron_and_its_gradient() -> None:
    torch.manual_seed(0)
    x_seq = 3 * torch.randn(2, 20, 50, dtype=torch.float64)
    theirs = neuron.ILIFNode(step_mode="m", detach_reset=True)
    ours = LIFNode(
        4 / 3, decay_input=False, v_reset=None, surrogate_function=spike_function("integer"),
        step_mode="m", detach_reset=True, backend="cpu",
    )  # fmt: skip
    seen = []
    for node in (theirs, ours):
        own = x_seq[0].clone().requires_grad_()
        spike_seq = node(own)
        (spike_seq * x_seq[1]).sum().backward()
        seen.append((spike_seq, own.grad))
    assert seen[0][0].unique().tolist() == [0, 1, 2, 3, 4]
    for expected, got in zip(*seen, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    clamped = torch.linspace(-2, 6, 101, dtype=torch.float64)
    function = spike_function("integer:levels=3")
    assert torch.equal(function(clamped - 1), (clamped.clamp(0, 3) + 0.5).floor())
    assert not trains_smooth(function) and trains_smooth(spike_function("integer:mode=auto"))


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_fused_equals_the_reference(mode: Any) -> None:
    torch.manual_seed(0)

    def make(**options: Any) -> LIFNode:
        function = HTAFSpike(levels=3, mode=mode, learnable=True)
        function.hardness = 0.4 if mode == "soft" else 0.0
        return LIFNode(surrogate_function=function, step_mode="m", v_reset=None, **options)

    assert_backends_agree(make, 3 * torch.randn(5, 3, 3, 5, dtype=torch.float64))


def test_a_reset_to_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`v_reset` \(=0.0\) must be None .*levels \(=4\)"):
        LIFNode(surrogate_function=HTAFSpike(levels=4))
    net: Any = nn.Sequential(neuron.LIFNode(surrogate_function=HTAFSpike(levels=4)))
    with pytest.raises(ValueError, match="must be None"):
        htaf_snn.convert(net)
    assert type(net[0]) is neuron.LIFNode
    net[0].v_reset = None
    htaf_snn.convert(net)
    assert type(net[0]) is LIFNode


def network() -> Any:
    torch.manual_seed(0)

    def node() -> LIFNode:
        return LIFNode(v_reset=None, surrogate_function=HTAFSpike(levels=4))

    net = nn.Sequential(
        layer.Conv2d(1, 6, 3), layer.BatchNorm2d(6), node(), layer.MaxPool2d(2),
        layer.Conv2d(6, 8, 2), node(), layer.AvgPool2d(2), layer.Conv2d(8, 8, 1),
        layer.BatchNorm2d(8), node(), layer.Flatten(), layer.Linear(8, 3),
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    with torch.no_grad():
        for part in net:
            if isinstance(part, nn.Conv2d | nn.BatchNorm2d):
                part.weight *= 4
    return net


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand(3, 12, 1, 8, 8, generator=generator), torch.arange(12) % 3) for _ in range(3)
    ]


def test_the_gap_is_measured_and_closed_as_of_binary_spikes() -> None:
    net = network()
    calibrate(net, batches())
    gap = transfer_gap(net, batches())
    assert max(one.hard_rate for one in gap.layers) > 0.5
    assert all(0 < one.uncertain < 1 for one in gap.layers)
    before = binarity(net, [batches()[0][0]])
    assert 0 < before.share < 1 and 0 < before.entropy < 1
    schedule = SharpnessSchedule(net, 2, hardening=(0.0, 1.0))
    for _ in range(2):
        schedule.step()
    closed = transfer_gap(net, batches())
    assert closed.gap_pp == 0 and not closed.layers


def test_binary_steps_have_the_same_outputs() -> None:
    net, x_seq = network().eval(), batches()[0][0]
    counts: list[Tensor] = []
    handle = net[2].register_forward_hook(lambda _m, _x, spikes: counts.append(spikes.max()))
    with torch.no_grad():
        expected = net(x_seq)
    handle.remove()
    functional.reset_net(net)
    binary = binary_steps(copy.deepcopy(net), x_seq)
    seen: list[Tensor] = []
    for module in binary.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_pre_hook(lambda _m, given: seen.append(given[0]))
    functional.reset_net(binary)
    torch.testing.assert_close(binary(x_seq), expected)
    assert expected.any() and counts[0] > 1
    values = [x.unique().tolist() for x in seen]
    assert values[1] == values[3] == [0, 1]  # the others read the image and an average
    assert [len(x) for x in seen] == [3, 12, 3, 12]
    with pytest.raises(ValueError, match=r"from 0 to 4: .*call net.eval\(\)"):
        functional.reset_net(binary)
        binary.train()(x_seq)


def test_binary_steps_need_integer_spikes() -> None:
    with pytest.raises(ValueError, match="its spikes are binary"):
        binary_steps(nn.Sequential(LIFNode(surrogate_function=HTAFSpike())), torch.rand(2, 3))
