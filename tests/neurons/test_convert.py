"""Converted neurons are the neurons that they were: the same objects, numbers, state and hooks."""

from __future__ import annotations

import copy
import itertools
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import spiking_resnet
from torch import Tensor, nn

import htaf_snn
from htaf_snn import HTAFSpike
from htaf_snn.neurons import Backend
from htaf_snn.neurons.host import why_not
from htaf_snn.neurons.kernels import device
from htaf_snn.surrogates.spike_function import say_once

PAIRS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "if": (neuron.IFNode, htaf_snn.IFNode),
    "lif": (neuron.LIFNode, htaf_snn.LIFNode),
    "plif": (neuron.ParametricLIFNode, htaf_snn.ParametricLIFNode),
}


class OwnLIFNode(neuron.LIFNode):
    """A user's subclass, which may have an equation of its own."""


class OurLIFNode(htaf_snn.LIFNode):
    """A user's subclass of ours."""


def small_net(host: type[nn.Module] = neuron.LIFNode, **arguments: object) -> Any:
    torch.manual_seed(3)
    net = nn.Sequential(
        layer.Linear(6, 5),
        host(**arguments, surrogate_function=surrogate.ATan()),
        nn.Sequential(layer.Linear(5, 4), host(**arguments)),
    )
    functional.set_step_mode(net, "m")
    return net


def classes(net: nn.Module) -> list[type[nn.Module]]:
    return [type(m) for m in net.modules() if isinstance(m, neuron.BaseNode)]


def run(net: nn.Module, x_seq: Tensor) -> dict[str, Tensor]:
    """Outputs, states and gradients of one pass from the carried state, which is then detached."""
    net.zero_grad()
    x_seq = x_seq.clone().requires_grad_()
    out = net(x_seq)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    nodes = {n: m for n, m in net.named_modules() if isinstance(m, neuron.BaseNode)}
    ((out * weights).sum() + sum((m.v**2).sum() for m in nodes.values())).backward()
    assert x_seq.grad is not None
    seen = {"out": out.detach(), "grad x": x_seq.grad}
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        seen[f"grad {name}"] = parameter.grad.clone()
    for name, node in nodes.items():
        seen[f"v {name}"] = node.v.detach().clone()
        if node.store_v_seq:
            seen[f"v_seq {name}"] = node.v_seq.detach().clone()
    functional.detach_net(net)
    return seen


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(actual[key], expected[key], msg=key)


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("decay_input", [True, False], ids=["", "input not decayed"])
@pytest.mark.parametrize("v_reset", [0.0, -0.3, None], ids=["hard0", "hard", "soft"])
@pytest.mark.parametrize("name", PAIRS)
def test_the_numbers_and_the_carried_state_go_on(
    name: str, v_reset: float | None, decay_input: bool, backend: Backend
) -> None:
    host, ours = PAIRS[name]
    arguments: dict[str, object] = {
        "v_threshold": 0.4, "v_reset": v_reset, "detach_reset": True, "store_v_seq": True,
    }  # fmt: skip
    if name != "if":
        arguments["decay_input"] = decay_input
        arguments["tau" if name == "lif" else "init_tau"] = 3.5
    expected, net = small_net(host, **arguments), small_net(host, **arguments)
    x_seq = 2 * torch.randn(4, 3, 6)
    assert_same(run(net, x_seq), run(expected, x_seq))

    htaf_snn.convert(net, backend)
    assert classes(net) == [ours, ours]
    assert [net[1].backend, net[2][1].backend] == [backend] * 2
    assert net[1].v_seq is not None
    assert_same(run(net, x_seq), run(expected, x_seq))

    htaf_snn.revert(net)
    assert classes(net) == [host, host]
    assert_same(run(net, x_seq), run(expected, x_seq))
    assert vars(net[1]).keys() == vars(expected[1]).keys()
    for net_ in (net, expected):
        functional.reset_net(net_)
    assert net[1].v == (v_reset or 0.0)
    assert_same(run(net, x_seq), run(expected, x_seq))


@pytest.mark.parametrize("name", PAIRS)
def test_everything_stays_the_object_that_it_was(name: str) -> None:
    host, _ = PAIRS[name]
    net = small_net(host).eval()
    net[1].label = "of the user's own"
    fired: list[tuple[nn.Module, str]] = []
    net[1].register_forward_pre_hook(lambda module, _: fired.append((module, "before")))
    net[1].register_forward_hook(lambda module, *_: fired.append((module, "after")))
    net[1].register_full_backward_hook(lambda module, *_: fired.append((module, "backward")))
    modules, parameters = dict(net.named_modules()), dict(net.named_parameters())
    keys = list(net.state_dict())
    for change in (htaf_snn.convert, htaf_snn.revert):
        change(net)
        assert dict(net.named_modules()).items() == modules.items()  # modules equal by identity
        assert [*dict(net.named_parameters())] == [*parameters]
        for key, parameter in net.named_parameters():
            assert parameter is parameters[key]
        assert list(net.state_dict()) == keys
        assert not any(module.training for module in net.modules())
        assert net[1].label == "of the user's own"
        fired.clear()
        net(torch.randn(2, 3, 6, requires_grad=True)).sum().backward()
        assert fired == [(net[1], "before"), (net[1], "after"), (net[1], "backward")]
        functional.reset_net(net)


def test_an_optimizer_made_before_goes_on() -> None:
    expected, net = small_net(neuron.ParametricLIFNode), small_net(neuron.ParametricLIFNode)
    optimizers = [torch.optim.Adam(n.parameters(), lr=0.1) for n in (expected, net)]
    x_seq = 3 * torch.randn(4, 3, 6)
    w = net[1].w.item()
    for step in range(3):
        if step == 1:
            htaf_snn.convert(net)
        for n, optimizer in zip((expected, net), optimizers, strict=True):
            functional.reset_net(n)
            run(n, x_seq)
            optimizer.step()
    assert abs(net[1].w.item() - w) > 0.1
    torch.testing.assert_close(net.state_dict(), expected.state_dict())


def test_state_dicts_are_exchanged() -> None:
    host, net = small_net(neuron.ParametricLIFNode), small_net(neuron.ParametricLIFNode)
    nn.init.constant_(host[1].w, 0.7)
    htaf_snn.convert(net).load_state_dict(host.state_dict())
    assert net[1].w.item() == host[1].w.item()
    host.load_state_dict(net.state_dict())


@pytest.mark.parametrize("strict", [True, False])
def test_state_dicts_of_other_spike_functions(
    strict: bool, caplog: pytest.LogCaptureFixture
) -> None:
    say_once.cache_clear()
    kinds = [surrogate.ATan, HTAFSpike, htaf_snn.ScaledSigmoid]
    for source, target in itertools.permutations(kinds, 2):
        net, other = (
            nn.Sequential(nn.Linear(2, 2), htaf_snn.LIFNode(surrogate_function=kind()))
            for kind in (source, target)
        )
        before = {k: v for k, v in other.state_dict().items() if k.startswith("1.")}
        other.load_state_dict(net.state_dict(), strict)
        after = other.state_dict()
        assert all(after[key].equal(value) for key, value in before.items())
        assert after["0.weight"].equal(net[0].weight)
    said = [r.getMessage() for r in caplog.records if "the state dict" in r.getMessage()]
    assert len(said) == len(set(said)) == 2
    learned = htaf_snn.LIFNode(surrogate_function=HTAFSpike(learnable=True))
    with pytest.raises(RuntimeError, match="alpha0"):
        learned.load_state_dict({})
    with pytest.raises(RuntimeError, match="alpha0"):
        htaf_snn.LIFNode().load_state_dict(learned.state_dict())


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("channel_dim", [3, -4])
def test_a_channel_dimension_that_is_not_there(channel_dim: int, backend: Any) -> None:
    node = neuron.ActivationAwareIFNode(torch.ones(5), torch.ones(5), channel_dim=channel_dim)
    node.step_mode = "m"
    with pytest.raises(ValueError, match="out of range for input with 3 dimensions"):
        htaf_snn.convert(node, backend)(torch.ones(2, 5, 5, 5))


def test_a_step_in_parts_that_spikingjelly_ignores_raises() -> None:
    def neuronal_charge(self: Any, x: Tensor) -> None:
        self.v = self.v + 2 * x

    parts = {"neuronal_charge": neuronal_charge}
    with pytest.raises(TypeError, match=r"Mine defines neuronal_charge.*htaf_snn\.compat"):
        type("Mine", (htaf_snn.LIFNode,), parts)
    host = type("Mine", (neuron.LIFNode,), parts)
    assert "Mine defines neuronal_charge" in str(why_not(host()))
    simple = type("Mine", (neuron.SimpleLIFNode,), parts)  # whose step it is
    assert why_not(simple(2.0, True)) is None


def test_a_neuron_by_itself() -> None:
    node = neuron.LIFNode(step_mode="m")
    assert htaf_snn.convert(node, "torch") is node
    assert type(node) is htaf_snn.LIFNode
    assert "backend='torch'" in repr(node)
    assert htaf_snn.revert(node) is node
    assert type(node) is neuron.LIFNode
    assert "backend" not in repr(node)


def test_a_shared_neuron_stays_shared() -> None:
    node = neuron.IFNode()
    net = nn.Sequential(layer.Linear(3, 3), node, layer.Linear(3, 3), node)
    htaf_snn.convert(net)
    assert net[1] is net[3] is node
    assert type(node) is htaf_snn.IFNode
    htaf_snn.revert(net)
    assert net[1] is net[3] is node
    assert type(node) is neuron.IFNode


def test_ours_take_the_backend() -> None:
    net = nn.Sequential(htaf_snn.IFNode(), OurLIFNode(), neuron.IFNode())
    htaf_snn.convert(net, "torch")
    assert [m.backend for m in net] == ["torch"] * 3
    assert classes(net) == [htaf_snn.IFNode, OurLIFNode, htaf_snn.IFNode]
    htaf_snn.convert(net[:2], "auto")
    assert [m.backend for m in net] == ["auto", "auto", "torch"]
    htaf_snn.revert(net)
    assert classes(net) == [neuron.IFNode, OurLIFNode, neuron.IFNode]


class OwnLoopNode(neuron.LIFNode):
    """A user's subclass with a time loop of its own."""

    def multi_step_functional_forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().multi_step_functional_forward(*args, **kwargs)


def test_other_neurons_are_left_and_named_once_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = nn.Sequential(OwnLoopNode(), neuron.IFNode(), neuron.SlidingPSN(k=2), OwnLoopNode())
    with caplog.at_level(logging.INFO, "htaf_snn"):
        htaf_snn.convert(net)
    kinds = [type(m) for m in net]
    assert kinds == [OwnLoopNode, htaf_snn.IFNode, neuron.SlidingPSN, OwnLoopNode]
    (message,) = [r.getMessage() for r in caplog.records if "leaves" in r.getMessage()]
    assert message.count("SlidingPSN: ") == 1
    assert message.count("OwnLoopNode: OwnLoopNode defines multi_step_functional_forward") == 1


def test_a_users_subclass_is_converted_and_reverted() -> None:
    net = nn.Sequential(OwnLIFNode(), neuron.SimpleIFNode())
    htaf_snn.convert(net)
    assert isinstance(net[0], OwnLIFNode) and isinstance(net[0], htaf_snn.neurons.BackendNode)
    assert [type(m) for m in htaf_snn.revert(net).children()] == [OwnLIFNode, neuron.SimpleIFNode]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: nn.Linear(2, 2), "none"),
        (lambda: nn.Sequential(neuron.SlidingPSN(k=2)), "SlidingPSN: "),
    ],
    ids=["no neurons", "others"],
)
def test_nothing_to_convert_or_revert(make: Callable[[], nn.Module], named: str) -> None:
    with pytest.raises(ValueError, match=f"no neuron that can be fused.*{named}"):
        htaf_snn.convert(make())
    with pytest.raises(ValueError, match="to revert"):
        htaf_snn.revert(make())
    with pytest.raises(ValueError, match="to revert"):
        htaf_snn.revert(small_net())


def test_nothing_changes_before_the_backend_is_known_to_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = small_net()
    net.append(htaf_snn.LIFNode(step_mode="m"))
    before = classes(net)
    with pytest.raises(ValueError, match="nonsense"):
        htaf_snn.convert(net, "nonsense")  # type: ignore[arg-type]

    def no_compiler() -> None:
        raise htaf_snn.BackendUnavailableError("no compiler")

    monkeypatch.setattr(device, "check_toolchain", no_compiler)
    with pytest.raises(htaf_snn.BackendUnavailableError, match="no compiler"):
        htaf_snn.convert(net, "cpu")
    assert classes(net) == before
    assert "_backend" not in vars(net[1])
    assert net[3].backend == "auto"


def test_spiking_jellys_neuron_precision_is_refused() -> None:
    net = small_net()
    net[2][1]._neuron_precision = (torch.float16, "fp32", "fp32")
    before = classes(net)
    with pytest.raises(ValueError, match=r"2\.1 .*torch\.float16.*neuron_storage=None"):
        htaf_snn.convert(net)
    assert classes(net) == before


def test_a_model_of_the_hosts() -> None:
    expected = spiking_resnet.spiking_resnet18(
        spiking_neuron=neuron.LIFNode, surrogate_function=surrogate.ATan(), num_classes=10
    )
    functional.set_step_mode(expected, "m")
    net = htaf_snn.convert(copy.deepcopy(expected))
    assert classes(expected) == [neuron.LIFNode] * 17
    assert classes(net) == [htaf_snn.LIFNode] * 17
    x_seq = torch.rand(2, 2, 3, 32, 32)
    for n in (expected, net):
        n.eval()
    with torch.no_grad():
        torch.testing.assert_close(net(x_seq), expected(x_seq))
        functional.reset_net(net)
        functional.set_step_mode(net, "s")
        functional.reset_net(expected)
        torch.testing.assert_close(torch.stack([net(x) for x in x_seq]), expected(x_seq))


def pickled(net: nn.Module) -> nn.Module:
    copied = pickle.loads(pickle.dumps(net))
    assert isinstance(copied, nn.Module)
    return copied


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("name", PAIRS)
def test_copies(name: str, duplicate: Callable[[nn.Module], nn.Module]) -> None:
    host, ours = PAIRS[name]
    net = htaf_snn.convert(small_net(host), "torch")
    x_seq = torch.randn(4, 3, 6)
    run(net, x_seq)
    copied = duplicate(net)
    assert classes(copied) == [ours, ours]
    assert [m.backend for m in copied.modules() if isinstance(m, ours)] == ["torch"] * 2
    assert_same(run(copied, x_seq), run(net, x_seq))
    assert classes(htaf_snn.revert(copied)) == [host, host]
    assert classes(net) == [ours, ours]


@pytest.mark.parametrize("name", PAIRS)
def test_nir_export_after_revert(name: str) -> None:
    nir = pytest.importorskip("nir")
    pytest.importorskip("nirtorch")
    from spikingjelly.activation_based import nir_exchange

    host, _ = PAIRS[name]
    net = nn.Sequential(layer.Linear(6, 5), host(), layer.Linear(5, 4), host())
    x = torch.rand(3, 6)
    graph = nir_exchange.export_to_nir(htaf_snn.revert(htaf_snn.convert(net)), x)
    kinds = [type(node) for node in graph.nodes.values()]
    assert kinds.count(nir.IF if name == "if" else nir.LIF) == 2
