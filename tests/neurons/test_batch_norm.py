"""Running statistics that hold nothing of their initial values; frozen norms."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

import htaf_snn
from htaf_snn.models import model
from htaf_snn.neurons.batch_norm import AveragedNorm, average_norms


def batches(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [1e-2 * torch.randn(6, 3, 4, 4, generator=generator) - 1 for _ in range(count)]


def network(*layers: nn.Module) -> Any:
    net = nn.Sequential(*layers)
    average_norms(net)
    return net


@pytest.mark.parametrize("neurons", [False, True], ids=["apart", "fused"])
@pytest.mark.parametrize(
    ("momentum", "compiled"), [(0.1, False), (0.3, False), (1.0, False), (0.1, True)]
)
def test_averages_are_means_of_the_first_steps_then_moving(
    neurons: bool, momentum: float, compiled: bool
) -> None:
    net = network(nn.BatchNorm2d(3, momentum=momentum))
    if neurons:
        net.append(htaf_snn.LIFNode())
        htaf_snn.convert(net, fuse_norm=True)
    if compiled:
        net.compile(fullgraph=True, backend="aot_eager")
    mean, variance = torch.zeros(3).double(), torch.ones(3).double()
    for step, x in enumerate(batches(15), start=1):
        functional.reset_net(net)
        net(x.requires_grad_()).sum().backward()
        share = max(momentum, 1 / step)
        of_batch = torch.var_mean(x.detach().double(), (0, 2, 3))
        variance += share * (of_batch[0] - variance)
        mean += share * (of_batch[1] - mean)
        torch.testing.assert_close(net[0].running_mean.double(), mean, rtol=1e-5, atol=0)
        torch.testing.assert_close(net[0].running_var.double(), variance, rtol=1e-4, atol=0)
    assert net[0].momentum == momentum and int(net[0].num_batches_tracked) == 15


def test_settled_averages_are_torchs_to_the_bit() -> None:
    ours, theirs = network(nn.BatchNorm2d(3)), nn.BatchNorm2d(3)
    for x in batches(9):
        ours(x)
    theirs.load_state_dict(ours[0].state_dict())
    for x in batches(12):
        assert torch.equal(ours(x), theirs(x))
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("options", [{"momentum": None}, {"track_running_stats": False}])
def test_norms_with_another_rule_keep_it(options: dict[str, Any]) -> None:
    ours, theirs = network(nn.BatchNorm2d(3, **options)), nn.BatchNorm2d(3, **options)
    for x in batches(3):
        assert torch.equal(ours(x), theirs(x))
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.equal(a, b)


def test_an_interrupted_average_goes_on() -> None:
    whole, first = network(nn.BatchNorm2d(3)), network(nn.BatchNorm2d(3))
    data = batches(8)
    for x in data:
        whole(x)
    for x in data[:4]:
        first(x)
    second = network(nn.BatchNorm2d(3))
    second.load_state_dict(first.state_dict())
    for x in data[4:]:
        second(x)
    for a, b in zip(whole.buffers(), second.buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "make",
    [
        lambda: model("vgg_small", (2, 8, 8), 3, norm="tdbn"),
        lambda: model("imagenet_spiking_vgg11_bn", (3, 32, 32), 3, neuron.LIFNode),
        lambda: htaf_snn.convert(nn.Sequential(layer.BatchNorm1d(3), neuron.LIFNode())),
    ],
    ids=["ours", "SpikingJelly's", "converted"],
)
def test_every_network_of_ours_has_such_norms_and_reverts(make: Any) -> None:
    net = make()
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(norm, AveragedNorm) for norm in norms)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert [type(m) for m in twin.modules()] == [type(m) for m in net.modules()]
    if not isinstance(net, nn.Sequential):
        htaf_snn.convert(net)
    assert not any(isinstance(m, AveragedNorm) for m in htaf_snn.revert(net).modules())
