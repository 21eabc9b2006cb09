"""Switching a network between its smooth and its exact form."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based import surrogate
from torch import nn

from htaf_snn import HTAFSpike, spike_function
from htaf_snn.transfer import firing_as_trained, firing_hard


@pytest.mark.parametrize(
    ("spec", "soft"),
    [("htaf", True), ("htaf:mode=soft", True), ("htaf:mode=hard", False), ("atan", False),
     ("sigmoid:spiking=false", True)],
)  # fmt: skip
def test_forms(spec: str, soft: bool) -> None:
    function = spike_function(spec)
    net = nn.Sequential(function).eval()
    x = torch.tensor([0.3, -0.3])
    before = repr(function)
    with firing_hard(net):
        assert net(x).tolist() == [1, 0]
    with firing_as_trained(net):
        assert (net(x).tolist() != [1, 0]) is soft
    assert repr(function) == before


def test_the_form_is_restored_after_an_error() -> None:
    net = nn.Sequential(HTAFSpike(), surrogate.ATan(spiking=False))
    with pytest.raises(RuntimeError, match="no"), firing_hard(net):
        raise RuntimeError("no")
    assert net[0].mode == "auto"
    assert not net[1].spiking
