"""What is measured beside accuracy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer
from torch import nn

import htaf_snn
from htaf_snn import HTAFSpike, IFNode
from htaf_snn.comparison.run import _spread, output_shares
from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.energy import operations


def network() -> Any:
    net: Any = nn.Sequential(
        layer.Linear(2, 3, bias=False),
        layer.BatchNorm1d(3),
        IFNode(surrogate_function=HTAFSpike()),
        layer.Linear(3, 4, bias=False),
    )
    functional.set_step_mode(net, "m")
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]]))
    return net.eval()


def test_operations() -> None:
    x_seq = torch.tensor([[[1.5, 0.0]], [[1.5, 1.5]]])  # [T=2, N=1, 2]: spikes 1, then 2
    for backend in ("auto", "cpu"):
        net = network()
        net[2].backend = backend
        synaptic, energy = operations(net, x_seq)
        assert synaptic == 3 * 4 and net[2].backend == backend
        # Two steps of 2 x 3 multiply-accumulates; accumulates of the spikes and of the neurons.
        assert energy == pytest.approx((2 * 6 * 4.6 + (12 + 18) * 0.9) / 1000)
    assert operations(htaf_snn.revert(network()), x_seq) == (synaptic, energy)


def test_measured_samples_are_of_every_class() -> None:
    data = SpikingDataModule(DataConfig("digits", T=2))
    (x_seq,) = _spread(data)
    count = len(data.splits.validation)  # type: ignore[arg-type]
    chosen = range(0, count, -(-count // 128))
    assert x_seq.shape[:2] == (2, len(chosen))
    assert {data.splits.validation[index][1] for index in chosen} == set(range(10))


def test_output_shares() -> None:
    net = network()
    net[2].surrogate_function.alpha0 = 100.0
    x_seq = torch.tensor([[[1.5, 0.0]]])
    shares = output_shares(net, [x_seq, x_seq])
    assert len(shares) == 50 and sum(shares) == pytest.approx(1)
    assert shares[-1] == pytest.approx(1 / 3) and shares[0] == pytest.approx(2 / 3)
    assert {f.mode for f in net.modules() if isinstance(f, HTAFSpike)} == {"auto"}
