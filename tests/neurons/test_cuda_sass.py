"""The machine code of the CUDA kernels, by a disassembler: no GPU is asked for.

`python -m tests.gpu.sass` prints what is tested here.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import surrogate

import htaf_snn
from htaf_snn import HTAFSpike
from htaf_snn.neurons.kernels import cuda
from htaf_snn.neurons.kernels.buffers import cuda_source
from htaf_snn.neurons.step.graph import Program
from tests import nvrtc
from tests.gpu import sass
from tests.neurons.test_zoo import FUSED

pytestmark = pytest.mark.skipif(
    nvrtc.library() is None or sass.tools() is None, reason="no NVRTC, or no disassembler"
)
T = 16
HTAF_LIMITS = {"forward": 38, "backward": 58}  # instructions a step and neuron, float32
LOADS_FIRST = re.compile(r"L\d+ S\d+")


@functools.cache
def lif(function: str = "soft") -> Program:
    made: Any = surrogate.ATan() if function == "atan" else HTAFSpike(mode="soft")
    return sass.program_of(htaf_snn.LIFNode(surrogate_function=made))


@functools.cache
def htaf(dtype: torch.dtype, function: str = "soft") -> dict[str, sass.Kernel]:
    width = 2 if dtype.itemsize == 2 else 1
    return sass.kernels(cuda_source(lif(function), dtype, T, width))


@pytest.mark.parametrize("name", HTAF_LIMITS)
def test_instructions_of_htaf(name: str) -> None:
    kernel = htaf(torch.float32)[name]
    assert len(kernel.instructions) <= HTAF_LIMITS[name] * T
    assert kernel.stack == 0 and LOADS_FIRST.fullmatch(kernel.order)


def test_without_the_hardwares_functions_it_is_too_long() -> None:
    text = cuda_source(lif(), torch.float32, T)
    found = sass.kernels(text.replace("= hardware::", "= "))
    for name, limit in HTAF_LIMITS.items():
        assert len(found[name].instructions) > limit * T


def test_a_load_behind_a_store_is_seen() -> None:
    text = """extern "C" __global__ void forward(const float* x, float* y) {
        y[0] = x[0] + 1;
        y[1] = x[1] + 1;
    }"""
    assert sass.kernels(text)["forward"].order == "L1 S1 L1 S1"


@pytest.mark.parametrize("function", ["soft", "atan"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", HTAF_LIMITS)
def test_two_neurons_of_16_bits_a_thread(name: str, dtype: torch.dtype, function: str) -> None:
    two, one = htaf(dtype, function)[name], htaf(torch.float32, function)[name]
    assert len(two.instructions) <= 2 * 1.1 * len(one.instructions)
    assert two.count("LDG") == one.count("LDG")  # half, for each neuron
    assert two.stack == 0 and LOADS_FIRST.fullmatch(two.order)


@pytest.mark.parametrize("name", list(FUSED)[::11])  # `tests.gpu.sass --zoo` has all
def test_no_class_spills(name: str) -> None:
    torch.manual_seed(0)
    program = sass.program_of(htaf_snn.convert(FUSED[name](HTAFSpike(mode="soft"))))
    for dtype, width in ((torch.float32, 1), (torch.bfloat16, 2)):
        lengths = {"forward": cuda.SEGMENT}
        lengths["backward"] = cuda.backward_segment(program, dtype, width)
        for kernel, steps in lengths.items():
            found = sass.kernels(cuda_source(program, dtype, steps, width))[kernel]
            assert found.stack == 0, (kernel, steps, found.registers)
            assert LOADS_FIRST.fullmatch(found.order), (kernel, steps, found.order)
