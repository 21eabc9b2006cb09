"""The fused neurons inside torch: operators, compile, checkpointing, memory; and the toolchain."""

from __future__ import annotations

import multiprocessing
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

import htaf_snn
from htaf_snn import HTAFSpike
from htaf_snn.neurons import Backend
from htaf_snn.neurons.decide import compile_obstacle
from htaf_snn.neurons.kernels import compiled, compiler, cpu, device, layout
from htaf_snn.neurons.traced import step_of
from htaf_snn.surrogates.spike_function import say_once


def arguments(make: Any, sequences: bool) -> tuple[Any, ...]:
    """What the operator gets of a node and an input of five channels."""
    node = make()
    step = step_of(node)
    x_seq = torch.randn(4, 3, 5, requires_grad=True)
    states = [torch.randn(3, 5, requires_grad=True) for _ in node._memories]
    parameters = step.parameters(x_seq.ndim - 1)
    return [x_seq], states, parameters, list(step.numbers), step.traced.program, sequences


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck's own
@pytest.mark.parametrize("sequences", [False, True], ids=["", "sequences"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: htaf_snn.LIFNode(surrogate_function=HTAFSpike(mode="soft")),
        lambda: htaf_snn.IFNode(v_reset=None, surrogate_function=HTAFSpike(mode="hard")),
        lambda: htaf_snn.ParametricLIFNode(surrogate_function=HTAFSpike()),
        lambda: htaf_snn.LIFNode(
            surrogate_function=HTAFSpike(learnable=True, num_channels=5),
            learn=("tau", "v_threshold"),
        ),
        lambda: htaf_snn.convert(neuron.IzhikevichNode(a=0.1, b=0.2)),
    ],
    ids=["soft", "hard", "plif", "learned", "two states"],
)
def test_operator_check(make: Any, sequences: bool) -> None:
    torch.library.opcheck(torch.ops.htaf_snn.neuron.default, arguments(make, sequences))


def network(**kwargs: Any) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Linear(6, 8),
        htaf_snn.LIFNode(surrogate_function=HTAFSpike(**kwargs)),
        layer.Linear(8, 4),
        htaf_snn.ParametricLIFNode(surrogate_function=HTAFSpike(**kwargs), v_reset=None),
    )
    functional.set_step_mode(net, "m")
    return net


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_compiles_whole_and_equals_eager(mode: str) -> None:
    x_seq = torch.randn(5, 3, 6)
    eager, compiled = network(mode=mode), network(mode=mode)
    forward = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    for _ in range(2):  # from rest, then from where the first sequence ended
        expected, actual = eager(x_seq), forward(x_seq)
        torch.testing.assert_close(actual, expected)
        expected.sum().backward()
        actual.sum().backward()
        for a, b in zip(compiled.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
        functional.detach_net(eager)
        functional.detach_net(compiled)


def test_compiled_networks_keep_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_layers", {})
    net = nn.Sequential(
        layer.Conv2d(3, 8, 3), layer.BatchNorm2d(8), htaf_snn.LIFNode(), layer.Conv2d(8, 5, 3)
    ).to(memory_format=torch.channels_last)
    functional.set_step_mode(net, "m")
    forward = torch.compile(net, fullgraph=True, backend="aot_eager")
    x = torch.rand(4 * 2, 3, 9, 9).contiguous(memory_format=torch.channels_last)
    for _ in range(2):
        functional.reset_net(net)
        y = forward(x.unflatten(0, (4, 2)))
        y.sum().backward()
        assert y.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    (one,) = compiled._layers.values()  # made once, for both passes
    assert layout.channels_last(torch.empty_strided(one.shape, one.stride))


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_hardening_compiles_no_step_anew(backend: Any) -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    node, eager = (
        htaf_snn.LIFNode(surrogate_function=HTAFSpike(), step_mode="m", backend=backend)
        for _ in range(2)
    )
    forward = torch.compile(node, fullgraph=True, backend=counter)
    x_seq = torch.randn(3, 4, requires_grad=True)
    counts = []
    for step in range(12):
        for one in (node, eager):
            one.surrogate_function.hardness = (step + 1) / 13
            one.reset()
        torch.testing.assert_close(forward(x_seq), eager(x_seq))
        counts.append(counter.frame_count)
    assert counts[1] == counts[-1]


def test_activation_checkpointing() -> None:
    """Where the step is traced, too, within the checkpoint."""
    node = htaf_snn.LIFNode(2.375, surrogate_function=HTAFSpike(), step_mode="m", backend="cpu")

    def run(x_seq: Tensor) -> Tensor:
        node.reset()
        spikes: Tensor = node(2 * x_seq.sin())
        return spikes

    x_seq = torch.randn(4, 7, requires_grad=True)
    out = torch.utils.checkpoint.checkpoint(run, x_seq, use_reentrant=False)
    (actual,) = torch.autograd.grad(out.square().sum(), x_seq)
    (expected,) = torch.autograd.grad(run(x_seq).square().sum(), x_seq)
    assert torch.equal(actual, expected)


def test_second_backward_raises_torchs_error() -> None:
    out = htaf_snn.LIFNode(surrogate_function=HTAFSpike(), step_mode="m", backend="cpu")(
        torch.randn(3, 4, requires_grad=True)
    ).sum()
    out.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        out.backward()


def test_double_backward_says_what_to_do() -> None:
    x_seq = torch.randn(3, 4, requires_grad=True)
    node = htaf_snn.LIFNode(surrogate_function=HTAFSpike(), step_mode="m")
    (grad,) = torch.autograd.grad(node(x_seq).sum(), x_seq, create_graph=True)
    with pytest.raises(RuntimeError, match=r"differentiated once.*backend='torch'"):
        grad.sum().backward()
    node.reset()
    node.backend = "torch"
    (grad,) = torch.autograd.grad(node(x_seq).sum(), x_seq, create_graph=True)
    grad.square().sum().backward()
    assert x_seq.grad is not None and x_seq.grad.abs().sum() > 0


def test_keeps_its_inputs_alone_for_backward() -> None:
    x_seq = torch.randn(16, 100, requires_grad=True)
    node = htaf_snn.LIFNode(surrogate_function=HTAFSpike(), step_mode="m", backend="cpu")
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        node(x_seq)
    assert sorted(t.numel() for t in kept) == [100, 1600]
    assert any(t.data_ptr() == x_seq.data_ptr() for t in kept)
    kept.clear()
    with (
        torch.no_grad(),
        torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.append(t) or t,  # type: ignore[func-returns-value]
            lambda t: t,
        ),
    ):
        node(x_seq)
    assert not kept


def test_autocast() -> None:
    net = network()
    x_seq = torch.randn(5, 3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x_seq)
    out.sum().backward()
    assert out.dtype == torch.bfloat16 and net[1].v.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty kernel cache, and nothing remembered of the toolchain."""
    forget = (
        compiler.find_compiler, cpu.kernel, say_once, compile_obstacle,
    )  # fmt: skip
    monkeypatch.setattr(device, "_toolchain_obstacles", {})
    monkeypatch.setenv("HTAF_SNN_CACHE", str(tmp_path))
    for function in forget:
        function.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    for function in forget:
        function.cache_clear()


def run_layer(backend: Backend = "auto") -> Tensor:
    node = htaf_snn.LIFNode(surrogate_function=HTAFSpike(), step_mode="m", backend=backend)
    spikes: Tensor = node(torch.ones(3, 4))
    return spikes


def assert_auto_falls_back_and_cpu_raises(caplog: pytest.LogCaptureFixture, why: str) -> None:
    expected = run_layer("torch")
    with caplog.at_level("INFO", logger="htaf_snn"):
        for _ in range(2):
            torch.testing.assert_close(run_layer(), expected)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message.startswith("neurons run on backend 'torch', several times slower: ")
    assert why in record.message
    status = htaf_snn.backends()["cpu"]
    assert why in status.detail or status.available  # a compile fails later
    with pytest.raises(htaf_snn.BackendUnavailableError, match=re.escape(why)):
        run_layer("cpu")


def test_no_compiler(
    cold: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(cold))
    assert_auto_falls_back_and_cpu_raises(caplog, "g++, clang++ is on the PATH")


@pytest.mark.parametrize("fails_at", ["--version", "compiling"])
def test_a_failing_compiler(
    fails_at: str, cold: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake = cold / "fake-c++"
    succeed = '[ "$1" = --version ] && echo fake 1.0 && exit 0\n' if fails_at == "compiling" else ""
    fake.write_text(f"#!/bin/sh\n{succeed}echo 'out of order' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    assert_auto_falls_back_and_cpu_raises(caplog, "out of order")


def test_a_cache_that_others_can_write_to(cold: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = cold / "kernels"
    folder.mkdir()
    folder.chmod(0o777)
    assert_auto_falls_back_and_cpu_raises(caplog, "others can write to the kernel cache")
    assert not list(folder.iterdir())


def test_a_cache_that_cannot_be_made(
    cold: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (cold / "file").touch()
    monkeypatch.setenv("HTAF_SNN_CACHE", str(cold / "file"))
    assert_auto_falls_back_and_cpu_raises(caplog, "can't be made")


def test_a_corrupt_library_is_compiled_anew(cold: Path) -> None:
    expected = run_layer("cpu")
    (library,) = (cold / "kernels").glob("*.so")
    assert stat.S_IMODE((cold / "kernels").stat().st_mode) == 0o700
    good = library.read_bytes()
    library.unlink()  # the loaded one stays mapped
    library.write_bytes(good[:100])
    cpu.kernel.cache_clear()
    assert torch.equal(run_layer("cpu"), expected)
    assert len(library.read_bytes()) > 1000


def _in_a_new_process(_: int) -> list[float]:
    return run_layer("cpu").flatten().tolist()


def test_processes_on_a_cold_cache(cold: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.map(_in_a_new_process, range(4))
    assert len({tuple(r) for r in results}) == 1
    names = sorted(p.suffix for p in (cold / "kernels").iterdir())
    assert names in ([".lock", ".sha256", ".so"], [".sha256", ".so"])
