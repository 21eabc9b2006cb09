"""What is run on the old packages, by `record`, and on ours, by the tests: the same lines."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Case = Callable[[], list[float]]
OLD = {"12": "spikingjelly.clock_driven", "14": "spikingjelly.activation_based"}
MODULES = ("base", "encoding", "functional", "layer", "monitor", "neuron", "surrogate")
NODES = ("IFNode", "LIFNode", "ParametricLIFNode", "QIFNode", "EIFNode", "KLIFNode",
         "IzhikevichNode", "LIAFNode", "AdaptBaseNode", "BaseNode", "MultiStepIFNode",
         "MultiStepLIFNode", "MultiStepParametricLIFNode", "MultiStepEIFNode")  # fmt: skip
FIRST: dict[str, dict[str, Any]] = {
    "LIAFNode": {"act": torch.tanh, "threshold_related": True},
    "IzhikevichNode": {"a": 0.3, "b": 0.2},
}


def module(release: str, name: str) -> Any:
    return importlib.import_module(f"{OLD[release]}.{name}")


def wave(*shape: int, seed: float = 0.0) -> Tensor:
    """Numbers that no release of torch draws otherwise."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float32)
    return torch.sin(count * 1.7 + seed).reshape(shape)


def numbers(*tensors: Tensor) -> list[float]:
    """A weighted sum of each tensor, to compare by."""
    sums = [(one.detach().double() * wave(*one.shape, seed=0.3)).sum() for one in tensors]
    return [round(float(number), 5) for number in sums]


BACKEND: list[str] = []  # what our neurons run on, if not "auto": kernels take time to compile


def on_backend(node: Any) -> None:
    if BACKEND and hasattr(node, "_backend"):
        node.backend = BACKEND[0]


def names(release: str) -> dict[str, list[str]]:
    """The public classes and functions of each module."""
    found = {}
    for name in MODULES:
        one = module(release, name)
        found[name] = sorted(
            key
            for key, value in vars(one).items()
            if not key.startswith("_")
            and callable(value)
            and getattr(value, "__module__", "").startswith("spikingjelly.")
        )
    return found


def signatures(release: str) -> dict[str, list[str]]:
    """The positional arguments of each neuron."""
    neuron = module(release, "neuron")
    return {
        name: [*inspect.signature(getattr(neuron, name)).parameters]
        for name in NODES
        if hasattr(neuron, name) and name != "LIAFNode"
    }


def run(
    made: Any, given: dict[str, Any], x: Tensor, multi: bool, training: bool = True
) -> list[float]:
    node = made(**given).train(training)
    on_backend(node)
    if given.get("step_mode") == "m":
        node.store_v_seq = True
    x = x.clone().requires_grad_()
    spikes = node(x) if multi else torch.stack([node(one) for one in x])
    found = [spikes, node.v]
    if node.training:  # 0.0.0.0.14 has no gradient in eval()
        (spikes * wave(*spikes.shape, seed=2.0)).sum().backward()
        found.append(x.grad)
    if multi and getattr(node, "v_seq", None) is not None:
        found.append(node.v_seq)
    learned = [p.grad for p in node.parameters() if p.grad is not None]
    return numbers(*(t for t in [*found, *learned] if t is not None))


def node_cases(release: str) -> Iterator[tuple[str, Case]]:
    neuron, surrogate = module(release, "neuron"), module(release, "surrogate")
    x = wave(4, 2, 3) * 1.5 + 0.5
    for name in NODES:
        if not hasattr(neuron, name) or name.endswith("BaseNode"):
            continue
        made = getattr(neuron, name)
        steps = [name.startswith("MultiStep")] if release == "12" else [False, True]
        for multi in steps:
            mode = {"step_mode": "m" if multi else "s"} if release == "14" else {}
            for title, options in options_of(name):
                given = {**FIRST.get(name, {}), **options, **mode}
                case = partial(run, made, given, x, multi)
                yield f"{name}, {'m' if multi else 's'}{title}", case
            given = {**FIRST.get(name, {}), **mode, "surrogate_function": surrogate.ATan()}
            case = partial(run, made, given, x.abs(), multi, training=False)
            yield f"{name}, {'m' if multi else 's'}, eval, ATan", case


def options_of(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    resets: list[float | None] = [0.0, None, -0.3]
    if name.endswith(("QIFNode", "EIFNode")):
        resets = [-0.1, None]
    for v_reset in resets:
        yield f", v_reset={v_reset}", {"v_reset": v_reset}
        if v_reset != -0.3:
            yield f", v_reset={v_reset}, detached", {"v_reset": v_reset, "detach_reset": True}
        if name.endswith("LIFNode"):
            options = {"v_reset": v_reset, "decay_input": False, "v_threshold": 0.5}
            yield f", v_reset={v_reset}, no decay", options


def surrogate_cases(release: str) -> Iterator[tuple[str, Case]]:
    surrogate = module(release, "surrogate")
    for name, kind in sorted(vars(surrogate).items()):
        if not (inspect.isclass(kind) and issubclass(kind, nn.Module)) or name.endswith("Base"):
            continue
        yield name, partial(slopes, kind)


def slopes(kind: Any) -> list[float]:
    x = (wave(9) * 1.4).requires_grad_()
    function = kind()
    spikes = function(x)
    spikes.backward(wave(9, seed=1.0))
    assert x.grad is not None
    function.set_spiking_mode(False)
    return numbers(spikes, x.grad, function.primitive_function(x, *function_arguments(function)))


def function_arguments(function: Any) -> list[float]:
    names = [*inspect.signature(type(function)).parameters]
    return [getattr(function, name) for name in names if name not in ("spiking", "learnable")]


def network_cases(release: str) -> Iterator[tuple[str, Case]]:
    """The networks of `networks_12` or `networks_14`, their outputs and all gradients."""
    networks = importlib.import_module(f"{__package__}.networks_{release}")
    functional = module(release, "functional")
    for name, kind in networks.NETWORKS.items():
        for training in (True, False):
            title = f"{name}, {'train' if training else 'eval'}"
            yield title, partial(pass_through, kind, functional, training)


def pass_through(kind: Any, functional: Any, training: bool) -> list[float]:
    net = kind().train(training)
    for node in net.modules():
        on_backend(node)
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(net.named_parameters()):
            if parameter.ndim > 1 or name.endswith("bias"):
                parameter.copy_(wave(*parameter.shape, seed=float(seed)) * 0.5)
    y = net(wave(4, 2, 2, 8, 8))
    if not training:
        return numbers(y)
    (y * wave(*y.shape, seed=2.0)).sum().backward()
    functional.reset_net(net)
    return numbers(y, *(p.grad for p in net.parameters() if p.grad is not None))


def record(release: str) -> dict[str, Any]:
    """Everything of a release; without the cases that it cannot run itself."""
    found: dict[str, Any] = {"names": names(release), "signatures": signatures(release)}
    for title, cases in CASES.items():
        found[title] = {}
        for name, case in cases(release):
            try:
                found[title][name] = case()
            except (RuntimeError, AttributeError, TypeError) as error:
                first = str(error).partition("\n")[0]
                print(f"0.0.0.0.{release} cannot run {name}: {first}", file=sys.stderr)  # noqa: T201
    return found


CASES: dict[str, Callable[[str], Iterator[tuple[str, Case]]]] = {
    "nodes": node_cases,
    "surrogates": surrogate_cases,
    "networks": network_cases,
}
