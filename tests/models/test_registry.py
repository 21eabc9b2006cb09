"""Every network that has a name."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest
import torch
import torchvision
from spikingjelly.activation_based import functional, layer, neuron

import htaf_snn
from htaf_snn import cli
from htaf_snn.models import MODELS, ThresholdDependentBatchNorm2d, default_model, model, model_names

TRANSFORMERS = ["spikformer", "qkformer", "maxformer", "spike_driven_transformer", "masnn"]
OURS = [n for n in model_names() if not n.startswith("imagenet_") and n not in TRANSFORMERS]
IMAGENET = [name for name in model_names() if name.startswith("imagenet_")]
FORMS = ["", "sew_", "ms_"]
SMALL = ["vgg_small", "vgg9", "vgg11", "resnet19", "resnet20", "sew_resnet20", "ms_resnet20"]


def small(name: str, in_shape: tuple[int, int, int] = (2, 28, 28), **arguments: Any) -> Any:
    settings: dict[str, Any] = {"surrogate_function": htaf_snn.HTAFSpike(0.67, 6.0)}
    return model(name, in_shape, 3, **({"width": 0.08} | settings | arguments))


def test_names() -> None:
    resnets = [f"{form}resnet{depth}" for form in FORMS for depth in (18, 19, 20, 32, 34)]
    vggs = ["vgg_small", "vgg_snn", *(f"vgg{depth}" for depth in (5, 9, 11, 13, 16))]
    assert sorted(OURS) == sorted([*vggs, *resnets, "mlp"])
    assert set(TRANSFORMERS) < set(model_names())
    assert {"imagenet_spiking_vgg16_bn", "imagenet_sew_resnet50"} <= set(IMAGENET)
    assert all(name == entry.name for name, entry in MODELS.items())


@pytest.mark.parametrize(
    ("node", "norm"),
    [(htaf_snn.LIFNode, "bn"), (neuron.LIFNode, "tdbn")],
    ids=["our LIF, bn", "the host's LIF, tdbn"],
)
@pytest.mark.parametrize("name", OURS)
def test_shape_and_gradients(name: str, norm: str, node: type[neuron.BaseNode]) -> None:
    net = small(name, spiking_neuron=node, norm=norm)
    assert {m.step_mode for m in net.modules() if hasattr(m, "step_mode")} == {"m"}
    assert {type(m) for m in net.modules() if isinstance(m, neuron.BaseNode)} == {node}
    logits = net(torch.rand(2, 2, 2, 28, 28))
    assert logits.shape == (2, 2, 3)
    logits.square().sum().backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
    first = next(net.parameters())
    assert first.shape[1] == (2 * 28 * 28 if name == "mlp" else 2) and first.grad.any()


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", sorted({*OURS} - {"mlp"}))
def test_smallest_frame(name: str, channels: int) -> None:
    side = MODELS[name].smallest_side
    in_shape = (channels, side + 5, side)
    assert small(name, in_shape)(torch.rand(1, 2, *in_shape)).shape == (1, 2, 3)
    too_small = (channels, side, side - 1)
    with pytest.raises(ValueError, match=f"{re.escape(str(too_small))}.* from {side} to 128"):
        small(name, too_small)


def test_a_fully_connected_network_takes_any_frame() -> None:
    for in_shape in ((1, 1, 700), (2, 3, 200)):
        assert small("mlp", in_shape, widths=(5, 6))(torch.rand(4, 2, *in_shape)).shape == (4, 2, 3)
    assert MODELS["mlp"].parameters() == 700 * 256 + 256 * 256 + 4 * 256 + 256 * 20 + 20
    with pytest.raises(ValueError, match=r"mlp: `widths` \(=\[0\]\)"):
        small("mlp", widths=[0])


def test_the_network_of_frames_that_are_no_pictures() -> None:
    assert default_model((1, 1, 700)) == "mlp"
    assert default_model((2, 34, 34)) == default_model(None) == "vgg_small"


@pytest.mark.parametrize("name", ["vgg16", "ms_resnet20"])
def test_largest_frame(name: str) -> None:
    with torch.device("meta"):
        net = small(name, (2, 128, 128), spiking_neuron=neuron.IFNode, surrogate_function=None)
        assert net(torch.rand(2, 1, 2, 128, 128)).shape == (2, 1, 3)


@pytest.mark.parametrize(
    "name", ["spiking_vgg16", "spiking_vgg11_bn", "spiking_resnext50_32x4d", "sew_resnet50"]
)
def test_imagenet_shape(name: str) -> None:
    with torch.device("meta"):
        net = model(f"imagenet_{name}", (3, 224, 224), 5, neuron.IFNode, v_threshold=0.5)
        assert net(torch.rand(2, 1, 3, 224, 224)).shape == (2, 1, 5)
    assert {m.v_threshold for m in net.modules() if isinstance(m, neuron.BaseNode)} == {0.5}


@pytest.mark.parametrize("name", ["imagenet_spiking_resnet18", "imagenet_sew_resnet18"])
def test_imagenet_trains(name: str) -> None:
    net = model(name, (3, 32, 32), 5, surrogate_function=htaf_snn.HTAFSpike(0.67, 6.0))
    net(torch.rand(2, 2, 3, 32, 32)).square().sum().backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize(
    ("name", "millions", "digits"),
    [
        ("resnet18", 11.17, 2),  # as for CIFAR-10 throughout the literature
        ("resnet19", 12.63, 2),  # Zhou et al. 2023 (Spikformer), table 4
        ("resnet20", 0.27, 2),  # He et al. 2016, table 6
        ("resnet32", 0.46, 2),  # He et al. 2016, table 6
    ],
)
def test_published_parameters(name: str, millions: float, digits: int) -> None:
    for form in FORMS:
        assert round(MODELS[form + name].parameters() / 1e6, digits) == millions


@pytest.mark.parametrize("depth", [18, 34])
def test_resnets_equal_torchvisions_but_for_the_stem(depth: int) -> None:
    theirs = torchvision.models.get_model(f"resnet{depth}", num_classes=10)
    smaller_stem = 64 * 3 * (7 * 7 - 3 * 3)
    for form in FORMS:
        assert MODELS[f"{form}resnet{depth}"].parameters() == count(theirs) - smaller_stem


@pytest.mark.parametrize("depth", [11, 13, 16])
def test_vgg_features_equal_torchvisions(depth: int) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.get_model(f"vgg{depth}_bn")
        ours: Any = model(f"vgg{depth}", (3, 32, 32), 10)
    assert [tuple(p.shape) for p in ours.features.parameters()] == [
        tuple(p.shape) for p in theirs.features.parameters()
    ]
    assert count(ours.read_out) == 512 * 10 + 10


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_parameters_equal_torchvisions(name: str) -> None:
    theirs = torchvision.models.get_model_weights(re.sub("imagenet_(spiking|sew)_", "", name))
    assert MODELS[name].parameters() == next(iter(theirs)).meta["num_params"]


@pytest.mark.parametrize("name", SMALL)
def test_neurons_share_no_argument(name: str) -> None:
    function = htaf_snn.HTAFSpike(learnable=True)
    net = small(name, surrogate_function=function, v_threshold=0.5)
    nodes = [m for m in net.modules() if isinstance(m, neuron.BaseNode)]
    assert len({id(node.surrogate_function) for node in nodes} | {id(function)}) == len(nodes) + 1
    assert {node.v_threshold for node in nodes} == {0.5}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "state_dict"])
def test_copies_compute_the_same(name: str, how: str) -> None:
    net = small(name).train()
    x_seq = torch.rand(2, 2, 2, 28, 28)
    net(x_seq)  # moves the norms' statistics
    functional.reset_net(net)
    if how == "deepcopy":
        other = copy.deepcopy(net)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(net))
    else:
        other = small(name, dropout=0.5)  # which changes no name
        other.load_state_dict(net.state_dict())
    assert torch.equal(other.eval()(x_seq), net.eval()(x_seq))


@pytest.mark.parametrize("name", ["vgg16", "resnet20", "sew_resnet18", "ms_resnet18"])
@pytest.mark.parametrize("v_threshold", [1.0, 0.5])
def test_tdbn_scales_by_the_threshold(name: str, v_threshold: float) -> None:
    net = small(name, norm="tdbn", v_threshold=v_threshold)
    norms = {n: m for n, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert not norms
    for norm_name, norm in net.named_modules():
        if isinstance(norm, ThresholdDependentBatchNorm2d):
            added = norm_name.endswith("bn2") or "downsample" in norm_name
            alpha = 0.5**0.5 if added and not name.startswith("sew") else 1.0
            torch.testing.assert_close(
                norm.weight, torch.full_like(norm.weight, alpha * v_threshold)
            )


def test_tdbn_takes_the_threshold_of_the_neuron_class() -> None:
    class Eager(htaf_snn.LIFNode):
        def __init__(self, v_threshold: float = 0.25, **kwargs: Any) -> None:
            super().__init__(v_threshold=v_threshold, **kwargs)

    net = small("vgg9", norm="tdbn", spiking_neuron=Eager)
    norms = [m for m in net.modules() if hasattr(m, "v_th")]
    assert len(norms) == 8 and {norm.v_th for norm in norms} == {0.25}


def test_dropout_is_the_same_at_all_time_steps() -> None:
    net = small("resnet20", dropout=0.5, width=1.0)
    seen: list[torch.Tensor] = []
    net.read_out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0] == 0))
    net(torch.rand(3, 2, 2, 28, 28))
    dropped = seen[0]
    assert 0.3 < dropped.float().mean() < 0.7
    assert torch.equal(dropped, dropped[:1].expand_as(dropped))


def test_width_scales_every_layer() -> None:
    for name in ("vgg9", "ms_resnet19"):
        net = model(name, (3, 32, 32), 10, width=0.5)
        whole = model(name, (3, 32, 32), 10)
        for half, full in zip(weights(net), weights(whole), strict=True):
            assert 2 * half.out_channels == full.out_channels
    narrowest = small("vgg16", width=1e-3)
    assert {conv.out_channels for conv in weights(narrowest)} == {1}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet21", {}, r"unknown model 'resnet21'; the known ones are vgg_small, .*ms_resnet34"),
        ("vgg16", {"in_shape": (3, 32, 15)}, r"vgg16: `in_shape` \(=\(3, 32, 15\)\).* 16 to 128"),
        ("resnet20", {"in_shape": (3, 129, 32)}, "resnet20: .* 8 to 128"),
        ("resnet20", {"in_shape": (0, 32, 32)}, "resnet20: .* C >= 1"),
        ("resnet20", {"in_shape": (32, 32)}, r"resnet20: `in_shape` \(=\(32, 32\)\)"),
        ("imagenet_sew_resnet18", {"in_shape": (2, 224, 224)}, r"\(=\(2, 224, 224\)\).* C = 3"),
        ("imagenet_sew_resnet18", {"in_shape": (3, 31, 32)}, "at least 32"),
        ("imagenet_sew_resnet18", {"width": 0.5}, r"`width` \(=0.5\)"),
        ("imagenet_sew_resnet18", {"norm": "tdbn"}, r"`norm` \(='tdbn'\)"),
        ("vgg9", {"num_classes": 0}, r"vgg9: `num_classes` \(=0\)"),
        ("vgg9", {"width": 0.0}, r"`width` \(=0.0\)"),
        ("vgg9", {"width": float("nan")}, r"`width` \(=nan\)"),
        ("vgg9", {"norm": "ln"}, "unknown norm 'ln'; the known ones are bn, tdbn"),
        ("ms_resnet20", {"dropout": 1.0}, r"`dropout` \(=1.0\)"),
    ],
)
def test_refuses(name: str, arguments: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"in_shape": (3, 32, 32), "num_classes": 10} | arguments
    with pytest.raises(ValueError, match=message):
        model(name, **settings)


@pytest.mark.parametrize("name", ["vgg_small", "sew_resnet20"])
@pytest.mark.parametrize("shape", [(2, 2, 3, 28, 28), (2, 2, 28, 28)])
def test_refuses_another_input(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"{re.escape(str(shape))}.*\[T, N, 2, H, W\]"):
        small(name)(torch.rand(shape))


def test_models_command(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["models"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == model_names()
    (resnet20,) = [line for line in lines if line.startswith("resnet20 ")]
    assert re.search(r"0\.27 M .* 8 to 128 .* arXiv 1512\.03385$", resnet20)
    (imagenet,) = [line for line in lines if line.startswith("imagenet_sew_resnet50 ")]
    assert re.search(r"25\.56 M .* from 32 .* SpikingJelly's sew_resnet50$", imagenet)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def weights(net: torch.nn.Module) -> list[Any]:
    return [m for m in net.modules() if isinstance(m, layer.Conv2d)]
