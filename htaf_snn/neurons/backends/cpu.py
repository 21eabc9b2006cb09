"""The fused kernel on the CPU: compiled by the system's compiler, called through ctypes."""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from ...surrogates.expressions import Expression
from .call import LAYER_FIELDS, X_TYPES, Call, pointer
from .compiler import load_library
from .source import function_struct, read

_C_TYPES = {
    "q": ctypes.c_longlong,
    "P": ctypes.c_void_p,
    "d": ctypes.c_double,
    "i": ctypes.c_int,
}


def source(expression: Expression, dtype: torch.dtype) -> str:
    """The text that the C++ compiler gets for one spike function and input dtype."""
    return "\n".join(
        [
            "#include <math.h>\n#include <stdlib.h>\n#include <string.h>",
            f"#define INPUT {X_TYPES[dtype]}",
            f"#define STATE {'double' if dtype == torch.float64 else 'float'}",
            read("kernel.h"),
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
    library = load_library(source(expression, dtype), ("forward", "backward"))
    for name, outputs in (("forward", "PPP"), ("backward", "PPPPPPP")):
        function = getattr(library, name)
        function.argtypes = [_C_TYPES[c] for c in "iqq" + LAYER_FIELDS + outputs]
        function.restype = None
    return library


def forward(call: Call, store_v_seq: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, last potential, and potentials after each step (else empty); all contiguous."""
    x_seq, v = call.x_seq, call.v
    spike_seq = torch.empty_like(x_seq)
    v_last = torch.empty_like(v)
    v_seq = v.new_empty(x_seq.shape if store_v_seq else 0)
    kernel(call.layer.expression, x_seq.dtype).forward(
        call.mode,
        x_seq.shape[0],
        torch.get_num_threads(),
        *call.fields(),
        spike_seq.data_ptr(),
        v_last.data_ptr(),
        v_seq.data_ptr() if store_v_seq else None,
    )
    return spike_seq, v_last, v_seq


def backward(
    call: Call, grad_spike_seq: Tensor, grad_v: Tensor | None, grad_v_seq: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of the input, the first potential, the parameters [K, channels] and 1/tau.

    The last two are None where nothing learns them.
    """
    x_seq = call.x_seq
    grad_x = torch.empty_like(x_seq)
    grad_v0 = torch.empty_like(call.v)
    grad_parameters = grad_r = None
    if call.learned:
        grad_parameters = torch.zeros(call.parameters.shape, dtype=torch.float64)
    if call.reciprocal_tau is not None:
        grad_r = torch.zeros((), dtype=torch.float64)
    kernel(call.layer.expression, x_seq.dtype).backward(
        call.mode,
        x_seq.shape[0],
        torch.get_num_threads(),
        *call.fields(),
        grad_spike_seq.data_ptr(),
        pointer(grad_v),
        pointer(grad_v_seq),
        grad_x.data_ptr(),
        grad_v0.data_ptr(),
        pointer(grad_parameters),
        pointer(grad_r),
    )
    return grad_x, grad_v0, grad_parameters, grad_r
