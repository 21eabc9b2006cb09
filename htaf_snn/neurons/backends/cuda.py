"""The fused kernel on CUDA: compiled and launched by CuPy, on torch's device and stream."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...surrogates.expressions import Expression
from .call import LAYER_FIELDS, X_TYPES, Call, pointer
from .errors import BackendUnavailableError
from .source import function_struct, read

# Time steps that a kernel keeps in registers, so that none spills; a longer sequence is cut.
SEGMENT = 32
LEARNING_SEGMENT = 16  # where parameters learn, which keeps two more numbers a step
_THREADS = 256
_FLAGS = ("-std=c++17", "--prec-div=false")

# A kernel by name, called as kernel(blocks, threads, arguments).
Kernel = Callable[[int, int, tuple[Any, ...]], None]


def source(expression: Expression, dtype: torch.dtype, T: int) -> str:
    """The text that NVRTC gets for one spike function, input dtype and number of steps."""
    return "\n".join(
        [
            f"#define STEPS {T}",
            f"#define INPUT {X_TYPES[dtype]}",
            f"#define STATE {'double' if dtype == torch.float64 else 'float'}",
            read("kernel.h"),
            function_struct(expression),
            read("kernel_cuda.h"),
        ]
    )


def unavailable() -> str | None:
    """Why the CUDA kernels can't run here, with the remedy; None if they can."""
    try:
        import cupy
    except ImportError as error:
        cuda = (torch.version.cuda or "13").partition(".")[0]
        return f"CuPy is not installed ({error}); pip install 'htaf-snn[cuda{cuda}]'"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device; install a driver, or a CUDA build of torch"
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy sees no CUDA device ({error}); its CUDA version must suit the driver"
    return None


@functools.cache
def _module(expression: Expression, dtype: torch.dtype, T: int, device: int) -> Any:
    import cupy

    try:
        with cupy.cuda.Device(device):
            return cupy.RawModule(code=source(expression, dtype, T), options=_FLAGS)
    except cupy.cuda.compiler.CompileException as error:
        raise BackendUnavailableError(f"NVRTC could not compile a kernel: {error}") from error


def _cupy_kernel(
    expression: Expression, dtype: torch.dtype, T: int, name: str, device: torch.device
) -> Kernel:
    import cupy

    index = torch.cuda.current_device() if device.index is None else device.index

    def launch(blocks: int, threads: int, arguments: tuple[Any, ...]) -> None:
        stream = torch.cuda.current_stream(device).cuda_stream
        with cupy.cuda.Device(index), cupy.cuda.ExternalStream(stream, index):
            function = _module(expression, dtype, T, index).get_function(name)
            function((blocks,), (threads,), arguments)

    return launch


# Where a kernel comes from; the tests put the same source, compiled for the CPU, here.
get_kernel: Callable[[Expression, torch.dtype, int, str, torch.device], Kernel] = _cupy_kernel


def _launch(call: Call, name: str, *outputs: Tensor | None) -> None:
    import numpy as np

    if not call.v.numel():
        return
    types = {"q": np.int64, "P": np.uint64, "d": np.float64, "i": np.int32}
    values = (*call.fields(), *map(pointer, outputs))
    arguments = tuple(
        types[c](value or 0)
        for c, value in zip(LAYER_FIELDS + "P" * len(outputs), values, strict=True)
    )
    x_seq = call.x_seq
    kernel = get_kernel(call.layer.expression, x_seq.dtype, len(x_seq), name, x_seq.device)
    kernel(math.ceil(call.v.numel() / _THREADS), _THREADS, arguments)


def forward(call: Call, store_v_seq: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, last potential, and potentials after each step (else empty); all contiguous."""
    v, x_seq = call.v, call.x_seq
    spike_seq = torch.empty_like(x_seq)
    v_seq = v.new_empty(x_seq.shape if store_v_seq else 0)
    for start in range(0, len(x_seq), SEGMENT):
        part = slice(start, start + SEGMENT)
        v_last = torch.empty_like(v)
        _launch(
            call._replace(x_seq=x_seq[part], v=v),
            f"forward_{call.mode}",
            spike_seq[part],
            v_last,
            v_seq[part] if store_v_seq else None,
        )
        v = v_last
    return spike_seq, v, v_seq


def backward(
    call: Call, grad_spike_seq: Tensor, grad_v: Tensor | None, grad_v_seq: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of the input, the first potential, the parameters [K, channels] and 1/tau.

    The last two are None where nothing learns them. A sequence longer than a segment is run
    forward once more for the potential at the start of each segment, and differentiated segment
    by segment from the end.
    """
    x_seq, v = call.x_seq, call.v
    learn = call.learned or call.reciprocal_tau is not None
    segment = LEARNING_SEGMENT if learn else SEGMENT
    parts = [slice(start, start + segment) for start in range(0, len(x_seq), segment)]
    calls = []
    for part in parts:
        calls.append(call._replace(x_seq=x_seq[part], v=v))
        if part is not parts[-1]:
            _, v, _ = forward(calls[-1], store_v_seq=False)
    grad_x = torch.empty_like(x_seq)
    count = len(call.parameters)
    table = total = None
    if learn:
        table, total = v.new_zeros(2, count + 1, *v.shape)
    for part, run in zip(reversed(parts), reversed(calls), strict=True):
        grad_v0 = torch.empty_like(v)
        _launch(
            run,
            f"backward_{call.mode}_{int(learn)}",
            grad_spike_seq[part],
            grad_v,
            None if grad_v_seq is None else grad_v_seq[part],
            grad_x[part],
            grad_v0,
            table,
        )
        grad_v = grad_v0
        if total is not None and table is not None:
            total += table
    assert grad_v is not None
    if total is None:
        return grad_x, grad_v, None, None
    # One value a neuron, summed by torch: the same order every time, no atomics.
    grad_parameters = grad_r = None
    if call.reciprocal_tau is not None:
        grad_r = total[count].sum(dtype=torch.float64)
    if call.learned:
        by_channel = total[:count].reshape(count, -1, call.channels, call.inner)
        grad_parameters = by_channel.sum((1, 3), dtype=torch.float64)
    return grad_x, grad_v, grad_parameters, grad_r
