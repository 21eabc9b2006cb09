"""Where a gap is born, and how binary outputs are."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn

from htaf_snn import HTAF, HTAFSpike, LIFNode, spike_function
from htaf_snn.transfer import binarity, transfer_gap
from htaf_snn.transfer.diagnosis import LayerGap, TransferGap


class _Pairs(nn.Module):
    """Class 1 if the first number reaches the second."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 1], x[:, 0]], 1)


def classifier() -> Any:
    """Its first activation, sharp, changes nothing at the step; its second, blunt, much."""
    return nn.Sequential(HTAF(alpha0=50.0, alpha1=30.0), nn.Linear(2, 2), HTAF(0.5, 6.0), _Pairs())


def test_the_layer_where_the_gap_is_born() -> None:
    net = classifier()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        net[1].bias.copy_(torch.tensor([1.0, 0.5]))  # smooth: 1 beats 0.5; exact: both are 1
    x = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    labels = torch.tensor([1, 0, 1, 1])
    net.train()
    found = transfer_gap(net, [(x[:3], labels[:3]), (x[3:], labels[3:])])
    assert net.training
    assert found.soft_accuracy == 1.0 and found.hard_accuracy < 1.0
    assert found.born_in == "2" and [one.name for one in found.layers] == ["0", "2"]
    first, second = found.layers
    assert first.gap_pp == 0 and second.gap_pp == pytest.approx(found.gap_pp)
    assert first.difference < 1e-6 and first.uncertain == 0
    assert first.soft_rate == pytest.approx(0.5) and first.hard_rate == 0.5
    assert second.hard_rate == 1.0 and 0 < second.soft_rate < 1
    assert second.difference == pytest.approx(1 - second.soft_rate)
    assert second.hard_accuracy == found.hard_accuracy


def test_unequal_batches_count_by_their_samples() -> None:
    net = nn.Sequential(HTAF(), nn.Linear(2, 2), HTAF(), _Pairs())
    x, labels = 2 * torch.randn(7, 2), torch.tensor([0, 1, 0, 1, 1, 0, 1])
    whole = transfer_gap(net, [(x, labels)])
    smooth = HTAF().train()(x)
    assert whole.layers[0].uncertain == pytest.approx(
        ((smooth > 0.1) & (smooth < 0.9)).double().mean().item()
    )
    parts = transfer_gap(net, [(x[:1], labels[:1]), (x[1:], labels[1:])])
    for one, other in zip(whole.layers, parts.layers, strict=True):
        assert one.soft_rate != one.hard_rate and one.difference > 0
        for field in ("soft_rate", "hard_rate", "difference", "uncertain", "gap_pp"):
            assert getattr(other, field) == pytest.approx(getattr(one, field), abs=1e-6), field


@pytest.mark.parametrize(
    ("gaps", "born"), [((-2.0, -1.0), None), ((0.0, -1.0), None), ((0.5, 3.0), "1"), ((), None)]
)
def test_a_layer_that_gains_is_not_where_the_gap_is_born(
    gaps: tuple[float, ...], born: str | None
) -> None:
    layers = [LayerGap(str(i), 0.5, 0.5, 0.1, 0.1, 0.9, gap) for i, gap in enumerate(gaps)]
    found = TransferGap(0.9, 0.9, 0.9 - sum(gaps) / 100, layers)
    assert found.born_in == born
    assert str(found).endswith(f"most of it born in {born or 'no layer'}")


def test_spiking_layers_and_time() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Linear(3, 8), LIFNode(surrogate_function=HTAFSpike()),
        layer.Linear(8, 8), LIFNode(surrogate_function=spike_function("atan")),
        layer.Linear(8, 2),
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    batches = [(torch.randn(5, 4, 3), torch.tensor([0, 1, 0, 1]))]
    found = transfer_gap(net, batches)
    assert [one.name for one in found.layers] == ["1"]
    assert 0 < found.layers[0].difference < 1
    functional.reset_net(net.eval())
    right = (net(batches[0][0]).mean(0).argmax(1) == batches[0][1]).float().mean()
    assert found.hard_accuracy == pytest.approx(right.item())


def test_binarity() -> None:
    x = torch.tensor([-100.0, 0.0, 100.0, 100.0])[:, None]
    leak = 1 / (1 + math.exp(6.0))
    for signed in (False, True):
        found = binarity(nn.Sequential(HTAF(signed=signed)), [x, x])
        assert found.share == 0.75
        certain = -leak * math.log2(leak) - (1 - leak) * math.log2(1 - leak)
        assert found.entropy == pytest.approx((1 + 3 * certain) / 4, rel=1e-4)
    assert binarity(nn.Sequential(HTAF(mode="hard")), [x]).entropy == 0


def test_bad_arguments() -> None:
    net, x = nn.Sequential(HTAF()), torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"`band` \(=0.5\) must lie in"):
        transfer_gap(net, [(x, torch.zeros(2))], band=0.5)
    hard = transfer_gap(nn.Sequential(spike_function("atan")), [(x, torch.zeros(2))])
    assert hard.gap_pp == 0 and hard.layers == [] and hard.born_in is None
    with pytest.raises(ValueError, match="`batches` is an iterator, which ends"):
        transfer_gap(net, iter([(x, torch.zeros(2))]))
    with pytest.raises(ValueError, match="`batches` is empty"):
        transfer_gap(net, [])
    with pytest.raises(ValueError, match=r"`margin` \(=0\) must lie in"):
        binarity(net, [x], margin=0)
    with pytest.raises(ValueError, match="`inputs` is empty"):
        binarity(net, [])
    with pytest.raises(ValueError, match="Linear has no spike function"):
        binarity(nn.Linear(1, 1), [x])
