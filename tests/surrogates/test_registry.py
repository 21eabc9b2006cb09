"""Spike functions by name."""

from __future__ import annotations

import contextlib

import pytest
import torch
from spikingjelly.activation_based import surrogate

from htaf_snn import HTAFSpike, SpikeFunction, spike_function, spike_function_names
from htaf_snn.surrogates import trains_smooth


def test_every_built_in_of_the_host_is_known() -> None:
    built = {type(spike_function(name)).__name__ for name in spike_function_names()}
    host = {
        name
        for name, value in vars(surrogate).items()
        if isinstance(value, type) and issubclass(value, surrogate.SurrogateFunctionBase)
    }
    missing = host - built
    assert missing == {"SurrogateFunctionBase", "MultiLevelSpikeCount", "PoissonPass"}


def test_parameters() -> None:
    function = spike_function("htaf:alpha0=0.67:mode=hard:learnable=true")
    assert isinstance(function, HTAFSpike)
    assert repr(function).startswith("HTAFSpike(alpha0=0.67 (learnable)")
    assert spike_function("atan:alpha=3").alpha == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("htfa", "unknown spike function 'htfa'; the known ones are htaf, .*atan.*super_spike"),
        ("htaf:alpha=1", "'alpha=1' in .* alpha0, alpha1, mode"),
        ("htaf:alpha0", "must read parameter=value"),
        ("htaf:alpha0=-1", r"'htaf:alpha0=-1': `alpha0` \(=-1.0\)"),
        ("atan:mode=smooth", r"`mode` \(='smooth'\)"),
        ("leaky_k_relu:mode=auto", r"LeakyKReLU has a `leak` \(=0.0\) that is no positive float"),
        ("soft_sign:alpha=0", "alpha must be lager"),
        ("htaf:alpha0=high", "'htaf:alpha0=high'"),
    ],
)
def test_refuses(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spike_function(spec)


@pytest.mark.parametrize(
    ("spec", "smooth"),
    [("htaf", True), ("htaf:mode=hard", False), ("straight_through", False), ("atan", False),
     ("atan:spiking=false", True), ("atan:mode=auto", True), ("atan:mode=hard", False),
     ("scaled_sigmoid", True)],
)  # fmt: skip
def test_trains_smooth(spec: str, smooth: bool) -> None:
    assert trains_smooth(spike_function(spec)) is smooth


SMOOTH = ("atan", "erf", "nonzero_sign_log_abs", "piecewise_exp", "piecewise_leaky_relu",
          "piecewise_quadratic", "q_pseudo_spike", "rect", "s2nn", "sigmoid",
          "soft_sign")  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_a_built_in_trains_smooth_with_its_own_primitive(name: str) -> None:
    own, smooth = spike_function(name), spike_function(f"{name}:mode=auto")
    assert isinstance(smooth, SpikeFunction)
    assert smooth.current_parameters() == own._sg_params
    x = torch.linspace(-1.97, 1.97, 40, dtype=torch.float64).requires_grad_()
    primitive = own.primitive_function(x, **own._sg_params)
    assert torch.equal(smooth.train()(x), primitive)
    assert torch.equal(smooth.eval()(x), (x >= 0).double())
    (through,) = torch.autograd.grad(smooth.train()(x).sum(), x)
    (surrogate_gradient,) = torch.autograd.grad(own(x).sum(), x)
    # S2NN's primitive adds 1e-5 within a logarithm.
    assert torch.allclose(through, surrogate_gradient, atol=1e-4)
    smooth.hardness = 0.5
    assert torch.allclose(smooth(x), 0.5 * (primitive + (x >= 0).double()))


def test_those_are_all_that_can() -> None:
    found = []
    for name in spike_function_names()[4:]:
        with contextlib.suppress(ValueError):
            spike_function(f"{name}:mode=auto")
            found.append(name)
    assert tuple(found) == SMOOTH
