"""The plain loop, for networks without time."""

from __future__ import annotations

import pytest
import torch
from common.plain import Images, classification_loss, train_plain
from torch import Tensor, nn

from htaf_snn import HTAF, transfer_gap
from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.transfer import accuracy


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), HTAF(), nn.Linear(32, 10)
    )


def modes(net: nn.Module) -> list[str]:
    return [module.mode for module in net.modules() if isinstance(module, HTAF)]


def digits() -> SpikingDataModule:
    return SpikingDataModule(DataConfig("digits", T=1, batch_size=64))


def test_what_was_trained_is_what_fires() -> None:
    net, data, steps = network(), digits(), []
    batches = Images(data.train_dataloader())
    schedule = train_plain(net, batches, classification_loss, 4, on_step=lambda: steps.append(1))
    assert len(steps) == schedule.last_step == 4 * len(batches)
    assert modes(net) == ["hard"]
    held_out = list(Images(data.val_dataloader()))
    net.eval()
    assert accuracy(net, held_out) > 0.85
    assert transfer_gap(net, held_out).gap_pp == 0
    schedule.set(0)
    assert modes(net) == ["auto"] and transfer_gap(net, held_out).layers


def test_smooth_to_the_end() -> None:
    net = network()
    train_plain(net, [(torch.rand(8, 64), torch.arange(8))], classification_loss, 2, hardening=None)
    assert modes(net) == ["auto"]


def test_without_a_surrogate_to_the_end() -> None:
    net, data = network(), digits()
    train_plain(net, Images(data.train_dataloader()), classification_loss, 4, true_gradient=True)
    assert modes(net) == ["auto"] and net[3].hardness == 0.98 and net[3].true_gradient
    held_out = list(Images(data.val_dataloader()))
    net.eval()
    assert accuracy(net, held_out) > 0.85 and abs(transfer_gap(net, held_out).gap_pp) < 3


def test_refuses_no_batch_no_epoch_and_a_loss_that_is_not_finite() -> None:
    batch = (torch.rand(8, 64), torch.arange(8))
    with pytest.raises(ValueError, match=r"`epochs` \(=0\)"):
        train_plain(network(), [batch], classification_loss, 0)
    with pytest.raises(ValueError, match=r"batches \(=0\)"):
        train_plain(network(), [], classification_loss, 1)

    def diverges(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return classification_loss(net, batch) / 0

    with pytest.raises(ValueError, match=r"the loss is inf at step 0; lower `learning_rate`"):
        train_plain(network(), [batch], diverges, 1)


def test_images_are_frames_of_one_step() -> None:
    data = digits()
    drawn = Images(data.train_dataloader())
    first, again = next(iter(drawn)), next(iter(drawn))
    assert first[0].shape == (64, *data.in_shape) and first[1].shape == (64,)
    assert not first[0].equal(again[0])  # a new order, drawn anew
    assert first[0].shape == again[0].shape and len(drawn) == len(data.train_dataloader())
    with pytest.raises(ValueError, match="frames of 2 time steps are no images; set T=1"):
        next(iter(Images([(torch.rand(2, 3, 1, 8, 8), torch.zeros(3))])))
