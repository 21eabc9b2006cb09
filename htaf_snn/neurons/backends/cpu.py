"""The fused kernel on the CPU: compiled by the system's compiler, called through ctypes."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from ...surrogates.expressions import Expression
from .compiler import compile_library
from .errors import BackendUnavailableError
from .source import function_struct, read

X_TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
_MAX_PARAMETERS = 8


class _Layer(ctypes.Structure):
    _fields_ = (
        ("T", ctypes.c_longlong),
        ("N", ctypes.c_longlong),
        ("channels", ctypes.c_longlong),
        ("inner", ctypes.c_longlong),
        ("parameters", ctypes.c_void_p * _MAX_PARAMETERS),
        ("counts", ctypes.c_longlong * _MAX_PARAMETERS),
        ("threads", ctypes.c_longlong),
        ("learned", ctypes.c_longlong),
    )


NEURON_FIELDS = ("keep", "gain", "drift", "v_threshold", "pull", "push", "pass", "v_rest", "drive")


class _Neuron32(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_float) for name in NEURON_FIELDS)


class _Neuron64(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_double) for name in NEURON_FIELDS)


def source(expression: Expression, dtype: torch.dtype) -> str:
    """The text that the C++ compiler gets for one spike function and input dtype."""
    if len(expression.parameters) > _MAX_PARAMETERS:
        raise ValueError(
            f"a spike function of {len(expression.parameters)} parameters; "
            f"fused kernels take at most {_MAX_PARAMETERS}"
        )
    state = "double" if dtype == torch.float64 else "float"
    return "\n".join(
        [
            "#include <math.h>\n#include <stdlib.h>\n#include <string.h>",
            read("kernel.h"),
            f"namespace htaf_snn {{ typedef {X_TYPES[dtype]} X; typedef {state} R; }}",
            function_struct(expression),
            read("kernel_cpu.h"),
        ]
    )


@functools.cache
def kernel(expression: Expression, dtype: torch.dtype) -> ctypes.CDLL:
    """The loaded kernel of one spike function and input dtype.

    Raises:
        BackendUnavailableError: it can't be compiled or loaded.
    """
    path = compile_library(source(expression, dtype))
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise BackendUnavailableError(f"the kernel {path} does not load: {error}") from error
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    common = (pointer, pointer, integer, integer)
    library.forward.argtypes = (*common, *[pointer] * 5)
    library.backward.argtypes = (*common, *[pointer] * 9)
    library.forward.restype = library.backward.restype = None
    return library


def _neuron(coefficients: tuple[float, ...], dtype: torch.dtype) -> Any:
    return (_Neuron64 if dtype == torch.float64 else _Neuron32)(*coefficients)


def _layer(
    x_seq: Tensor, parameters: list[Tensor], channels: int, inner: int, learned: int = 0
) -> _Layer:
    layer = _Layer(
        x_seq.shape[0],
        x_seq.numel() // x_seq.shape[0],
        channels,
        inner,
        threads=torch.get_num_threads(),
        learned=learned,
    )
    for k, parameter in enumerate(parameters):
        layer.parameters[k] = parameter.data_ptr()
        layer.counts[k] = parameter.numel()
    return layer


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def forward(
    expression: Expression,
    coefficients: tuple[float, ...],
    mode: int,
    x_seq: Tensor,
    v: Tensor,
    parameters: list[Tensor],
    channels: int,
    inner: int,
    store_v_seq: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, last potential, and potentials after each step (else empty); all contiguous."""
    spike_seq = torch.empty_like(x_seq)
    v_last = torch.empty_like(v)
    v_seq = v.new_empty(x_seq.shape if store_v_seq else 0)
    layer = _layer(x_seq, parameters, channels, inner)
    kernel(expression, x_seq.dtype).forward(
        ctypes.byref(layer),
        ctypes.byref(_neuron(coefficients, v.dtype)),
        mode,
        any(p.numel() > 1 for p in parameters),
        x_seq.data_ptr(),
        v.data_ptr(),
        spike_seq.data_ptr(),
        v_last.data_ptr(),
        v_seq.data_ptr() if store_v_seq else None,
    )
    return spike_seq, v_last, v_seq


def backward(
    expression: Expression,
    coefficients: tuple[float, ...],
    mode: int,
    x_seq: Tensor,
    v: Tensor,
    parameters: list[Tensor],
    channels: int,
    inner: int,
    grad_spike_seq: Tensor,
    grad_v: Tensor | None,
    grad_v_seq: Tensor | None,
    learned: int,
    learn: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the input, the first potential, the parameters [learned, channels], 1/tau."""
    grad_x = torch.empty_like(x_seq)
    grad_v0 = torch.empty_like(v)
    grad_parameters = torch.zeros(learned, channels, dtype=torch.float64)
    grad_r = torch.zeros((), dtype=torch.float64)
    layer = _layer(x_seq, parameters, channels, inner, learned)
    kernel(expression, x_seq.dtype).backward(
        ctypes.byref(layer),
        ctypes.byref(_neuron(coefficients, v.dtype)),
        mode,
        learn or any(p.numel() > 1 for p in parameters),
        x_seq.data_ptr(),
        v.data_ptr(),
        grad_spike_seq.data_ptr(),
        _pointer(grad_v),
        _pointer(grad_v_seq),
        grad_x.data_ptr(),
        grad_v0.data_ptr(),
        grad_parameters.data_ptr(),
        grad_r.data_ptr(),
    )
    return grad_x, grad_v0, grad_parameters, grad_r
