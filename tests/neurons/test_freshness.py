"""A call sees every change since the one before: of attributes, modules, hooks and tensors."""

from __future__ import annotations

import copy
import os
import random
import threading
import types
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, surrogate
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import htaf_snn
from htaf_snn import HTAFSpike, ScaledSigmoid
from htaf_snn.neurons import decide, resolve, traced
from htaf_snn.neurons.kernels import cpu

SEQUENCES = int(os.environ.get("HTAF_SNN_EXAMPLES", "150"))


def lif(**options: Any) -> Any:
    options = {"surrogate_function": HTAFSpike(mode="soft"), "step_mode": "m"} | options
    return htaf_snn.LIFNode(**options)


def seen_of(node: Any, x: Tensor) -> list[Tensor | None]:
    """Output, states and gradients of a call from rest."""
    functional.reset_net(node)
    node.zero_grad()
    x = x.detach().clone().requires_grad_()
    y = node(x)
    states = [m for m in node.memories() if isinstance(m, Tensor)]
    (y.sin().sum() + sum(s.square().sum() for s in states)).backward()
    kept = node.v_seq if getattr(node, "store_v_seq", False) else None
    return [y, x.grad, kept, *states, *(p.grad for p in node.parameters())]


def anew(node: Any) -> Any:
    """A copy that has never been called."""
    functional.reset_net(node)
    made = copy.deepcopy(node)
    assert made._resolved.plain is None
    return made


def assert_fresh(node: Any, x: Tensor) -> None:
    try:
        seen = seen_of(node, x)
    except RuntimeError as error:
        assert "size" in str(error)  # a parameter of channels that x has not
        functional.reset_net(node)
        with pytest.raises(RuntimeError, match="size"):
            seen_of(anew(node), x)
        return
    functional.reset_net(node)
    for got, wanted in zip(seen, seen_of(anew(node), x), strict=True):
        assert (got is None) == (wanted is None)
        if got is not None and wanted is not None:
            assert got.dtype == wanted.dtype and torch.equal(got, wanted)


def set_(name: str, draw: Callable[[random.Random], Any]) -> Callable[[Any, random.Random], None]:
    def change(node: Any, chance: random.Random) -> None:
        *path, last = name.split(".")
        for part in path:
            node = getattr(node, part)
        if isinstance(getattr(node, last), Tensor):
            with torch.no_grad():
                getattr(node, last).fill_(abs(float(draw(chance) or 0)) + 1.1)
        else:
            setattr(node, last, draw(chance))

    return change


def number(low: float, high: float) -> Callable[[random.Random], float]:
    return lambda chance: chance.uniform(low, high)


def learn(node: Any, chance: random.Random) -> None:
    name = chance.choice(["tau", "v_threshold"])
    value = torch.full(chance.choice([(), (3,)]), chance.uniform(1.1, 3))
    for group in (node.__dict__, node._parameters):
        group.pop(name, None)
    kind = chance.choice(["parameter", "tensor", "number"])
    if kind == "parameter" or value.ndim:
        setattr(node, name, nn.Parameter(value))
    else:
        setattr(node, name, value if kind == "tensor" else float(value))


def learned(node: Any, chance: random.Random) -> None:
    for parameter in node.parameters():
        if chance.random() < 0.5:
            parameter.requires_grad_(not parameter.requires_grad)
        else:
            with torch.no_grad():
                parameter.data.mul_(chance.uniform(0.9, 1.2)).clamp_(1.05)


HANDLES: dict[int, list[Any]] = {}  # by the identity of a node


def hook(node: Any, chance: random.Random) -> None:
    handles = HANDLES.setdefault(id(node), [])
    if handles and chance.random() < 0.7:
        handles.pop().remove()
    else:
        function = chance.choice([node, node.surrogate_function])
        handles.append(function.register_forward_hook(lambda *_: None))


CHANGES: dict[str, Callable[[Any, random.Random], None]] = {
    "tau": set_("tau", number(1.1, 4)),
    "v_threshold": set_("v_threshold", number(0.3, 2)),
    "v_reset": lambda n, c: setattr(n, "v_reset", c.choice([None, 0.0, -0.25])),
    "rest": lambda n, c: n.set_reset_value("v", c.choice([0.0, 0.3])),
    "decay_input": set_("decay_input", lambda c: c.random() < 0.5),
    "detach_reset": set_("detach_reset", lambda c: c.random() < 0.5),
    "store_v_seq": set_("store_v_seq", lambda c: c.random() < 0.5),
    "step_mode": lambda n, c: setattr(n, "step_mode", c.choice("sm")),
    "backend": lambda n, c: setattr(n, "backend", c.choice(["auto", "torch", "auto"])),
    "function": lambda n, c: setattr(
        n,
        "surrogate_function",
        c.choice([HTAFSpike, surrogate.ATan, ScaledSigmoid, surrogate.Sigmoid])(),
    ),
    "mode": lambda n, c: n.surrogate_function.set_spiking_mode(c.random() < 0.5),
    "training": lambda n, c: n.train(c.random() < 0.5),
    "function's training": lambda n, c: n.surrogate_function.train(c.random() < 0.5),
    "hardness": lambda n, c: (
        setattr(n.surrogate_function, "hardness", c.choice([0, c.random(), c.random()]))
        if isinstance(n.surrogate_function, htaf_snn.SpikeFunction)
        else None
    ),
    "alpha": lambda n, c: (
        n.surrogate_function.set_parameters(
            **{n.surrogate_function.parameter_names[0]: c.uniform(0.5, 3)}
        )
        if isinstance(n.surrogate_function, htaf_snn.SpikeFunction)
        else setattr(n.surrogate_function, "alpha", c.uniform(0.5, 3))
    ),
    "learn": learn,
    "learned": learned,
    "hook": hook,
    "precision": lambda n, c: n.to(c.choice([torch.float32, torch.float64, torch.bfloat16])),
    "a new attribute": lambda n, c: setattr(n, f"own_{c.randrange(3)}", c.random()),
    "threads": lambda _, c: torch.set_num_threads(c.choice([1, 2])),
}


class Recorded:
    """In the place of a kernel: nothing is compiled, and nothing computed."""

    number = "d"

    def __init__(self, program: Any, *_: Any, **__: Any) -> None:
        self.program = program

    def run(self, *_: Any) -> None:
        pass


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What kernels were called with in this test: program, constants, tensors, and how."""
    seen: list[Any] = []
    run, on_torch = resolve.Resolved.run, htaf_snn.neurons.BackendNode._run_on_torch

    def recorded(self: Any, ready: Any, inputs: Any, states: Any, *how: Any) -> Any:
        layer, head = ready
        own = [(t.tolist(), t.requires_grad) for t in self.tensors]
        seen.append((layer.program.encode(), head.tolist(), own, how, layer.kernel is not None))
        return run(self, ready, inputs, states, *how)

    def ran_on_torch(self: Any, *arguments: Any, **options: Any) -> Any:
        made = on_torch(self, *arguments, **options)
        seen.append(("torch", [t.tolist() for t in made[0]]))
        return made

    monkeypatch.setattr(cpu, "kernel", Recorded)
    monkeypatch.setattr(resolve.Resolved, "run", recorded)
    monkeypatch.setattr(htaf_snn.neurons.BackendNode, "_run_on_torch", ran_on_torch)
    decide.compile_obstacle.cache_clear()
    return seen


@pytest.mark.usefixtures("_forgets")
def test_random_changes_are_seen_at_the_next_call(calls: list[Any]) -> None:
    threads, kinds = torch.get_num_threads(), set()
    try:
        for seed in range(SEQUENCES):
            chance = random.Random(seed)
            node, done = lif(), []
            shape: tuple[int, ...] = (2, 3, 4)
            dtype = torch.float32
            for _ in range(8):
                name = chance.choice(list(CHANGES))
                done.append(name)
                CHANGES[name](node, chance)
                if chance.random() < 0.3:
                    shape = chance.choice([(2, 3, 4), (1, 3), (5, 3, 2, 2)])
                if chance.random() < 0.2:
                    dtype = chance.choice([torch.float32, torch.float64, torch.bfloat16])
                torch.manual_seed(seed)
                x = torch.randn(*((3,) if node.step_mode == "m" else ()), *shape).to(dtype)
                if chance.random() < 0.3 and x.ndim > 3:
                    x = x.transpose(-1, -2)
                found = []
                for one in (node, anew(node)):
                    calls.clear()
                    try:
                        one(x.requires_grad_())
                    except RuntimeError as error:
                        assert "size" in str(error)  # a parameter of channels that x has not
                        calls.append(str(error))
                    found.append(list(calls))
                    functional.reset_net(node)
                    functional.reset_net(one)
                assert found[0] == found[1] and found[0], f"seed {seed}: {done}, {shape}, {dtype}"
                kinds.add(found[0][0][0])
    finally:
        torch.set_num_threads(threads)
    assert "torch" in kinds and len(kinds) > 50


@pytest.fixture
def _forgets() -> Any:
    yield
    decide.compile_obstacle.cache_clear()


@dataclass
class Config:
    beta: float = 0.5


class Slotted:
    __slots__ = ("beta",)

    def __init__(self) -> None:
        self.beta = 0.5


class Reading(htaf_snn.Neuron):
    """Reads a number that lies somewhere."""

    scale = 0.5

    def read(self) -> Any:
        return self.scale

    def step(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        h = self.read() * v + x
        spike = self.surrogate_function(h - self.v_threshold)
        return spike, h * (1 - spike)


PLACES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], None]]] = {
    "list": (lambda: [0.5], lambda o: o[0], lambda o: o.__setitem__(0, 0.9)),
    "nested list": (lambda: [[0.5]], lambda o: o[0][0], lambda o: o[0].__setitem__(0, 0.9)),
    "dict": (lambda: {"a": 0.5}, lambda o: o["a"], lambda o: o.update(a=0.9)),
    "list in a tuple": (
        lambda: ([0.5],),
        lambda o: o[0][0],
        lambda o: o[0].append(o[0].pop() + 0.4),
    ),
    "config": (Config, lambda o: o.beta, lambda o: setattr(o, "beta", 0.9)),
    "namespace": (
        lambda: types.SimpleNamespace(of=Config()),
        lambda o: o.of.beta,
        lambda o: setattr(o.of, "beta", 0.9),
    ),
    "slots": (Slotted, lambda o: o.beta, lambda o: setattr(o, "beta", 0.9)),
    "array": (lambda: np.array([0.5]), lambda o: float(o[0]), lambda o: o.__setitem__(0, 0.9)),
    "set": (lambda: {0.5}, lambda o: max(o), lambda o: o.add(0.9)),
    "deque": (lambda: deque([0.5]), lambda o: o[-1], lambda o: o.append(0.9)),
    "tensor in a list": (
        lambda: [torch.tensor(0.5)],
        lambda o: o[0],
        lambda o: o[0].fill_(0.9),
    ),
    "tensor": (lambda: torch.tensor(0.5), lambda o: o, lambda o: o.fill_(0.9)),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_changed_in_place_is_seen(place: str) -> None:
    make, read, change = PLACES[place]
    node = type("Own", (Reading,), {"read": lambda self: read(self.held)})(step_mode="m")
    node.held = make()
    node.backend = "cpu"
    x = torch.randn(5, 3)
    before = node(x)
    change(node.held)
    node.reset()
    after = node(x)
    node.reset()
    node.backend = "torch"
    torch.testing.assert_close(after, node(x))
    assert not torch.equal(before, after)


def test_a_class_attribute_and_a_replaced_method_are_seen() -> None:
    kind: Any = type("Own", (Reading,), {"scale": 0.5})
    node = kind(step_mode="m", backend="cpu")
    x, seen = torch.randn(5, 3), []
    for change in (
        lambda: None,
        lambda: setattr(kind, "scale", 0.9),
        lambda: setattr(kind, "read", lambda _: 0.2),
        lambda: setattr(node, "read", lambda: 0.7),
    ):
        change()
        for backend in ("torch", "cpu"):
            node.backend = backend
            node.reset()
            seen.append(node(x))
        torch.testing.assert_close(seen[-1], seen[-2])
    assert all(not torch.equal(a, b) for a, b in zip(seen[1::2], seen[3::2], strict=False))


def test_what_is_read_from_outside_is_named() -> None:
    text = htaf_snn.explain(Outside())
    assert "SCALE = 0.5" in text


SCALE = 0.5


class Outside(htaf_snn.Neuron):
    def step(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        spike = self.surrogate_function(SCALE * v + x - self.v_threshold)
        return spike, v


def test_assignments_leave_nothing_behind() -> None:
    node, before = lif(), len(traced._NODES)
    for _ in range(20):
        node.backend = "torch"
        node.backend = "auto"
    assert len(traced._NODES) == before


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A number for each time that the slow door was taken in this test."""
    taken: list[str] = []
    fused = decide.fused
    monkeypatch.setattr(resolve, "fused", lambda *a: [taken.append("slow"), fused(*a)][1])  # type: ignore[func-returns-value]
    return taken


def test_another_number_of_steps_in_the_same_layout_is_seen() -> None:
    node = lif()
    for steps in (4, 7, 2):
        assert_fresh(node, torch.randn(steps, 2, 3))


def test_schedules_take_the_fast_door(doors: list[str]) -> None:
    node, x = lif(), torch.randn(4, 3, requires_grad=True)
    node.surrogate_function.hardness = 0.1
    for step in range(20):
        node.surrogate_function.hardness = 0.1 + step / 100
        node.surrogate_function.set_parameters(alpha0=1.0 + step / 10)
        node.reset()
        node(x).sum().backward()
    assert doors == ["slow"]


def test_two_nodes_share_a_spike_function() -> None:
    function = HTAFSpike(mode="soft")
    nodes = [lif(surrogate_function=function), lif(surrogate_function=function, tau=3.0)]
    x = torch.randn(4, 3)
    for hardness in (0.2, 0.6, 0.0, 1.0):
        function.hardness = hardness
        for node in nodes:
            assert_fresh(node, x)


def test_a_backward_pass_has_the_numbers_of_its_own_forward() -> None:
    node, x = lif(), torch.randn(4, 3)
    seen = []
    for apart in (True, False):
        inputs, outputs = [x.clone().requires_grad_() for _ in "ab"], []
        for hardness, alpha0, one in zip((0.2, 0.7), (0.6, 2.0), inputs, strict=True):
            node.surrogate_function.hardness = hardness
            node.surrogate_function.alpha0 = alpha0
            node.reset()
            outputs.append(node(one).sum())
            if apart:
                outputs.pop().backward()
        for output in outputs:
            output.backward()
        seen.append([one.grad for one in inputs])
    for a, b in zip(*seen, strict=True):
        assert a is not None and b is not None and torch.equal(a, b)
    assert not torch.equal(*seen[0])  # type: ignore[arg-type]


def test_threads_of_python() -> None:
    function = HTAFSpike(mode="soft")
    nodes = [lif(surrogate_function=function) for _ in range(4)]
    shapes = [(4, 3), (2, 5), (6, 1), (3, 7)]
    wanted = [seen_of(n, torch.ones(s)) for n, s in zip(nodes, shapes, strict=True)]
    wrong: list[str] = []

    def run(k: int) -> None:
        for _ in range(50):
            for got, one in zip(seen_of(nodes[k], torch.ones(shapes[k])), wanted[k], strict=True):
                if got is not None and one is not None and not torch.equal(got, one):
                    wrong.append(f"thread {k}")

    running = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_a_forked_process() -> None:
    node, x = lif(), torch.randn(4, 3)
    wanted = node(x)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        node.reset()
        os.write(writing, b"1" if torch.equal(node(x), wanted) else b"0")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 1) == b"1"
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("learnable", [False, True])
def test_checkpoints_that_are_not_reentrant(backend: Any, learnable: bool) -> None:
    node = lif(surrogate_function=HTAFSpike(learnable=learnable), backend=backend)
    for module in (node, htaf_snn.HTAF(learnable=learnable)):
        grads = []

        def whole(x: Tensor, module: Any = module) -> Any:
            functional.reset_net(module)
            return module(x)

        for run in (whole, lambda x, whole=whole: checkpoint(whole, x, use_reentrant=False)):
            module.zero_grad()
            x = torch.linspace(-2, 2, 12).view(3, 4).requires_grad_()
            run(x).square().sum().backward()
            grads.append([x.grad, *(p.grad for p in module.parameters())])
            functional.reset_net(module)
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b)


def test_the_kernel_runs_with_torchs_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    run, threads = cpu.CPUKernel.run, torch.get_num_threads()
    seen: list[int] = []

    def watched(kernel: Any, name: str, words: Any, *rest: Any) -> None:
        seen.append(words[2])
        run(kernel, name, words, *rest)

    monkeypatch.setattr(cpu.CPUKernel, "run", watched)
    node = lif()
    try:
        for count in (1, 2, 1):
            torch.set_num_threads(count)
            node(torch.randn(3, 4))
    finally:
        torch.set_num_threads(threads)
    assert seen == [1, 2, 1]
