"""The fused kernel on the CPU: compiled by the system's compiler, called through ctypes."""

from __future__ import annotations

import array
import ctypes
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from .call import Call
from .compiler import load_library
from .emit import cpu_source
from .program import Program


@functools.cache
def kernel(program: Program, dtype: torch.dtype) -> ctypes.CDLL:
    """The loaded kernel of one step and input dtype.

    Raises:
        BackendUnavailableError: it can't be compiled or loaded.
    """
    library = load_library(cpu_source(program, dtype), ("forward", "backward"))
    for function in (library.forward, library.backward):
        function.argtypes, function.restype = [ctypes.c_void_p], None
    return library


def forward(call: Call, sequences: bool) -> list[Tensor]:
    """The outputs, the last states, and if asked for the states after each step."""
    x, states = call.x[0], call.states
    outputs = [torch.empty_like(x) for _ in range(call.program.outputs)]
    last = [torch.empty_like(s) for s in states]
    after = [torch.empty_like(x, dtype=s.dtype) for s in states] if sequences else []
    _run("forward", call, outputs, last, after or [None] * len(states))
    return [*outputs, *last, *after]


def backward(
    call: Call,
    outputs: Sequence[Tensor],
    last: Sequence[Tensor | None],
    after: Sequence[Tensor | None],
) -> tuple[list[Tensor], Tensor]:
    """From the gradients of what `forward` gives: those of the inputs and first states.

    And those of the learned parameters, [learned, channels] in float64.
    """
    grads = [torch.empty_like(t) for t in (*call.x, *call.states)]
    sums = torch.zeros(len(call.program.learned), call.channels, dtype=torch.float64)
    _run("backward", call, outputs, last, after, grads, [sums])
    return grads, sums


def _run(name: str, call: Call, *arrays: Sequence[Tensor | None]) -> None:
    x = call.x[0]
    numbers = array.array("d", map(float, call.numbers))
    description = [
        x.shape[0], call.neurons, torch.get_num_threads(), call.channels, call.inner,
        numbers.buffer_info()[0], 0 if call.table is None else call.table.data_ptr(),
        *(t.data_ptr() for t in (*call.x, *call.states)),
    ]  # fmt: skip
    for group in arrays:
        description += [0 if t is None else t.data_ptr() for t in group]
    words = array.array("q", description)
    getattr(kernel(call.program, x.dtype), name)(words.buffer_info()[0])
