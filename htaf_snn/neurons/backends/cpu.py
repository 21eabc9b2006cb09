"""The fused kernel on the CPU: compiled by the system's compiler, called through ctypes."""

from __future__ import annotations

import array
import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .call import Call
from .compiler import load_library
from .emit import cpu_source, norm_source
from .program import Program


@functools.cache
def kernel(program: Program, dtype: torch.dtype) -> ctypes.CDLL:
    """The loaded kernel of one step and input dtype.

    Raises:
        BackendUnavailableError: it can't be compiled or loaded.
    """
    return _loaded(cpu_source(program, dtype), ("forward", "backward"))


@functools.cache
def norm_kernel(dtype: torch.dtype) -> ctypes.CDLL:
    """The loaded kernel of batch statistics.

    Raises:
        BackendUnavailableError: it can't be compiled or loaded.
    """
    return _loaded(norm_source(dtype), ("moments", "correct"))


def _loaded(source: str, names: Sequence[str]) -> ctypes.CDLL:
    library = load_library(source, names)
    for name in names:
        function = getattr(library, name)
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


def moments(x: Tensor, rows: int, channels: int, inner: int) -> Tensor:
    """Mean and biased variance of each channel, [2, channels] in float64."""
    found = torch.empty(2, channels, dtype=torch.float64)
    _call(norm_kernel(x.dtype).moments, (rows, channels, inner), x, found)
    return found


def correct(x: Tensor, rows: int, channels: int, inner: int, *tensors: Tensor) -> None:
    """Adds to a gradient what the batch statistics do: that, and a, b and center by channel."""
    _call(norm_kernel(x.dtype).correct, (rows, channels, inner), x, *tensors)


def _call(function: Any, shape: Sequence[int], *tensors: Tensor) -> None:
    addresses = (t.data_ptr() for t in tensors)
    words = array.array("q", [*shape, torch.get_num_threads(), *addresses])
    function(words.buffer_info()[0])
