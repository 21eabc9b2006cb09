"""SpikingJelly's tools take our neurons and spike functions unchanged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from spikingjelly.activation_based import functional, layer, monitor, neuron, op_counter, surrogate
from spikingjelly.activation_based.distributed import vision
from spikingjelly.activation_based.model import (
    parametric_lif_net,
    sew_resnet,
    spiking_resnet,
    spiking_vgg,
)
from torch import nn

import htaf_snn
from htaf_snn.transfer import firing_hard

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "spiking_vgg11_bn": (
        lambda: spiking_vgg.spiking_vgg11_bn(
            spiking_neuron=htaf_snn.LIFNode,
            surrogate_function=htaf_snn.HTAFSpike(),
            num_classes=10,
        ),
        (3, 32, 32),
    ),
    "spiking_resnet18": (
        lambda: spiking_resnet.spiking_resnet18(
            spiking_neuron=htaf_snn.LIFNode,
            surrogate_function=htaf_snn.HTAFSpike(),
            num_classes=10,
        ),
        (3, 32, 32),
    ),
    "sew_resnet18": (
        lambda: sew_resnet.sew_resnet18(
            cnf="ADD",
            spiking_neuron=htaf_snn.IFNode,
            surrogate_function=htaf_snn.HTAFSpike(),
            num_classes=10,
        ),
        (3, 32, 32),
    ),
    "parametric_lif_net": (
        lambda: parametric_lif_net.DVSGestureNet(
            channels=4,
            spiking_neuron=htaf_snn.ParametricLIFNode,
            surrogate_function=htaf_snn.HTAFSpike(),
        ),
        (2, 128, 128),
    ),
}


def small_net(**kwargs: object) -> nn.Sequential:
    net = nn.Sequential(
        layer.Conv2d(1, 4, 3, padding=1),
        htaf_snn.LIFNode(surrogate_function=htaf_snn.HTAFSpike(), **kwargs),  # type: ignore[arg-type]
        layer.Flatten(),
        layer.Linear(4 * 36, 3),
        htaf_snn.ParametricLIFNode(surrogate_function=htaf_snn.HTAFSpike(), **kwargs),  # type: ignore[arg-type]
    )
    functional.set_step_mode(net, "m")
    return net


@pytest.mark.parametrize("name", MODELS)
def test_the_hosts_models_train_smooth_and_fire_exact(name: str) -> None:
    make, shape = MODELS[name]
    net = make()
    functional.set_step_mode(net, "m")
    x_seq = torch.rand(2, 2, *shape)
    with monitor.OutputMonitor(net, neuron.BaseNode) as trained:
        net(x_seq).mean(0).square().sum().backward()
    functional.reset_net(net)
    assert any(((s > 0) & (s < 1)).any() for s in trained.records)
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key

    net.eval()
    with monitor.OutputMonitor(net, neuron.BaseNode) as fired, torch.no_grad():
        net(x_seq)
    assert len(fired.records) > 5
    for spikes in fired.records:
        assert ((spikes == 0) | (spikes == 1)).all()


def test_reset_and_detach() -> None:
    net = small_net()
    x_seq = torch.rand(3, 2, 1, 6, 6)
    first = net(x_seq)
    carried = net(x_seq)
    assert not torch.equal(first, carried)
    functional.detach_net(net)
    assert not net[1].v.requires_grad
    net(x_seq).sum().backward()  # truncated BPTT: the first call's graph is not needed
    functional.reset_net(net)
    assert net[1].v == 0.0
    torch.testing.assert_close(net(x_seq), first)


def test_step_modes_agree() -> None:
    net = small_net()
    x_seq = torch.rand(3, 2, 1, 6, 6)
    expected = net(x_seq)
    functional.reset_net(net)
    functional.set_step_mode(net, "s")
    torch.testing.assert_close(torch.stack([net(x) for x in x_seq]), expected)


def test_monitors() -> None:
    net = small_net(store_v_seq=True)
    x_seq = torch.rand(3, 2, 1, 6, 6)
    with (
        monitor.InputMonitor(net, neuron.BaseNode) as inputs,
        monitor.OutputMonitor(net, neuron.BaseNode) as outputs,
        monitor.AttributeMonitor("v_seq", False, net, neuron.BaseNode) as potentials,
        monitor.GradOutputMonitor(net, neuron.BaseNode) as grads,
    ):
        net(x_seq).sum().backward()
    assert inputs.monitored_layers == ["1", "4"]
    for seen in (inputs, outputs, potentials, grads):
        assert seen["1"][0].shape == (3, 2, 4, 6, 6)
        assert seen["4"][0].shape == (3, 2, 3)
        assert all(record.isfinite().all() for record in seen.records)


def test_functional_forward_leaves_the_memory_alone() -> None:
    node = htaf_snn.LIFNode(surrogate_function=htaf_snn.HTAFSpike(), step_mode="m")
    x_seq, v = torch.rand(3, 2), torch.rand(2)
    (spikes,), (v_next,) = node.functional_forward((x_seq,), (v,))
    assert node.v == 0.0
    node.v = v
    assert torch.equal(node(x_seq), spikes)
    assert torch.equal(node.v, v_next)
    node.step_mode = "s"
    (spike,), _ = node.functional_forward((x_seq[0],), (v,))
    torch.testing.assert_close(spike, spikes[0])


def test_synaptic_operations_are_counted_in_hard_mode() -> None:
    net = nn.Sequential(
        htaf_snn.IFNode(surrogate_function=htaf_snn.HTAFSpike()), nn.Linear(8, 5, bias=False)
    )
    counter = op_counter.SynOpCounter()
    x = torch.tensor([[2.0, 0, 0, 2, 0, 0, 0, 2]])
    with torch.no_grad(), firing_hard(net), op_counter.DispatchCounterMode([counter]):
        net(x)
    assert counter.get_total() == 3 * 5


@pytest.mark.parametrize(
    "node_class", [htaf_snn.IFNode, htaf_snn.LIFNode, htaf_snn.ParametricLIFNode]
)
def test_registration_lets_the_hosts_configuration_name_our_classes(
    node_class: type[neuron.BaseNode],
) -> None:
    htaf_snn.register()
    htaf_snn.register()
    config = vision.NeuronConfig(
        class_path=f"{node_class.__module__}.{node_class.__qualname__}",
        surrogate="htaf_snn.surrogates.htaf.HTAFSpike",
        surrogate_kwargs={"alpha0": 0.67, "alpha1": 6.0},
    )
    resolved, kwargs = vision.config._resolve_neuron_config(config)
    assert resolved is node_class
    assert repr(kwargs["surrogate_function"]) == repr(htaf_snn.HTAFSpike(0.67, 6))


def test_default_surrogate_is_the_hosts_and_not_shared() -> None:
    first, second = htaf_snn.LIFNode(), htaf_snn.LIFNode()
    assert type(first.surrogate_function) is surrogate.Sigmoid
    assert first.surrogate_function is not second.surrogate_function
    x_seq = torch.randn(4, 3)
    first.step_mode = "m"
    assert torch.equal(first(x_seq), neuron.LIFNode(step_mode="m")(x_seq))


def test_parameters_of_our_constructors_begin_with_the_hosts() -> None:
    import inspect

    for ours, host in (
        (htaf_snn.IFNode, neuron.IFNode),
        (htaf_snn.LIFNode, neuron.LIFNode),
        (htaf_snn.ParametricLIFNode, neuron.ParametricLIFNode),
    ):
        expected = inspect.signature(host).parameters
        actual = inspect.signature(ours).parameters
        assert [*actual] == [*expected, "backend", "learn", "num_channels"]
        for name in expected:
            if name != "surrogate_function":
                assert actual[name].default == expected[name].default
    own = inspect.signature(htaf_snn.Neuron).parameters
    for name in own.keys() & inspect.signature(neuron.LIFNode).parameters.keys():
        if name != "surrogate_function":
            assert own[name].default == inspect.signature(neuron.LIFNode).parameters[name].default
