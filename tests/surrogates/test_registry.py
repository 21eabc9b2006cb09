"""Spike functions by name."""

from __future__ import annotations

import pytest
from spikingjelly.activation_based import surrogate

from htaf_snn import HTAFSpike, spike_function, spike_function_names
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
     ("atan:spiking=false", True), ("scaled_sigmoid", True)],
)  # fmt: skip
def test_trains_smooth(spec: str, smooth: bool) -> None:
    assert trains_smooth(spike_function(spec)) is smooth
