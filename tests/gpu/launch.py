"""The CPU time of a call on CUDA beyond that on a CPU, with each launch replaced by nothing.

    python -m tests.gpu.launch

needs no GPU: a LIF layer with HTAF on [4, 1, 64], forward and backward, one thread, in us.
"""
# ruff: noqa: T201  # a command

from __future__ import annotations

import time
from collections.abc import Callable

import torch

import htaf_snn
from htaf_snn.neurons.kernels import cuda, layer


def microseconds(once: Callable[[], None]) -> float:
    """The CPU time of a call, the least of fifteen times two hundred."""
    for _ in range(100):
        once()
    found = []
    for _ in range(15):
        start = time.process_time()
        for _ in range(200):
            once()
        found.append((time.process_time() - start) / 200 * 1e6)
    return min(found)


def measured(learnable: bool, dtype: torch.dtype = torch.float32) -> float:
    """The CPU time of one layer's call, forward and backward."""
    function = htaf_snn.HTAFSpike(mode="soft", learnable=learnable)
    node = htaf_snn.LIFNode(surrogate_function=function, step_mode="m")
    given, grad = torch.randn(4, 1, 64, dtype=dtype), torch.ones(4, 1, 64, dtype=dtype)

    def once() -> None:
        node.reset()
        node(given.detach().requires_grad_()).backward(grad)

    return microseconds(once)


if __name__ == "__main__":
    torch.set_num_threads(1)
    on_cpu = [measured(learnable) for learnable in (False, True)]
    layer.KERNELS["cpu"] = layer.KERNELS["cuda"]
    cuda.get_launch = lambda *_: lambda *_: None
    for name, learnable, before in (("HTAF", False, on_cpu[0]), ("learnable", True, on_cpu[1])):
        after = measured(learnable)
        print(f"{name}: {before:.1f} us on the CPU, its kernels included; {after:.1f} us to launch")
    print(f"bfloat16: {measured(False, torch.bfloat16):.1f} us to launch")
