"""The CUDA kernels without a GPU: compiled for every architecture, and run on the CPU by a shim."""

from __future__ import annotations

import ctypes
import functools
import itertools
import shutil
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron

import htaf_snn
from htaf_snn import HTAFSpike, spike_function, spike_function_names
from htaf_snn.neurons.kernels import compiler, cuda, layer
from htaf_snn.neurons.kernels.buffers import cuda_source
from htaf_snn.neurons.step.graph import Program, decode
from htaf_snn.neurons.traced import step_of
from tests import nvrtc
from tests.neurons.test_fused import FUNCTIONS, NEURONS, assert_backends_agree, resets_to


def program_of(node: neuron.BaseNode) -> Program:
    """What the node's kernels are printed from."""
    text = step_of(node).traced.program
    assert text is not None
    return decode(text)


def lif(function: Any) -> Program:
    node = htaf_snn.LIFNode(surrogate_function=function, v_reset=resets_to(function))
    return program_of(node)


needs_nvrtc = pytest.mark.skipif(
    nvrtc.library() is None, reason="no NVRTC: torch is not a CUDA build"
)
needs_ptxas = pytest.mark.skipif(shutil.which("ptxas") is None, reason="no ptxas")

# What CUDA has and C++ lacks. The threads of a block take turns, from one barrier to the next; what
# hardware computes is off by as much as it may be, up or down.
SHIM = """
#include <math.h>
#include <string.h>
#include <ucontext.h>
struct Index { unsigned x; };
static Index blockIdx, blockDim, threadIdx;
#define __global__
#define __shared__ static
static ucontext_t block, fibers[128];
static char stacks[128][1 << 16];
static bool ended[128];
static void __syncthreads() { swapcontext(&fibers[threadIdx.x], &block); }
static double off(float x) {  // the most that ex2.approx may be, either way
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits * 2654435761u >> 31 ? 2.38e-7 : -2.38e-7;
}
static float flushed(double x) { return fabs(x) < 1.17549435e-38 ? copysign(0, x) : x; }
static float hardware_ex2(float x) { return flushed(exp2((double)x) * (1 + off(x))); }
static float hardware_rcp(float x) { return flushed(1 / (double)flushed(x) * (1 + off(x) / 2)); }
"""
RUN = """
static htaf_snn::{struct} call_of_{name};
static void thread_of_{name}() {{
    {name}(call_of_{name});
    ended[threadIdx.x] = true;
}}
extern "C" void run_{name}(unsigned blocks, unsigned threads, const void* words) {{
    memcpy(&call_of_{name}, words, sizeof call_of_{name});
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {{
        for (unsigned t = 0; t < threads; ++t) {{
            getcontext(&fibers[t]);
            fibers[t].uc_stack.ss_sp = stacks[t];
            fibers[t].uc_stack.ss_size = sizeof stacks[t];
            fibers[t].uc_link = &block;
            ended[t] = false;
            makecontext(&fibers[t], thread_of_{name}, 0);
        }}
        for (bool some = true; some;) {{
            some = false;
            for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
                if (!ended[threadIdx.x]) {{
                    swapcontext(&block, &fibers[threadIdx.x]);
                    some |= !ended[threadIdx.x];
                }}
        }}
    }}
}}
"""
STRUCTS = {
    "forward": "GridForward", "backward": "GridBackward", "sum": "Sum",
    "moments": "GridNorm", "normalize": "GridNorm", "correct": "GridNorm",
}  # fmt: skip

launches: list[str] = []


@functools.cache
def shim_library(source: str) -> ctypes.CDLL:
    runs = [
        RUN.format(name=name, struct=struct)
        for name, struct in STRUCTS.items()
        if f"void {name}(" in source
    ]
    return ctypes.CDLL(str(compiler.compile_library("\n".join([SHIM, source, *runs]))))


def shim_kernel(source: str, name: str, device: torch.device) -> cuda.Launch:
    """The very ``__global__`` function, run thread by thread on the CPU."""
    run = getattr(shim_library(source), f"run_{name}")

    def launch(blocks: int, threads: int, words: Any) -> None:
        launches.append(name)
        run(blocks, threads, ctypes.c_void_p(words.buffer_info()[0]))

    return launch


@pytest.fixture
def on_the_shim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs what backend "cpu" would with the CUDA kernels instead."""
    launches.clear()
    monkeypatch.setattr(cuda, "get_launch", shim_kernel)
    monkeypatch.setitem(layer.KERNELS, "cpu", layer.KERNELS["cuda"])


@pytest.mark.usefixtures("on_the_shim")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_equals_the_reference(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = list(itertools.product(NEURONS, (0.0, -0.2, None), (False, True)))
    # Each function with three of the thirty, all together with all: a kernel takes a second.
    chosen = (2 * dynamics)[list(FUNCTIONS).index(function) :: 10][:3]
    for case, (name, v_reset, detach_reset) in enumerate(chosen):
        monkeypatch.setattr(cuda, "_THREADS", (32, 8, 64)[case % 3])  # does not divide N = 45
        monkeypatch.setattr(cuda, "_SUMS", (8, 1 << 17)[case % 2])

        def make(**options: Any) -> neuron.BaseNode:
            return NEURONS[name](
                surrogate_function=FUNCTIONS[function](), v_threshold=0.7, v_reset=v_reset,
                detach_reset=detach_reset, step_mode="m", store_v_seq=case % 2 == 0, **options,
            )  # fmt: skip

        assert_backends_agree(make, torch.randn(5, 3, 3, 5, dtype=torch.float64))
    assert sum(name != "sum" for name in launches) == 2 * 3


@pytest.mark.usefixtures("on_the_shim")
@pytest.mark.parametrize("function", ["htaf soft", "htaf learnable"])
@pytest.mark.parametrize("T", [33, 100])
def test_long_sequences_are_cut_into_segments(T: int, function: str) -> None:
    def make(**options: Any) -> neuron.BaseNode:
        return htaf_snn.ParametricLIFNode(
            surrogate_function=FUNCTIONS[function](), step_mode="m", store_v_seq=True, **options
        )

    assert_backends_agree(make, torch.randn(T, 2, 5, dtype=torch.float64))
    assert len(launches) > 3


@pytest.mark.usefixtures("on_the_shim")
@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_integer_spikes(mode: Any) -> None:
    def make(**options: Any) -> neuron.BaseNode:
        function = HTAFSpike(levels=3, mode=mode)
        return htaf_snn.LIFNode(surrogate_function=function, v_reset=None, step_mode="m", **options)

    assert_backends_agree(make, 3 * torch.randn(5, 3, 15, dtype=torch.float64))
    assert len(launches) == 2


@pytest.mark.usefixtures("on_the_shim")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [7, 8])  # N = 42, of which 16-bit neurons go one by one; and 48
def test_dtypes(size: int, dtype: torch.dtype) -> None:
    for function in ("htaf soft", "htaf hard, a channel"):

        def make(**options: Any) -> neuron.BaseNode:
            return htaf_snn.LIFNode(
                surrogate_function=FUNCTIONS[function](),
                step_mode="m",
                v_threshold=0.61,
                **options,
            )

        assert_backends_agree(make, torch.randn(4, 2, 3, size).to(dtype))


@pytest.mark.usefixtures("on_the_shim")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("T", [4, 40])
def test_gradients_are_summed_over_threads_of_many_neurons(
    T: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "_THREADS", 16)
    monkeypatch.setattr(cuda, "_SUMS", 20)
    x_seq = torch.randn(T, 4, 3, 5, 4).to(dtype)
    for function in ("htaf learnable", "htaf hard, a channel"):
        for layout in (x_seq, x_seq.flatten(0, 1).to(memory_format=torch.channels_last)):

            def make(**options: Any) -> neuron.BaseNode:
                return htaf_snn.ParametricLIFNode(
                    surrogate_function=FUNCTIONS[function](), step_mode="m", **options
                )

            assert_backends_agree(make, layout.view_as(x_seq))
            assert "sum" in launches
            launches.clear()


@pytest.mark.usefixtures("on_the_shim")
@pytest.mark.parametrize("name", spike_function_names())
def test_every_function(name: str) -> None:
    def make(**options: Any) -> neuron.BaseNode:
        function = spike_function(name)
        return htaf_snn.LIFNode(
            surrogate_function=function, step_mode="m", v_threshold=0.31,
            v_reset=resets_to(function), **options,
        )  # fmt: skip

    assert_backends_agree(make, torch.randn(3, 41, dtype=torch.float64))


def capture(patch: pytest.MonkeyPatch) -> list[tuple[cuda.Launch, Any]]:
    """From now on launches are written down, and what a capture forbids is an error."""
    captured: list[tuple[cuda.Launch, Any]] = []

    def get_launch(*where: Any) -> cuda.Launch:
        run = shim_kernel(*where)
        return lambda *call: captured.append((run, call))

    def forbidden(*_: Any) -> Any:
        raise AssertionError("not in a capture")

    patch.setattr(cuda, "get_launch", get_launch)
    patch.setattr(cuda, "is_capturing", lambda: True)
    for name in ("item", "tolist", "__float__", "__int__", "__bool__", "cpu", "numpy", "copy_"):
        patch.setattr(torch.Tensor, name, forbidden)
    patch.setattr(torch, "tensor", forbidden)  # a copy from the CPU's memory
    patch.setattr(torch.cuda, "synchronize", forbidden)
    return captured


def test_a_replay_sees_numbers_that_changed(request: pytest.FixtureRequest) -> None:
    x_seq, grad = torch.randn(4, 7, requires_grad=True), torch.randn(4, 7)

    def lif() -> htaf_snn.LIFNode:
        return htaf_snn.LIFNode(surrogate_function=HTAFSpike(), step_mode="m")

    def run(node: htaf_snn.LIFNode) -> tuple[torch.Tensor, torch.Tensor]:
        node.reset()
        out = node(x_seq)
        return out.detach(), torch.autograd.grad(out, x_seq, grad)[0]

    def harden(node: htaf_snn.LIFNode, hardness: float) -> None:
        node.surrogate_function.hardness = hardness

    wanted = []
    for hardness in (0.2, 0.9):
        harden(plain := lif(), hardness)
        wanted.append(run(plain))
    node = lif()
    harden(node, 0.5)
    request.getfixturevalue("on_the_shim")
    run(node)  # as torch asks for, before a capture
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "is_capturing", lambda: True)
        harden(node, 0.4)
        with pytest.raises(RuntimeError, match=r"call htaf_snn.refresh\(net\) before the capture"):
            run(node)
    htaf_snn.refresh(node)
    with pytest.MonkeyPatch.context() as patch:
        graph = capture(patch)
        got = run(node)
    assert len(graph) == 2
    node.eval()  # an uncaptured call in between
    node(x_seq)
    node.train()
    for hardness, expected in zip((0.2, 0.9), wanted, strict=True):
        harden(node, hardness)
        htaf_snn.refresh(node)
        for launch, call in graph:
            launch(*call)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    harden(node, 0.0)  # another step, without a hard part
    with pytest.raises(RuntimeError, match="capture it anew"):
        htaf_snn.refresh(node)


@pytest.mark.parametrize("call", [lambda x: x.item(), lambda x: torch.tensor([1.0]).to(x)])
def test_a_capture_that_waits_or_copies_is_seen(
    call: Any, on_the_shim: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = htaf_snn.LIFNode(surrogate_function=HTAFSpike(), step_mode="m")
    node.register_forward_pre_hook(lambda _node, given: [call(given[0].sum()), None][1])
    capture(monkeypatch)
    with pytest.raises(AssertionError, match="not in a capture"):
        node(torch.randn(4, 7))


@needs_nvrtc
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
def test_htaf_compiles(dtype: torch.dtype, architecture: int) -> None:
    found = lif(HTAFSpike(mode="soft"))
    for T in (1, 4):
        ptx = nvrtc.compile_ptx(cuda_source(found, dtype, T), architecture, cuda.FLAGS)
        assert ptx.count(b".visible .entry") == 3


@needs_nvrtc
@pytest.mark.parametrize("name", spike_function_names())
def test_every_function_compiles(name: str) -> None:
    found = lif(spike_function(name))
    for architecture in (nvrtc.ARCHITECTURES[0], nvrtc.ARCHITECTURES[-1]):
        nvrtc.compile_ptx(cuda_source(found, torch.float32, 4), architecture, cuda.FLAGS)


APPLY = """
extern "C" void apply(const float* x, float* y, long n) {{
    for (long i = 0; i < n; ++i) y[i] = htaf_snn::hardware::{name}(x[i]);
}}
"""


def on_hardware(name: str, x: torch.Tensor) -> torch.Tensor:
    """What a GPU computes of float32, by the bounds that NVIDIA gives for its instructions."""
    source = cuda_source(lif(HTAFSpike(mode="soft")), torch.float32, 1)
    y = torch.empty_like(x)
    shim_library(source + APPLY.format(name=name)).apply(
        ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()), ctypes.c_long(x.numel())
    )
    return y


# The function in float64, and a bound in units of 2^-22 at x: of the relative error, or of the
# absolute one. docs/kernels.md states them.
HARDWARE = {
    "exp": (torch.exp, lambda x: 1.5 + x.abs() / 2, True),
    "reciprocal": (torch.reciprocal, lambda x: 1.0, True),
    "sigmoid": (torch.sigmoid, lambda x: 2 + x.abs() / 2, True),
    "sigmoid_derivative": (
        lambda x: torch.sigmoid(x) * torch.sigmoid(-x), lambda x: 3 + x.abs() / 2, True,
    ),
    "tanh": (torch.tanh, lambda x: 2.0, False),
}  # fmt: skip


@pytest.mark.parametrize("name", HARDWARE)
def test_the_hardwares_functions_are_within_their_bounds(name: str) -> None:
    of, bound, relative = HARDWARE[name]
    x = torch.cat([torch.linspace(-86, 86, 200_001), torch.logspace(-20, 1.9, 10_001)])
    wanted, got = of(x.double()), on_hardware(name, x).double()
    scale = wanted.abs() if relative else 1
    assert ((got - wanted).abs() <= 2**-22 * bound(x.double()) * scale).all()


@pytest.mark.parametrize("name", HARDWARE)
def test_the_hardwares_functions_at_their_ends(name: str) -> None:
    x = torch.tensor([torch.nan, -torch.inf, torch.inf, -1e30, 1e30, -0.0])
    wanted = HARDWARE[name][0](x.double()).float()
    torch.testing.assert_close(on_hardware(name, x), wanted, rtol=1e-6, atol=1e-30, equal_nan=True)


@needs_nvrtc
@needs_ptxas
@pytest.mark.parametrize("architecture", [80, 90])
def test_nothing_spills(architecture: int) -> None:
    for learnable in (False, True):
        found = lif(HTAFSpike(mode="soft", learnable=learnable))
        for T, checked in ((cuda.SEGMENT, "forward"), (cuda.backward_segment(found), "backward")):
            source = cuda_source(found, torch.float32, T)
            used = nvrtc.resources(
                nvrtc.compile_ptx(source, architecture, cuda.FLAGS), architecture
            )
            assert sorted(used) == ["backward", "forward", "sum"]
            assert used[checked].spilled_bytes == 0, (learnable, T, used)


def test_without_cupy_or_a_device_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "pip install 'htaf-snn[cuda1" in str(cuda.unavailable())
    with pytest.raises(
        htaf_snn.BackendUnavailableError, match="'cupy' can't run here: CuPy is not"
    ):
        htaf_snn.LIFNode(backend="cupy")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cupy_without_a_driver_says_why() -> None:
    pytest.importorskip("cupy")
    with pytest.raises(htaf_snn.BackendUnavailableError, match="no CUDA device"):
        htaf_snn.LIFNode(backend="cupy")
