"""Steps that hypothesis composes, fused on the CPU and as CUDA text on the shim, against torch.

`HTAF_SNN_EXAMPLES=300 pytest tests/neurons/test_random_steps.py` tries that many; the suite fewer,
since each compiles two kernels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import htaf_snn
from htaf_snn.neurons.kernels import compiled, compiler, cpu, cuda, layer
from htaf_snn.neurons.kernels.buffers import cpu_source, cuda_source
from htaf_snn.neurons.step.graph import Op, decode
from htaf_snn.neurons.traced import step_of
from tests.neurons.test_cuda_source import shim_kernel

EXAMPLES = int(os.environ.get("HTAF_SNN_EXAMPLES", "30"))
CHANNELS = 3

UNARY: dict[str, Any] = {
    "tanh": torch.tanh,
    "sigmoid": lambda a: torch.sigmoid(2 * a),
    "bump": lambda a: torch.sigmoid(a) * torch.sigmoid(-a),
    "sine": torch.sin,
    "absolute": torch.abs,
    "relu": torch.relu,
    "clamped": lambda a: a.clamp(-0.7, 0.6),
    "root": lambda a: (a.abs() + 0.3).sqrt(),
    "decay": lambda a: torch.exp(-a.abs()),
    "inverse": lambda a: 1 / (1 + a * a),
    "cube": lambda a: a.clamp(-2, 2) ** 3,
    "softplus": nn.functional.softplus,
    "leaky": lambda a: nn.functional.leaky_relu(a, 0.2),
    "logarithm": lambda a: torch.log1p(a.abs()),
    "step": lambda a: (a >= 0.1).to(a),
}
BINARY: dict[str, Any] = {
    "sum": torch.add,
    "difference": torch.sub,
    "product": lambda a, b: torch.tanh(a) * b.clamp(-3, 3),
    "quotient": lambda a, b: a / (1.5 + b.abs()),
    "larger": torch.maximum,
    "chosen": lambda a, b: torch.where(a > b, a, 0.5 * b),
    "gated": lambda a, b: torch.lerp(a, b, 0.3),
}


class RandomStep(htaf_snn.Neuron):
    """A step that applies a list of operations to its input, states and parameters."""

    recipe: Sequence[tuple[str, int, int]] = ()
    ends: Sequence[int] = ()

    def step(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        values = [x, *states, *(p for k, p in sorted(self._own().items()))]
        for name, a, b in self.recipe:
            one, other = (values[i % len(values)] for i in (a, b))
            made = UNARY[name](one) if name in UNARY else BINARY[name](one, other)
            values.append(made + 0 * x)  # of the step's shape, whatever it is made of
        spike = self.surrogate_function(values[-1] - 0.2)
        # States stay bounded, so that rounding is all that differs after ten steps.
        return spike, *(torch.tanh(values[i % len(values)]) + 0 * x for i in self.ends)

    def _own(self) -> dict[str, Tensor]:
        found = {**self._parameters, **self.__dict__}
        return {k: v for k, v in found.items() if k.startswith("p_") and isinstance(v, Tensor)}


def build(recipe: Any, ends: Any, shapes: Any, mode: Any, backend: Any) -> RandomStep:
    kind = type("Random", (RandomStep,), {
        "states": {"v": 0.1} | {f"s{k}": 0.0 for k in range(1, len(ends))},
        "recipe": recipe, "ends": ends,
    })  # fmt: skip
    torch.manual_seed(0)
    node = kind(surrogate_function=htaf_snn.HTAFSpike(mode=mode), step_mode="m", backend=backend)
    for k, shape in enumerate(shapes):
        setattr(node, f"p_{k}", nn.Parameter(0.5 * torch.randn(shape)))
    made: RandomStep = node.double()
    return made


def observe(node: RandomStep, x_seq: Tensor) -> list[Tensor]:
    x = x_seq.clone().requires_grad_()
    spikes = node(x)
    (spikes.cos().sum() + sum(s.sin().sum() for s in node.memories())).backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in node.parameters()]
    assert x.grad is not None
    return [spikes, *node.memories(), x.grad, *grads]


names = st.sampled_from([*UNARY, *BINARY])
number = st.integers(0, 30)


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    known = compiler.find_compiler()
    flags = tuple(f for f in known.flags if f not in ("-O3", "-march=native"))
    monkeypatch.setattr(compiler, "find_compiler", lambda: replace(known, flags=(*flags, "-O0")))


@pytest.mark.usefixtures("quick_compiler")
@given(
    recipe=st.lists(st.tuples(names, number, number), min_size=1, max_size=12),
    ends=st.lists(number, min_size=1, max_size=3),
    shapes=st.lists(st.sampled_from([(), (CHANNELS,), (CHANNELS, 2)]), max_size=3),
    mode=st.sampled_from(["soft", "hard"]),
    T=st.integers(1, 10),
)
@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
def test_random_steps(recipe: Any, ends: Any, shapes: Any, mode: Any, T: int) -> None:
    torch.manual_seed(1)
    x_seq = torch.randn(T, 4, CHANNELS, 2, dtype=torch.float64)
    expected = observe(build(recipe, ends, shapes, mode, "torch"), x_seq)
    with pytest.MonkeyPatch.context() as patch:
        for kernels in ("cpu", "shim"):
            if kernels == "shim":
                patch.setattr(cuda, "get_launch", shim_kernel)
                patch.setattr(cuda, "_THREADS", 8)
                patch.setitem(layer.KERNELS, "cpu", layer.KERNELS["cuda"])
            actual = observe(build(recipe, ends, shapes, mode, "cpu"), x_seq)
            for a, b in zip(actual, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def test_a_mutant_kernel_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any literal of the text that is off by 1e-3 changes an output or a gradient beyond 1e-9."""
    node = htaf_snn.LIFNode(surrogate_function=htaf_snn.HTAFSpike(mode="soft"), tau=3.0).double()
    own = step_of(node)
    assert own.traced.program is not None
    program = decode(own.traced.program)
    x_seq = torch.randn(5, 40, dtype=torch.float64, requires_grad=True)
    states = [torch.randn(40, dtype=torch.float64)]

    def run(text: str, numbers: Sequence[float]) -> list[Tensor]:
        (spikes, v) = compiled.neuron([x_seq], states, [], list(numbers), text, False)
        grad = torch.autograd.grad((spikes * spikes.detach()).sum() + v.sum(), x_seq)[0]
        return [spikes.detach(), v.detach(), grad]

    def differs(found: list[Tensor]) -> bool:
        pairs = zip(found, expected, strict=True)
        return any(((a - b).abs().max() > 1e-9) for a, b in pairs)

    expected = run(own.traced.program, own.numbers)
    assert not differs(run(own.traced.program, own.numbers))
    mutants = 0
    for place, op in enumerate(program.ops):
        if op.name == "constant" and op.args[0]:
            ops = list(program.ops)
            ops[place] = Op("constant", (op.args[0] + 1e-3,))
            assert differs(run(replace(program, ops=tuple(ops)).encode(), own.numbers)), op
            mutants += 1
    for place in range(len(own.numbers)):
        numbers = list(own.numbers)
        numbers[place] += 1e-3
        assert differs(run(own.traced.program, numbers)), place
        mutants += 1
    assert mutants > 5


def test_the_text_of_a_step_compiles_on_both_devices_from_the_same_bodies() -> None:
    text = step_of(htaf_snn.LIFNode(surrogate_function=htaf_snn.HTAFSpike())).traced.program
    assert text is not None
    program = decode(text)
    on_cpu, on_cuda = (
        {line.strip() for line in source.splitlines() if line.strip().startswith("const R a")}
        for source in (
            cpu_source(program, torch.float32),
            cuda_source(program, torch.float32, 4).replace("hardware::", ""),
        )
    )  # fmt: skip
    computed = {line for line in on_cpu if "load(" not in line and "[i]" not in line}
    assert computed <= on_cuda


def test_the_cpu_kernel_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    run = cpu.CPUKernel.run
    monkeypatch.setattr(cpu.CPUKernel, "run", lambda k, n, *a: [seen.append(n), run(k, n, *a)][1])  # type: ignore[func-returns-value]
    observe(build([("tanh", 0, 0)], [0], [], "soft", "cpu"), torch.randn(2, 4, 3, 2).double())
    assert seen == ["forward", "backward"]
