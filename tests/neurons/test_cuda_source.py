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
from tests.neurons.test_fused import FUNCTIONS, NEURONS, assert_backends_agree


def program_of(node: neuron.BaseNode) -> Program:
    """What the node's kernels are printed from."""
    text = step_of(node).traced.program
    assert text is not None
    return decode(text)


def lif(function: Any) -> Program:
    return program_of(htaf_snn.LIFNode(surrogate_function=function))


needs_nvrtc = pytest.mark.skipif(
    nvrtc.library() is None, reason="no NVRTC: torch is not a CUDA build"
)
needs_ptxas = pytest.mark.skipif(shutil.which("ptxas") is None, reason="no ptxas")

SHIM = """
#include <math.h>
struct Index { unsigned x; };
static thread_local Index blockIdx, blockDim, threadIdx;
#define __global__
extern "C" void be_thread(unsigned block, unsigned size, unsigned thread) {
    blockIdx.x = block; blockDim.x = size; threadIdx.x = thread;
}
"""

launches: list[str] = []


@functools.cache
def shim_library(source: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(compiler.compile_library(SHIM + source)))


def shim_kernel(source: str, name: str, device: torch.device) -> cuda.Launch:
    """The very ``__global__`` function, run thread by thread on the CPU."""
    library = shim_library(source)

    def launch(blocks: int, threads: int, words: Any) -> None:
        launches.append(name)
        structure: Any = type("Call", (ctypes.Structure,), {
            "_fields_": [("words", ctypes.c_longlong * len(words))]
        })  # fmt: skip
        call = structure.from_buffer_copy(words.tobytes())
        function = getattr(library, name)
        function.argtypes = [structure]
        for block, thread in itertools.product(range(blocks), range(threads)):
            library.be_thread(block, threads, thread)
            function(call)

    return launch


@pytest.fixture
def on_the_shim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs what backend "cpu" would with the CUDA kernels instead."""
    launches.clear()
    monkeypatch.setattr(cuda, "get_launch", shim_kernel)
    monkeypatch.setitem(layer.KERNELS, "cpu", cuda.kernel)


@pytest.mark.usefixtures("on_the_shim")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_equals_the_reference(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = itertools.product(NEURONS, (0.0, -0.2, None), (False, True))
    for case, (name, v_reset, detach_reset) in enumerate(dynamics):
        monkeypatch.setattr(cuda, "_THREADS", (32, 7, 64)[case % 3])  # does not divide N = 45

        def make(**options: Any) -> neuron.BaseNode:
            return NEURONS[name](
                surrogate_function=FUNCTIONS[function](), v_threshold=0.7, v_reset=v_reset,
                detach_reset=detach_reset, step_mode="m", store_v_seq=case % 2 == 0, **options,
            )  # fmt: skip

        assert_backends_agree(make, torch.randn(5, 3, 3, 5, dtype=torch.float64))
    assert len(launches) == 2 * 30


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
def test_dtypes(dtype: torch.dtype) -> None:
    for function in ("htaf soft", "htaf hard, a channel"):

        def make(**options: Any) -> neuron.BaseNode:
            return htaf_snn.LIFNode(
                surrogate_function=FUNCTIONS[function](),
                step_mode="m",
                v_threshold=0.61,
                **options,
            )

        assert_backends_agree(make, torch.randn(4, 2, 3, 7).to(dtype))


@pytest.mark.usefixtures("on_the_shim")
@pytest.mark.parametrize("name", spike_function_names())
def test_every_function(name: str) -> None:
    def make(**options: Any) -> neuron.BaseNode:
        return htaf_snn.LIFNode(
            surrogate_function=spike_function(name), step_mode="m", v_threshold=0.31, **options
        )

    assert_backends_agree(make, torch.randn(3, 41, dtype=torch.float64))


@needs_nvrtc
@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
def test_htaf_compiles(dtype: torch.dtype, architecture: int) -> None:
    found = lif(HTAFSpike(mode="soft"))
    for T in (1, 4):
        ptx = nvrtc.compile_ptx(cuda_source(found, dtype, T), architecture, cuda.FLAGS)
        assert ptx.count(b".visible .entry") == 2


@needs_nvrtc
@pytest.mark.parametrize("name", spike_function_names())
def test_every_function_compiles(name: str) -> None:
    found = lif(spike_function(name))
    for architecture in (nvrtc.ARCHITECTURES[0], nvrtc.ARCHITECTURES[-1]):
        nvrtc.compile_ptx(cuda_source(found, torch.float32, 4), architecture, cuda.FLAGS)


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
            assert sorted(used) == ["backward", "forward"]
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
