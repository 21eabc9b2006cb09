"""The small spiking VGG."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron

import htaf_snn
from htaf_snn.models import SpikingVGG


@pytest.mark.parametrize(
    "in_shape", [(1, 8, 8), (2, 34, 34), (3, 32, 32), (5, 9, 17), (2, 128, 128)]
)
@pytest.mark.parametrize("widths", [(4,), (4, 6, 6, 4)])
def test_shapes_and_gradients(in_shape: tuple[int, int, int], widths: tuple[int, ...]) -> None:
    net = SpikingVGG(in_shape, 7, widths, surrogate_function=htaf_snn.HTAFSpike())
    logits = net(torch.rand(2, 3, *in_shape))
    assert logits.shape == (2, 3, 7)
    logits.sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("node", [htaf_snn.IFNode, htaf_snn.ParametricLIFNode, neuron.LIFNode])
def test_takes_our_neurons_and_the_hosts(node: type[neuron.BaseNode]) -> None:
    net = SpikingVGG(
        (1, 8, 8), 2, (4, 4), node, surrogate_function=htaf_snn.HTAFSpike(), v_threshold=0.5
    )
    nodes = [m for m in net.modules() if isinstance(m, neuron.BaseNode)]
    assert [type(n) for n in nodes] == [node, node]
    assert nodes[0].v_threshold == 0.5
    assert nodes[0].surrogate_function is not nodes[1].surrogate_function
    first = net(torch.rand(2, 3, 1, 8, 8))
    functional.reset_net(net)
    assert first.shape == (2, 3, 2)


def test_names_of_the_state_stay() -> None:
    """Checkpoints of the small VGG stay readable."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert list(SpikingVGG((2, 34, 34), 10).state_dict()) == [
        *(
            name
            for block in range(3)
            for name in (
                f"features.{4 * block}.weight",
                *(f"features.{4 * block + 1}.{entry}" for entry in norm),
            )
        ),
        "read_out.1.weight",
        "read_out.1.bias",
    ]


def test_a_block_pools_once_behind_its_convolutions() -> None:
    net = SpikingVGG((1, 12, 12), 2, (3, (4, 5)), pooling="average", read_out_side=9, hidden=7)
    names = [type(m).__name__ for m in net.features]  # type: ignore[attr-defined]
    block = ["Conv2d", "BatchNorm2d", "LIFNode"]
    assert names == [
        *[*block, "AvgPool2d"],
        *[*block, *block, "AvgPool2d"],
        *["AdaptiveAvgPool2d", "Flatten", "Linear", "BatchNorm1d", "LIFNode"],
    ]
    assert net.features.get_submodule("13").in_features == 5 * 3 * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pooling": "min"}, "unknown pooling 'min'; the known ones are max, average"),
        ({"read_out_side": 0}, r"`read_out_side` \(=0\)"),
        ({"hidden": -1}, r"`hidden` \(=-1\)"),
        ({"widths": (8, ())}, r"`widths` \(=\[8, \(\)\]\)"),
    ],
)
def test_refuses_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpikingVGG((2, 34, 34), 10, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 7, 34), 10), r"`in_shape` \(=\(2, 7, 34\)\).*8 to 128"),
        (((2, 34, 129), 10), "8 to 128"),
        (((0, 34, 34), 10), "C >= 1"),
        (((2, 34, 34), 0), r"`num_classes` \(=0\)"),
        (((2, 34, 34), 10, ()), r"`widths` \(=\[\]\)"),
        (((2, 34, 34), 10, (8, 0)), r"`widths` \(=\[8, 0\]\)"),
    ],
)
def test_refuses(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpikingVGG(*arguments)  # type: ignore[arg-type]
