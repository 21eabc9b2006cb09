"""Batch norm statistics of the network that fires."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn

from htaf_snn import HTAF, HTAFSpike, LIFNode
from htaf_snn.transfer import (
    batch_statistics,
    calibrate,
    freeze_norms,
    spike_functions,
    trains_by_batch,
)


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


class Alike(nn.Module):
    """A background at the threshold: it fires where a batch's mean is above its running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm1d(1, affine=False), nn.BatchNorm1d(1, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second((self.first(x) >= -0.05).float() + 1e-3 * x)


def test_norms_are_calibrated_one_after_the_other() -> None:
    net, generator = Alike(), torch.Generator().manual_seed(0)
    x = [torch.full((200, 1), 0.0) for _ in range(40)]
    for batch in x:  # mostly alike, and some outliers that move the batch's mean
        batch[:20] = torch.randn(20, 1, generator=generator).sign() * 5
    calibrate(net, x)
    net.eval()
    seen = torch.cat([(net.first(batch) >= -0.05).float() + 1e-3 * batch for batch in x])
    torch.testing.assert_close(net.second.running_mean, seen.mean(0))  # as it is used
    fired = {round(float((net.train().first(batch) >= -0.05).float().mean()), 1) for batch in x}
    assert len(fired) > 1  # in training some batches fire as a whole


def test_the_last_norm_and_frozen_ones_are_calibrated_with_the_spikes_asked_for() -> None:
    net: Any = nn.Sequential(HTAF(), nn.BatchNorm1d(1), nn.BatchNorm1d(1))
    x = [torch.tensor([[-0.5], [0.5], [0.2]])]
    freeze_norms(net)
    calibrate(net, x)
    assert net[1].running_mean.item() == pytest.approx(2 / 3)
    calibrate(net, x, hard=False)
    assert net[1].running_mean.item() == pytest.approx(HTAF()(x[0]).mean().item())
    assert net[2].running_mean.item() == pytest.approx(net[1](HTAF()(x[0])).mean().item(), abs=1e-6)
    assert net.training and not net[1].training


def test_batch_statistics_are_used_but_not_kept() -> None:
    net: Any = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2)).eval()
    x = 3 * torch.randn(7, 2) + 1
    before = copy.deepcopy(net.state_dict())
    with batch_statistics(net):
        torch.testing.assert_close(net[0](x).mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert trains_by_batch(net)
    freeze_norms(net)
    assert not trains_by_batch(net)
    with batch_statistics(net):
        torch.testing.assert_close(net[0](x), x / (1 + 1e-5) ** 0.5)


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
    assert not net.train()[2].training  # to the end
    freeze_norms(net, frozen=False)
    net[2](net[1](spikes))
    assert net[2].running_mean.tolist() != pytest.approx([0.3] * 3)


def test_a_network_without_norms_has_none_to_freeze() -> None:
    with pytest.raises(ValueError, match="Sequential has no batch norm whose statistics are kept"):
        freeze_norms(nn.Sequential(HTAF()))
