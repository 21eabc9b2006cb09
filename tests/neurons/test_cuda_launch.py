"""The launch, through CuPy and a driver that writes down what it is asked for: no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from htaf_snn.neurons.kernels import compiler

pytest.importorskip("cupy")

DRIVER = """
#include <stdio.h>
extern "C" int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
        unsigned by, unsigned bz, unsigned shared, void* stream, void** call, void** extra) {
    const long long* words = (const long long*)call[0];
    printf("%lld: %u x %u, T = %lld, N = %lld, %u %p %p\\n", (long long)function, gx, bx, words[0],
           words[1], shared, stream, (void*)extra);
    fflush(stdout);
    return 0;
}
"""
CALL = """
from types import SimpleNamespace
import torch, htaf_snn
from htaf_snn.neurons.kernels import cuda, layer

def module(source, device):
    numbers = {"forward": 1, "backward": 2, "sum": 3}
    return SimpleNamespace(get_function=lambda name: SimpleNamespace(
        kernel=SimpleNamespace(ptr=numbers[name])))

cuda._module = module
torch.cuda.current_device, torch._C._cuda_getCurrentRawStream = lambda: 0, lambda _: 0x70
layer.KERNELS["cpu"] = layer.KERNELS["cuda"]
node = htaf_snn.LIFNode(surrogate_function=htaf_snn.HTAFSpike(learnable=True), step_mode="m")
x = torch.randn(6, 300, requires_grad=True)
node(x).sum().backward()
"""


def test_the_driver_gets_the_words(tmp_path: Path) -> None:
    library = compiler.compile_library(DRIVER)
    (tmp_path / "libcuda.so.1").symlink_to(library)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CALL], capture_output=True, text=True, env=environment, check=True
    )
    forward, backward, total = done.stdout.splitlines()
    assert forward == "1: 3 x 128, T = 6, N = 300, 0 0x70 (nil)"
    assert backward == "2: 3 x 128, T = 6, N = 300, 0 0x70 (nil)"
    assert total.startswith("3: ")
