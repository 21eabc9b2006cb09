"""Every neuron class of SpikingJelly's, converted, is what it was; the others say why not."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

import htaf_snn
from htaf_snn import HTAFSpike
from htaf_snn.neurons import host
from htaf_snn.neurons.kernels import compiler, cpu, cuda, layer
from htaf_snn.neurons.kernels.buffers import cpu_source, cuda_source
from htaf_snn.neurons.step.graph import decode
from htaf_snn.neurons.step.simplify import with_norm
from htaf_snn.neurons.traced import step_of
from tests import nvrtc
from tests.neurons.test_cuda_source import launches, shim_kernel

FUSED: dict[str, Callable[[Any], Any]] = {
    "SimpleIFNode": lambda f: neuron.SimpleIFNode(surrogate_function=f),
    "IFNode": lambda f: neuron.IFNode(surrogate_function=f, v_reset=-0.2),
    "HalfThresholdIFNode": lambda f: neuron.HalfThresholdIFNode(surrogate_function=f),
    "ActivationAwareIFNode": lambda f: neuron.ActivationAwareIFNode(
        torch.rand(5) + 0.5, torch.rand(5), channel_dim=1, surrogate_function=f
    ),
    "SimpleLIFNode": lambda f: neuron.SimpleLIFNode(2.5, True, surrogate_function=f),
    "LIFNode": lambda f: neuron.LIFNode(2.5, surrogate_function=f),
    "ParametricLIFNode": lambda f: neuron.ParametricLIFNode(2.5, surrogate_function=f),
    "QIFNode": lambda f: neuron.QIFNode(surrogate_function=f),
    "EIFNode": lambda f: neuron.EIFNode(surrogate_function=f),
    "IzhikevichNode": lambda f: neuron.IzhikevichNode(a=0.3, b=0.2, surrogate_function=f),
    "KLIFNode": lambda f: neuron.KLIFNode(surrogate_function=f),
    "GatedLIFNode": lambda f: neuron.GatedLIFNode(T=6, inplane=5, surrogate_function=f),
    "ComplementaryLIFNode": lambda f: neuron.ComplementaryLIFNode(surrogate_function=f),
    "CUBALIFNode": lambda f: neuron.CUBALIFNode(surrogate_function=f),
    "LIAFNode": lambda f: neuron.LIAFNode(torch.tanh, True, surrogate_function=f),
    "RAFNode": lambda f: neuron.RAFNode(surrogate_function=f),
    "TernaryIFNode": lambda f: neuron.TernaryIFNode(surrogate_function=f),
    "TernaryLIFNode": lambda f: neuron.TernaryLIFNode(surrogate_function=f),
    "ILIFNode": lambda f: neuron.ILIFNode(),
    "OTTTLIFNode": lambda f: neuron.OTTTLIFNode(surrogate_function=f),
    "SLTTLIFNode": lambda f: neuron.SLTTLIFNode(surrogate_function=f),
}
FUNCTIONS = {
    "soft": lambda: HTAFSpike(mode="soft"),
    "hard": lambda: HTAFSpike(mode="hard"),
    "learnable": lambda: HTAFSpike(mode="soft", learnable=True),
    "atan": surrogate.ATan,
}
SINGLE = ("OTTTLIFNode", "SLTTLIFNode")  # SpikingJelly runs them step by step alone


def observe(node: Any, x_seq: Tensor, steps: bool) -> list[Tensor]:
    """Outputs, states and every gradient of two calls from the carried state."""
    node.to(x_seq)
    functional.reset_net(node)
    x_seq = x_seq.clone().requires_grad_()
    outputs: list[Tensor] = []
    for _ in range(2):
        for x in x_seq if steps else [x_seq]:
            made = node(x)
            outputs += made if isinstance(made, list | tuple) else [made]
    states = [v for v in node._memories.values() if isinstance(v, Tensor)]
    torch.stack([t.sin().sum() for t in (*outputs, *states)]).sum().backward()
    grads = [x_seq.grad, *(p.grad for p in node.parameters())]
    return [t.cpu() for t in (*outputs, *states, *grads) if t is not None]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", FUSED)
def test_equals_the_hosts(name: str, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    run = cpu.CPUKernel.run
    monkeypatch.setattr(cpu.CPUKernel, "run", lambda k, n, *a: [ran.append(n), run(k, n, *a)][1])  # type: ignore[func-returns-value]
    own = FUSED[name](FUNCTIONS[function]())
    node = htaf_snn.convert(copy.deepcopy(own), "cpu")
    x_seq = torch.randn(6, 3, 5, 2, 2, dtype=torch.float64)
    for mode in "sm":
        if (mode == "s" and name == "GatedLIFNode") or (mode == "m" and name in SINGLE):
            continue
        if mode == "m" and name == "LIAFNode":
            continue  # SpikingJelly 2.0.0 runs a plain LIF there: its step is the definition
        for module in (own, node):
            if name != "GatedLIFNode":
                module.step_mode = mode
        expected = observe(own, x_seq, mode == "s")
        actual = observe(node, x_seq, mode == "s")
        assert len(actual) == len(expected) and {"forward", "backward"} <= set(ran)
        for a, b in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", FUSED)
def test_the_cuda_kernels_equal_the_hosts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launches.clear()
    monkeypatch.setattr(cuda, "get_launch", shim_kernel)
    monkeypatch.setattr(cuda, "_THREADS", 32)
    monkeypatch.setitem(layer.KERNELS, "cpu", layer.KERNELS["cuda"])
    own = FUSED[name](HTAFSpike(mode="soft"))
    node: Any = htaf_snn.convert(copy.deepcopy(own), "cpu")
    mode = "s" if name in SINGLE or name == "LIAFNode" else "m"
    for module in (own, node):
        if name != "GatedLIFNode":
            module.step_mode = mode
    x_seq = torch.randn(6, 3, 5, 2, 2, dtype=torch.float64)
    expected, actual = observe(own, x_seq, mode == "s"), observe(node, x_seq, mode == "s")
    assert {"forward", "backward"} <= set(launches)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC: torch is not a CUDA build")
@pytest.mark.parametrize("name", FUSED)
def test_compiles_for_cuda(name: str) -> None:
    node: Any = htaf_snn.convert(FUSED[name](HTAFSpike(mode="soft", learnable=True)))
    text = step_of(node).traced.program
    assert text is not None
    for architecture in (nvrtc.ARCHITECTURES[0], nvrtc.ARCHITECTURES[-1]):
        source = cuda_source(decode(text), torch.float32, 4)
        nvrtc.compile_ptx(source, architecture, cuda.FLAGS)


def test_every_class_is_fused_or_says_why_not() -> None:
    rows = {row.name: row for row in host.table()}
    classes = {
        name
        for name, value in vars(neuron).items()
        if inspect.isclass(value) and issubclass(value, nn.Module)
    }
    assert rows.keys() == classes
    assert {name for name, row in rows.items() if row.reason is None} == FUSED.keys()
    assert all(row.reason for row in rows.values() if row.name not in FUSED)


class Doubled(neuron.QIFNode):
    """A user's subclass of SpikingJelly's, with a second memory and another equation."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_memory("slow", 0.1)

    def single_step_functional_forward(self, inputs: Any, states: Any, **kwargs: Any) -> Any:
        v, slow = states
        slow = 0.9 * slow + 0.1 * inputs[0]
        outputs, (v,) = super().single_step_functional_forward((2 * inputs[0] + slow,), (v,))
        return outputs, (v, slow)


class DoubledOurs(htaf_snn.LIFNode):
    """The same, of ours."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_memory("slow", 0.1)

    def single_step_functional_forward(self, inputs: Any, states: Any, **kwargs: Any) -> Any:
        v, slow = states
        slow = 0.9 * slow + 0.1 * inputs[0]
        outputs, (v,) = super().single_step_functional_forward((2 * inputs[0] + slow,), (v,))
        return outputs, (v, slow)


def test_a_subclass_with_a_second_memory_and_an_equation_of_its_own() -> None:
    x_seq = torch.randn(6, 3, 4, dtype=torch.float64)
    for make, plain in ((Doubled, neuron.QIFNode), (DoubledOurs, neuron.LIFNode)):
        seen = []
        for backend in ("torch", "cpu"):
            node = make(surrogate_function=HTAFSpike(mode="soft"), step_mode="m")
            htaf_snn.convert(node, backend)
            seen.append(observe(node, x_seq, False))
        for a, b in zip(*seen, strict=True):
            torch.testing.assert_close(a, b)
        other = plain(surrogate_function=HTAFSpike(mode="soft"), step_mode="m")
        assert not torch.allclose(seen[1][0], other(x_seq))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_converted_neuron_is_copied_and_reverted(duplicate: Any) -> None:
    node: Any = htaf_snn.convert(neuron.CUBALIFNode(), "cpu")
    node.step_mode = "m"
    x_seq = torch.randn(4, 3)
    expected = node(x_seq)
    copied = duplicate(node)
    functional.reset_net(copied)
    assert type(copied) is type(node) and torch.equal(copied(x_seq), expected)
    assert type(htaf_snn.revert(copied)) is neuron.CUBALIFNode


@pytest.mark.parametrize(
    "name", ["LIFNode", "KLIFNode", "EIFNode", "IzhikevichNode", "TernaryLIFNode"]
)
def test_loops_are_vectorised(name: str) -> None:
    """Of neurons whose steps have kinks, exponentials or several states, by GCC's own report."""
    known = compiler.find_compiler()
    if "clang" in known.version:
        pytest.skip("the report is GCC's")
    node = htaf_snn.convert(FUSED[name](HTAFSpike(mode="soft")))
    text = step_of(node).traced.program
    assert text is not None
    source = cpu_source(with_norm(decode(text)), torch.float32, normed=True)
    done = subprocess.run(
        [known.path, *known.flags, "-fopt-info-vec-optimized", "-x", "c++", "-", "-o", os.devnull],
        input=source, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = source.splitlines()
    loops = [i + 2 for i, line in enumerate(lines) if line.startswith("#pragma omp simd")]
    ends = [*loops[1:], loops[-1] + 20]
    for loop, end in zip(loops, ends, strict=True):
        assert re.search(
            "|".join(f":{number}:.*loop vectorized" for number in range(loop, end)), done.stderr
        ), lines[loop - 1]
