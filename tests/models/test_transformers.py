"""SpikingJelly's transformers by name: its own outputs, and what it sets for its neurons."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, neuron
from torch import nn

import htaf_snn
from htaf_snn.models import model, transformers
from htaf_snn.neurons import registry
from htaf_snn.neurons.norm_fusion import DeferredNorm
from htaf_snn.training import ModelConfig, SpikingClassifier
from tests.models.test_registry import TRANSFORMERS

T = 5


def small(name: str, side: int = 28, **options: Any) -> Any:
    options |= {"T": T} if name == "masnn" else {}
    return model(name, (2, side, side), 3, **{"width": 0.1} | options)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_shapes_gradients_and_spikingjellys_own_output(name: str) -> None:
    net = small(name, backend="torch", surrogate_function=htaf_snn.HTAFSpike(mode="soft"))
    x = torch.rand(T, 2, 2, 28, 28)
    logits_seq = net(x)
    assert logits_seq.shape == (T, 2, 3)
    logits_seq.square().sum().backward()
    for path, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), path
    kind = type(net)
    if kind.__module__ == transformers.__name__:
        for twin in (net, net.eval()):
            functional.reset_net(twin)
            logits = twin(x).mean(0)
            functional.reset_net(twin)
            torch.testing.assert_close(logits, super(kind, twin).forward(x))


@pytest.mark.parametrize("name", ["lif", "plif", "if"])
def test_neurons_keep_what_the_network_sets(name: str) -> None:
    kind = registry.neuron_class(name)
    nodes = [m for m in small("spikformer", spiking_neuron=kind).modules()
             if isinstance(m, neuron.BaseNode)]  # fmt: skip
    assert all(isinstance(node, htaf_snn.neurons.base.BackendNode) for node in nodes)
    assert [node.v_threshold for node in nodes].count(0.5) == 4  # one attention a block
    assert all(node.detach_reset for node in nodes)
    cells = [m for m in small("masnn", spiking_neuron=kind).modules()
             if isinstance(m, neuron.BaseNode)]  # fmt: skip
    assert {(m.v_threshold, type(m.surrogate_function).__name__) for m in cells} == {(0.3, "Rect")}
    if name != "if":
        taus = [1 / m.w.sigmoid().item() if name == "plif" else m.tau for m in cells]
        assert taus == pytest.approx([10 / 7] * len(cells))


def test_arguments_win_and_are_each_neurons_own() -> None:
    function = htaf_snn.HTAFSpike()
    net = small("masnn", surrogate_function=function, v_threshold=0.7)
    nodes = [m for m in net.modules() if isinstance(m, htaf_snn.LIFNode)]
    assert {m.v_threshold for m in nodes} == {0.7}
    assert len({id(m.surrogate_function) for m in nodes} | {id(function)}) == len(nodes) + 1
    assert len(small("spikformer", depths=1).blocks) == 1
    with pytest.raises(ValueError, match="spikformer: `norm`"):
        small("spikformer", norm="tdbn")
    with pytest.raises(ValueError, match="masnn: input_size must be divisible"):
        small("masnn", 30)


@pytest.mark.parametrize(("name", "depths"), [("spikformer", 2), ("maxformer", (1, 2, 1))])
def test_depths(name: str, depths: int | tuple[int, int, int]) -> None:
    config = ModelConfig(model=name, depths=depths, width=0.1)
    net: Any = SpikingClassifier((1, 28, 28), 3, config).net
    stages = [net.blocks] if name == "spikformer" else [net.stage1, net.stage2, net.stage3]
    assert [len(stage) for stage in stages] == [*np.atleast_1d(depths)]


@pytest.mark.parametrize(
    ("name", "depths"),
    [("spikformer", (1, 1, 1)), ("spikformer", 0), ("qkformer", 2), ("masnn", 1), ("vgg9", 1)],
)
def test_depths_of_another_network(name: str, depths: int | tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=rf"`depths` \(={re.escape(str(depths))}\).*is {name}"):
        ModelConfig(model=name, depths=depths)
    if name != "vgg9":
        with pytest.raises(ValueError, match="`depths`"):
            small(name, depths=depths)


@pytest.mark.parametrize(
    ("name", "patch"), [("spikformer", 16), ("maxformer", 16), ("spike_driven_transformer", 16)]
)
def test_large_frames_have_large_patches(name: str, patch: int) -> None:
    net = small(name, 64, backend="torch")
    sizes = []
    place: nn.Module = net.blocks[0] if hasattr(net, "blocks") else net.stage3[0]
    place.register_forward_hook(lambda _, args, __: sizes.append(args[0].shape[-1]))
    net(torch.rand(1, 1, 2, 64, 64))
    assert sizes == [64 // patch]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_smallest_frame(name: str) -> None:
    assert small(name, 8, backend="torch")(torch.rand(T, 2, 2, 8, 8)).shape == (T, 2, 3)


NORMS = {"spikformer": 19, "qkformer": 22, "maxformer": 6, "spike_driven_transformer": 11}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_norms_within_neurons(name: str) -> None:
    fused = [m for m in small(name).modules() if isinstance(m, DeferredNorm)]
    assert len(fused) == NORMS.get(name, 0)
