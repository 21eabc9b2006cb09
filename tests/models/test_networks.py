"""The small spiking VGG, and the spiking ResNet's three forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn

import htaf_snn
from htaf_snn.models import SpikingResNet, SpikingVGG


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


def resnet(form: str, **arguments: Any) -> SpikingResNet:
    settings: dict[str, Any] = {
        "blocks": (2, 2),
        "widths": (4, 6),
        "stem": 4,
        "v_threshold": 0.3,
        "surrogate_function": htaf_snn.HTAFSpike(mode="hard"),
    }
    return SpikingResNet((2, 9, 8), 3, form=form, **(settings | arguments))  # type: ignore[arg-type]


def outputs(net: SpikingResNet) -> dict[str, Tensor]:
    """The output of each part of the features, for random frames."""
    seen: dict[str, Tensor] = {}
    for name, part in net.features.named_children():
        part.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
    net(torch.rand(4, 3, 2, 9, 8))
    return seen


@pytest.mark.parametrize("shortcut", ["padding", "convolution"])
def test_plain_blocks_fire(shortcut: str) -> None:
    seen = outputs(resnet("plain", shortcut=shortcut))
    for name in ("stem", "stage1", "stage2"):
        assert set(seen[name].unique().tolist()) == {0.0, 1.0}, name


@pytest.mark.parametrize("shortcut", ["padding", "convolution"])
def test_sew_blocks_count_spikes(shortcut: str) -> None:
    seen = outputs(resnet("sew", shortcut=shortcut))
    assert set(seen["stem"].unique().tolist()) == {0.0, 1.0}
    for name in ("stage1", "stage2"):
        assert torch.equal(seen[name], seen[name].round()), name
        assert seen[name].min() >= 0 and 2 <= seen[name].max() <= 5, name


def test_ms_blocks_carry_potentials() -> None:
    seen = outputs(resnet("ms"))
    for name in ("stem", "stage1", "stage2"):
        assert seen[name].min() < 0 and not torch.equal(seen[name], seen[name].round()), name
    assert set(seen["neuron"].unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("form", ["sew", "ms"])
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_silent_branch_leaves_the_shortcut(form: str, stage: str) -> None:
    # At this threshold a lone spike fires no neuron, so the shortcut can hold none.
    block: Any = resnet(form, v_threshold=1.0).features.get_submodule(f"{stage}.0")
    nn.init.zeros_(block.bn2.weight)
    x_seq = torch.randint(0, 2, (4, 3, 4, 9, 8)).float()
    if form == "ms":
        x_seq = torch.randn_like(x_seq)
    expected = x_seq
    if stage == "stage2":
        expected = torch.zeros(4, 3, 6, 5, 4)
        expected[:, :, :4] = x_seq[..., ::2, ::2]
    assert torch.equal(block(x_seq), expected)


def test_ms_neurons_stand_before_the_convolutions() -> None:
    net = resnet("ms")
    seen: list[Tensor] = []
    for name, module in net.features.named_modules():
        if name.endswith(("conv1", "conv2")):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(torch.rand(4, 3, 2, 9, 8))
    assert len(seen) == 8
    assert all(set(x_seq.unique().tolist()) <= {0.0, 1.0} for x_seq in seen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "pre"}, "unknown form 'pre'; the known ones are plain, sew, ms"),
        ({"shortcut": "none"}, "unknown shortcut 'none'; the known ones are convolution, padding"),
        ({"blocks": (2,)}, r"`blocks` \(=\[2\]\).*`widths` \(=\[4, 6\]\)"),
        ({"blocks": (2, 0)}, r"`blocks` \(=\[2, 0\]\)"),
        ({"widths": (6, 4)}, r"`widths` \(=\[6, 4\]\)"),
        ({"stem": 0}, r"`stem` \(=0\)"),
        ({"hidden": -1}, r"`hidden` \(=-1\)"),
    ],
)
def test_resnets_refuse(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resnet(**({"form": "plain"} | arguments))
