"""The fused kernel on CUDA: compiled and launched by CuPy, on torch's device and stream."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...surrogates.expressions import Expression
from .cpu import X_TYPES
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
    state = "double" if dtype == torch.float64 else "float"
    return "\n".join(
        [
            f"#define STEPS {T}",
            read("kernel.h"),
            f"namespace htaf_snn {{ typedef {X_TYPES[dtype]} X; typedef {state} R; }}",
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


def _layer(
    x_seq: Tensor,
    v: Tensor,
    parameters: Tensor,
    inner: int,
    learned_reciprocal_tau: Tensor | None,
    dynamics: tuple[int, float, float, float | None, bool],
) -> tuple[Any, ...]:
    import numpy as np

    charge, reciprocal_tau, v_threshold, v_reset, detach_reset = dynamics
    return (
        np.int64(v.numel()),
        np.int64(parameters.shape[-1] if parameters.numel() else 1),
        np.int64(inner),
        _pointer(parameters),
        _pointer(learned_reciprocal_tau),
        np.float64(reciprocal_tau),
        np.float64(v_threshold),
        np.float64(v_reset or 0.0),
        np.int32(charge),
        np.int32(v_reset is None),
        np.int32(detach_reset),
        _pointer(x_seq),
        _pointer(v),
    )


def _pointer(tensor: Tensor | None) -> Any:
    import numpy as np

    return np.uint64(0 if tensor is None else tensor.data_ptr())


def _launch(
    expression: Expression, x_seq: Tensor, name: str, arguments: tuple[Any, ...], neurons: int
) -> None:
    if neurons:
        kernel = get_kernel(expression, x_seq.dtype, x_seq.shape[0], name, x_seq.device)
        kernel(math.ceil(neurons / _THREADS), _THREADS, arguments)


def forward(
    expression: Expression,
    dynamics: tuple[int, float, float, float | None, bool],
    mode: int,
    x_seq: Tensor,
    v: Tensor,
    learned_reciprocal_tau: Tensor | None,
    parameters: Tensor,
    inner: int,
    store_v_seq: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, last potential, and potentials after each step (else empty); all contiguous.

    Args:
        expression: the spike function.
        dynamics: charge, 1/tau, v_threshold, v_reset and detach_reset, as in `operators.Layer`.
        mode: as in kernel.h.
        x_seq: [T, N, *].
        v: [N, *], float32 or float64.
        learned_reciprocal_tau: a scalar of the dtype of ``v``, or None.
        parameters: of the spike function, [K, channels], of the dtype of ``v``.
        inner: neurons from one channel to the next.
        store_v_seq: whether the potentials are returned.
    """
    spike_seq = torch.empty_like(x_seq)
    v_seq = v.new_empty(x_seq.shape if store_v_seq else 0)
    for start in range(0, x_seq.shape[0], SEGMENT):
        part = slice(start, start + SEGMENT)
        v_last = torch.empty_like(v)
        layer = _layer(x_seq[part], v, parameters, inner, learned_reciprocal_tau, dynamics)
        outputs = (
            _pointer(spike_seq[part]),
            _pointer(v_last),
            _pointer(v_seq[part] if store_v_seq else None),
        )
        _launch(expression, x_seq[part], f"forward_{mode}", layer + outputs, v.numel())
        v = v_last
    return spike_seq, v, v_seq


def backward(
    expression: Expression,
    dynamics: tuple[int, float, float, float | None, bool],
    mode: int,
    x_seq: Tensor,
    v: Tensor,
    learned_reciprocal_tau: Tensor | None,
    parameters: Tensor,
    inner: int,
    grad_spike_seq: Tensor,
    grad_v: Tensor | None,
    grad_v_seq: Tensor | None,
    learned: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the input, the first potential, the parameters [learned, channels], 1/tau.

    A sequence longer than a segment is run forward once more for the potential at the start of
    each segment, and differentiated segment by segment from the end.
    """
    T, count = x_seq.shape[0], len(expression.parameters)
    learn = bool(learned) or learned_reciprocal_tau is not None
    grad_x = torch.empty_like(x_seq)
    table = v.new_zeros(count + 1, *v.shape) if learn else None
    total = torch.zeros_like(table) if table is not None else None
    segment = LEARNING_SEGMENT if learn else SEGMENT
    starts = list(range(0, T, segment))
    potentials = [v]
    for start in starts[:-1]:
        x_part = x_seq[start : start + segment]
        _, v, _ = forward(
            expression, dynamics, mode, x_part, v, learned_reciprocal_tau, parameters, inner, False
        )
        potentials.append(v)
    for start, v in zip(reversed(starts), reversed(potentials), strict=True):
        part = slice(start, start + segment)
        grad_v0 = torch.empty_like(v)
        layer = _layer(x_seq[part], v, parameters, inner, learned_reciprocal_tau, dynamics)
        outputs = (
            _pointer(grad_spike_seq[part]),
            _pointer(grad_v),
            _pointer(None if grad_v_seq is None else grad_v_seq[part]),
            _pointer(grad_x[part]),
            _pointer(grad_v0),
            _pointer(table),
        )
        name = f"backward_{mode}_{int(learn)}"
        _launch(expression, x_seq[part], name, layer + outputs, v.numel())
        grad_v = grad_v0
        if total is not None and table is not None:
            total += table
    assert grad_v is not None
    # One value a neuron, summed by torch: the same order every time, no atomics.
    grad_parameters = v.new_zeros(learned, parameters.shape[-1], dtype=torch.float64)
    grad_r = v.new_zeros((), dtype=torch.float64)
    if total is not None:
        grad_r = total[count].sum(dtype=torch.float64)
        if learned:
            by_channel = total[:count].reshape(count, -1, parameters.shape[-1], inner)
            grad_parameters = by_channel.sum((1, 3), dtype=torch.float64)
    return grad_x, grad_v, grad_parameters, grad_r
