"""Gradients in the network without batch norm, on a shortened run."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from paper import depth
from paper.depth import ACTIVATIONS, Images, Setup, Trained
from torch import nn

TORCH, XAVIER = Setup("torch", 1e-3), Setup("xavier", 1e-3)


@pytest.fixture(scope="module")
def data() -> Images:
    return depth.digits()


def test_digits_are_standardised_by_the_training_images(data: Images) -> None:
    assert data.train_x.shape == (1347, 64) and data.test_x.shape == (450, 64)
    assert data.train_y.bincount().min() > 120 and data.test_y.bincount().min() > 40
    mean, spread = data.train_x.double().mean(0), data.train_x.double().std(0, correction=0)
    constant = spread == 0
    assert constant.sum() == 4  # at the border, always background
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-6, rtol=0)
    torch.testing.assert_close(spread, 1 - constant.double(), atol=1e-6, rtol=0)
    assert data.test_x.mean(0).abs().max() > 1e-3


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_networks_differ_in_the_activation_alone(activation: str) -> None:
    net = depth.network(activation, XAVIER)
    shapes = [tuple(p.shape) for p in net.parameters() if p.ndim == 2]
    assert shapes == [(256, 64), (256, 256), (128, 256), (10, 128)]
    assert not any(isinstance(m, nn.BatchNorm1d) for m in net.modules())
    assert all(p.eq(0).all() for p in net.parameters() if p.ndim == 1)
    slopes = torch.zeros(1, requires_grad=True)
    net[1](slopes).sum().backward()
    assert slopes.grad is not None
    assert slopes.grad.item() == (0 if activation == "ReLU" else 5.5)


def test_gradient_norms_before_any_update(data: Images) -> None:
    run = depth.train("HTAF (2, 11)", TORCH, 3, 1, data)
    torch.manual_seed(3)
    net = depth.network("HTAF (2, 11)", TORCH)
    weights = [net.get_parameter("0.weight"), net.get_parameter("6.weight")]
    first, last = [], []
    for index in torch.randperm(1347, generator=torch.Generator().manual_seed(3)).split(64):
        loss = nn.functional.cross_entropy(net(data.train_x[index]), data.train_y[index])
        gradients = torch.autograd.grad(loss, weights)
        first.append(gradients[0].square().sum().sqrt().item())
        last.append(gradients[1].square().sum().sqrt().item())
    assert run.first[0] == pytest.approx(np.mean(first), rel=1e-5)
    assert run.last[0] == pytest.approx(np.mean(last), rel=1e-5)


def test_short_run_learns_and_leaves_the_seed_alone(data: Images) -> None:
    before = torch.get_rng_state()
    runs = {name: depth.train(name, XAVIER, 0, 3, data) for name in ("HTAF (2, 11)", "ReLU")}
    assert torch.equal(before, torch.get_rng_state())
    htaf, relu = runs.values()
    assert relu.hard_accuracy is None
    assert htaf.hard_accuracy is not None and htaf.hard_accuracy > 0.8
    for run in runs.values():
        assert len(run.first) == len(run.last) == 4
        assert min(run.first + run.last) > 1e-3  # nothing vanishes
        assert run.train_accuracy > 0.9 and run.soft_accuracy > 0.85
    again = depth.train("HTAF (2, 11)", XAVIER, 0, 3, data)
    assert again == htaf


@pytest.mark.slow
def test_sharp_functions_saturate_at_a_high_learning_rate(data: Images) -> None:
    setup = Setup("torch", 1e-2)
    sharp, relu = (depth.train(name, setup, 0, 6, data) for name in ("HTAF (11, 2)", "ReLU"))
    assert sharp.first[0] > 0.1 > 1e-6 > sharp.first[-1] and sharp.train_accuracy < 0.3
    assert relu.first[-1] > 1e-3 and relu.train_accuracy > 0.9


def test_refuses_no_epochs() -> None:
    with pytest.raises(ValueError, match=r"`epochs` \(=0\) must be at least 1"):
        depth.train_all(0)


def run(activation: str, **changes: Any) -> Trained:
    base = Trained(activation, TORCH, 0, [2.0, 1.0, 0.5], [1.0, 1.0, 0.25], 0.9, 0.8, 0.7)
    return replace(base, **changes)


def test_table_shows_medians() -> None:
    runs = [
        run("HTAF (2, 11)"),
        run("HTAF (2, 11)", seed=1, first=[4.0, 3.0, 1e-9], hard_accuracy=0.6),
        run("HTAF (2, 11)", seed=2, first=[1.0, 0.0, 0.0], hard_accuracy=0.1),
        run("ReLU", hard_accuracy=None),
        run("HTAF (2, 11)", setup=XAVIER),
        run("ReLU", hard_accuracy=None, setup=XAVIER, first=[0.0] * 3, last=[0.0] * 3),
    ]
    assert math.isnan(depth.ratios(runs[-1:])[0, 2])
    setup, head, htaf, relu, empty, other, *rest = depth.table(runs).splitlines()
    assert setup == "torch initial weights, lr 0.001" and empty == ""
    assert other == "xavier initial weights, lr 0.001"
    assert htaf.split()[3:] == [
        "2.0e+00",
        "1.0e+00",
        "1.0e-09",
        "4.0e-09",
        "0.9000",
        "0.8000",
        "0.6000",
    ]
    assert relu.split()[1:] == ["2.0e+00", "1.0e+00", "5.0e-01", "2.0e+00", "0.9000", "0.8000", "-"]
    assert rest[2].split()[4] == "nan"
    assert len({len(line) for line in (head, htaf, relu, *rest)}) == 1
