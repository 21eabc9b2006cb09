"""Batch norm statistics of the network that fires."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer
from torch import nn

from htaf_snn import HTAF, HTAFSpike, LIFNode
from htaf_snn.transfer import calibrate, freeze_norms, spike_functions


def network() -> Any:
    net = nn.Sequential(
        LIFNode(surrogate_function=HTAFSpike(alpha0=0.3)),
        layer.Conv2d(2, 3, 1),
        layer.BatchNorm2d(3),
        nn.Dropout(0.5),
    )
    functional.set_step_mode(net, "m")
    return net.eval()


def test_the_statistics_are_those_of_exact_spikes() -> None:
    net = network()
    net[3].train()  # is left as it is
    batches = [(torch.rand(4, 5, 2, 6, 6) * 3, torch.zeros(5)) for _ in range(3)]
    calibrate(net, iter(batches))
    means, variances = [], []
    for x_seq, _ in batches:
        functional.reset_net(net)
        y = net[1](net[0](x_seq))  # evaluation: exact steps
        means.append(y.mean((0, 1, 3, 4)))
        variances.append(y.transpose(0, 2).flatten(1).var(1))
    torch.testing.assert_close(net[2].running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(net[2].running_var, torch.stack(variances).mean(0))
    assert not net.training and net[3].training and net[2].momentum == 0.1
    assert {f.mode for f in spike_functions(net)} == {"auto"}


def test_limit_and_networks_without_time() -> None:
    net: Any = nn.Sequential(HTAF(), nn.BatchNorm1d(2)).eval()
    batches = [torch.full((4, 2), 1.0), torch.full((4, 2), -1.0)]
    calibrate(net, batches, limit=1)
    assert net[1].running_mean.tolist() == [1, 1]
    calibrate(net, batches)
    assert net[1].running_mean.tolist() == [0.5, 0.5]


def test_an_error_on_the_way_changes_nothing() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(RuntimeError):
        calibrate(net, [torch.rand(4, 5, 2, 6, 6), torch.rand(4, 5, 7, 6, 6)])
    assert net[2].momentum == 0.1
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="HTAF has no batch norm whose statistics are kept"):
        calibrate(HTAF(), [torch.zeros(1, 2)])
    with pytest.raises(ValueError, match=r"`limit` \(=0\) must be at least 1"):
        calibrate(network(), [], limit=0)
    net = network()
    with pytest.raises(ValueError, match="`batches` is empty"):
        calibrate(net, [])
    assert net[2].running_mean.tolist() == [0, 0, 0]


def test_frozen_norms_are_those_of_inference_and_go_on_learning() -> None:
    net = network()
    net[2].running_mean.fill_(0.3)
    x_seq = 3 * torch.rand(4, 5, 2, 6, 6)
    spikes = net[0](x_seq)
    expected = net[2](net[1](spikes))
    net.train()
    freeze_norms(net)
    y = net[2](net[1](spikes))
    y.square().sum().backward()
    torch.testing.assert_close(y, expected)
    assert net[2].running_mean.tolist() == pytest.approx([0.3] * 3)
    assert net[2].weight.grad.abs().min() > 0 and net[3].training
    net.train()
    net[2](net[1](spikes))
    assert net[2].running_mean.tolist() != pytest.approx([0.3] * 3)


def test_a_network_without_norms_has_none_to_freeze() -> None:
    with pytest.raises(ValueError, match="Sequential has no batch norm whose statistics are kept"):
        freeze_norms(nn.Sequential(HTAF()))
