"""Batch norm statistics of the network that fires, and weights with which every layer fires."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

import htaf_snn
from htaf_snn import HTAF, HTAFSpike, LIFNode, SharpnessSchedule, initialise
from htaf_snn.transfer import (
    batch_statistics,
    calibrate,
    firing_hard,
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


def multi(*parts: nn.Module) -> Any:
    net = nn.Sequential(*parts)
    functional.set_step_mode(net, "m")
    return net


def node(**options: Any) -> LIFNode:
    return LIFNode(surrogate_function=HTAFSpike(), **options)


def deep(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    sizes = [64, *[128] * 8]
    layers = [part for pair in itertools.pairwise(sizes) for part in (layer.Linear(*pair), node())]
    return multi(*layers, layer.Linear(128, 10))


def rates(net: nn.Module, x: Tensor) -> dict[str, float]:
    found: dict[str, float] = {}
    handles = []
    for name, module in net.named_modules():
        if isinstance(module, neuron.BaseNode):
            handles.append(
                module.register_forward_hook(
                    lambda _m, _x, out, name=name: found.update({name: float(out.mean())})
                )
            )
    functional.reset_net(net)
    with firing_hard(net), torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.fixture(scope="module")
def samples() -> tuple[Tensor, Tensor]:
    """Ten patterns of 64 numbers under noise, and which it is."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (1600,), generator=generator)
    patterns = torch.rand(10, 64, generator=generator)
    return patterns[labels] + 0.2 * torch.randn(1600, 64, generator=generator), labels


def accuracy(net: Any, samples: tuple[Tensor, Tensor]) -> float:
    """Of a network of four time steps on samples that it was not trained with."""
    inputs, labels = samples
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    schedule = SharpnessSchedule(net, 40, hardening=(0.0, 0.8))
    for step in range(40):
        part = slice(32 * step, 32 * step + 32)
        functional.reset_net(net)
        logits = net(inputs[part].expand(4, -1, -1)).mean(0)
        nn.functional.cross_entropy(logits, labels[part]).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    net.eval()
    functional.reset_net(net)
    with torch.no_grad():
        guessed = net(inputs[1280:].expand(4, -1, -1)).mean(0).argmax(1)
    return float((guessed == labels[1280:]).float().mean())


def test_eight_layers_fire_and_train_where_they_were_silent(samples: tuple[Tensor, Tensor]) -> None:
    x_seq = samples[0][:64].expand(4, -1, -1)
    net = deep()
    factors = initialise(net, x_seq)
    assert list(factors) == [str(k) for k in range(1, 16, 2)]
    assert list(rates(net, x_seq).values()) == pytest.approx([0.1] * 8, rel=0.03)
    assert max(list(rates(deep(), x_seq).values())[4:]) == 0
    assert accuracy(net, samples) > 0.5
    assert accuracy(deep(), samples) < 0.2


def test_it_is_deterministic_and_leaves_biases_modes_and_potentials(
    samples: tuple[Tensor, Tensor],
) -> None:
    x_seq = samples[0][:64].expand(4, -1, -1)
    net, twin, before = deep(), deep(), deep()
    net[3].eval()
    assert initialise(net, x_seq, 0.2) == initialise(twin, x_seq, 0.2)
    for (name, one), other, was in zip(
        net.named_parameters(), twin.parameters(), before.parameters(), strict=True
    ):
        assert torch.equal(one, other) and one.requires_grad and one.grad is None
        assert torch.equal(one, was) is ("bias" in name or name.startswith("16")), name
    assert net[1].training and not net[3].training and net[1].v == 0


class Residual(nn.Module):
    """Two branches of convolutions and a shortcut, in a container, before one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(layer.Conv2d(2, 8, 3, padding=1), layer.MaxPool2d(2), node())
        self.left, self.right = (layer.Conv2d(8, 8, 1, bias=bias) for bias in (True, False))
        self.last = node(v_threshold=2.0)
        functional.set_step_mode(self, "m")

    def forward(self, x_seq: Tensor) -> Any:
        x_seq = self.first(x_seq)
        return self.last(self.left(x_seq) + self.right(x_seq).relu_() + x_seq)


def test_branches_pooling_and_shortcuts() -> None:
    torch.manual_seed(0)
    net, x_seq = Residual(), torch.rand(3, 8, 2, 8, 8)
    factors = initialise(net, x_seq, 0.25)
    assert factors.keys() == {"first.2", "last"}
    assert list(rates(net, x_seq).values()) == pytest.approx([0.25, 0.25], rel=0.1)


def test_a_recurrent_layer_and_one_of_single_steps() -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(6, 20), node())
    net: Any = nn.Sequential(layer.LinearRecurrentContainer(inner, 6, 20))
    x = torch.rand(50, 6)
    initialise(net, x, 0.2)
    assert list(rates(net, x).values()) == pytest.approx([0.2], rel=0.1)


def test_layers_behind_norms_are_left_alone() -> None:
    torch.manual_seed(0)
    net = multi(
        layer.Linear(6, 8), layer.BatchNorm1d(8), node(), layer.Linear(8, 8), node(),
        layer.Linear(8, 8), nn.LayerNorm(8), node(),
    )  # fmt: skip
    htaf_snn.convert(net, fuse_norm=True)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert initialise(net, torch.randn(4, 32, 6), 0.1).keys() == {"4"}
    changed = [k for k, v in net.state_dict().items() if not torch.equal(v, before[k])]
    assert changed == ["3.weight"]


@pytest.mark.parametrize(
    ("net", "x", "share", "reason"),
    [
        (multi(layer.Linear(3, 4), node()), torch.rand(2, 5, 3), 1.0, r"`share` \(=1.0\)"),
        (multi(layer.Linear(3, 4), node()), torch.rand(2, 5, 3), 0.0, r"`share` \(=0.0\)"),
        (multi(layer.Linear(3, 4)), torch.rand(2, 5, 3), 0.2, "no spiking neuron"),
        (multi(layer.Linear(3, 4), node()), torch.zeros(2, 5, 3), 0.2,
         "constant, or never positive: give other inputs"),
        (multi(layer.Linear(3, 1, bias=False), node()), torch.ones(1, 1, 3), 0.2,
         "constant, or nearly.*that differ|never positive"),
        (multi(node()), torch.zeros(2, 5, 3), 0.2, "^0 is silent.*lower its v_threshold"),
    ],
)  # fmt: skip
def test_what_cannot_be_initialised_says_why(
    net: Any, x: Tensor, share: float, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        initialise(net, x, share)


def test_a_potential_that_is_never_positive_leaves_all_weights_as_they_were() -> None:
    net = multi(layer.Linear(3, 4), node(), layer.Linear(4, 4, bias=False), node())
    with torch.no_grad():
        net[2].weight.abs_().neg_()
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(ValueError, match=r"of 3 .*never positive: give"):
        initialise(net, torch.rand(2, 50, 3), 0.2)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_biases_that_fire_alone_are_named() -> None:
    net = multi(layer.Linear(3, 4), node())
    nn.init.constant_(net[0].bias, 3.0)
    with pytest.raises(ValueError, match=r"reaches .* 1 to .*start its biases at 0"):
        initialise(net, torch.rand(2, 50, 3), 0.2)


def test_a_layer_that_takes_no_part_is_named() -> None:
    net = Residual()
    net.add_module("spare", node())
    with pytest.raises(ValueError, match="spare took no part"):
        initialise(net, torch.rand(2, 4, 2, 8, 8))
