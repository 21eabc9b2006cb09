"""The kernels on CUDA: compiled and launched by CuPy, on torch's device and stream."""

from __future__ import annotations

import array
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..step.graph import Program, Scope
from .buffers import STRUCTS, Words, cuda_source, offsets
from .compiler import BackendUnavailableError

# Time steps that a kernel keeps in registers, so that none spills; a longer sequence is cut.
SEGMENT = 32
_REGISTERS = 64  # for what the backward pass keeps of its steps
_THREADS = 256
FLAGS = ("-std=c++17", "--prec-div=false")

# A kernel by name, called as kernel(blocks, threads, the words of its struct).
Launch = Callable[[int, int, Words], None]


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


def backward_segment(program: Program) -> int:
    """How many steps the backward kernel keeps in registers."""
    steps = SEGMENT
    while steps > 1 and steps * max(1, len(program.kept)) > _REGISTERS:
        steps //= 2
    return steps


@functools.cache
def _function(source: str, name: str, device: int) -> Any:
    import cupy

    try:
        with cupy.cuda.Device(device):
            return cupy.RawModule(code=source, options=FLAGS).get_function(name)
    except cupy.cuda.compiler.CompileException as error:
        raise BackendUnavailableError(f"NVRTC could not compile a kernel: {error}") from error


def _cupy_launch(source: str, name: str, device: torch.device) -> Launch:
    import cupy
    import numpy as np

    index = torch.cuda.current_device() if device.index is None else device.index

    def launch(blocks: int, threads: int, words: Words) -> None:
        stream = torch.cuda.current_stream(device).cuda_stream
        with cupy.cuda.Device(index), cupy.cuda.ExternalStream(stream, index):
            # CuPy passes an array by value if it has one element.
            call = np.frombuffer(words, dtype=np.dtype((np.void, 8 * len(words))))
            _function(source, name, index)((blocks,), (threads,), (call,))

    return launch


# Where a kernel comes from, by its text; the tests put the same one, compiled for the CPU, here.
get_launch: Callable[[str, str, torch.device], Launch] = _cupy_launch


class CUDAKernel:
    """The kernels of one step and input dtype on a device, for any number of steps."""

    def __init__(self, program: Program, dtype: torch.dtype, device: torch.device) -> None:
        self._program, self._dtype, self._device = program, dtype, device
        self._state = torch.float64 if dtype == torch.float64 else torch.float32
        step, state = dtype.itemsize, self._state.itemsize  # bytes of an element
        self._sizes = {
            "Forward": {"x": step, "o": step, "s_seq": state},
            "Backward": {"x": step, "go": step, "gs_seq": state, "gx": step},
        }

    def run(self, name: str, words: Words, learned: Sequence[Tensor] = ()) -> None:
        """Launches a pass on the words of its struct, `learned` being what gp would point to."""
        if not words[offsets(self._program, "Forward")["N"]]:
            for grad in learned:
                grad.zero_()
        elif name == "forward":
            self._forward(words)
        else:
            self._backward(words, learned)

    def _part(self, words: Words, struct: str, start: int, stop: int) -> Words:
        """The words of steps ``start`` to ``stop``."""
        at, part = offsets(self._program, struct), words[:]
        part[at["T"]] = stop - start
        for buffer in STRUCTS["Call"] + STRUCTS[struct]:
            size = self._sizes[struct].get(buffer.name, 0) * start * words[at["N"]]
            for place in range(at[buffer.name], at[buffer.name] + self._count(buffer.many)):
                if size and part[place]:
                    part[place] += size
        return part

    def _count(self, name: str) -> int:
        known = {"INPUTS": self._program.inputs, "OUTPUTS": self._program.outputs}
        return known.get(name, self._program.states)

    def _launch(self, name: str, words: Words) -> None:
        at = offsets(self._program, "Forward")
        source = cuda_source(self._program, self._dtype, words[at["T"]])
        blocks = math.ceil(words[at["N"]] / _THREADS)
        get_launch(source, name, self._device)(blocks, _THREADS, words)

    def _forward(self, words: Words) -> None:
        at, T, states = offsets(self._program, "Forward"), words[0], self._program.states
        for start in range(0, T, SEGMENT):
            part = self._part(words, "Forward", start, min(start + SEGMENT, T))
            if start:  # from where the part before ended
                part[at["s0"] : at["s0"] + states] = part[at["last"] : at["last"] + states]
            self._launch("forward", part)

    def _backward(self, words: Words, learned: Sequence[Tensor]) -> None:
        """Runs a long sequence forward once more, for the states at the start of each segment."""
        program, at = self._program, offsets(self._program, "Backward")
        T, N, states, size = (
            words[at["T"]],
            words[at["N"]],
            program.states,
            backward_segment(program),
        )
        starts = range(0, T, size)

        def new(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=self._state, device=self._device)

        table, ends = new(len(learned), N), new(len(starts), states, N)
        words = words[:]
        words[at["gp"] : at["gp"] + len(learned)] = array.array("q", [t.data_ptr() for t in table])
        own = [t.data_ptr() for t in ends[-1]]  # of no segment's end: the states' gradients
        for k, address in enumerate(own if len(starts) > 1 else []):
            words[at["gs0"] + k] = words[at["gs0"] + k] or address
        parts = [self._part(words, "Backward", s, min(s + size, T)) for s in starts]
        run = [at["s0"] + k for k in range(states)]
        for k, part in enumerate(parts[1:]):
            last = array.array("q", [t.data_ptr() for t in ends[k]])
            padding = [0] * max(1, program.outputs), [0] * max(1, states)
            before = parts[k][: at["go"]] + array.array("q", padding[0])
            before += last or array.array("q", [0])
            self._launch("forward", before + array.array("q", padding[1]))
            for place, address in zip(run, last, strict=True):
                part[place] = address
        for k, part in reversed(list(enumerate(parts))):
            if k < len(parts) - 1:
                part[at["g_last"] : at["g_last"] + states] = part[at["gs0"] : at["gs0"] + states]
            self._launch("backward", part)
        if learned:
            # One value a neuron, summed by torch: the same order every time, no atomics.
            channels, inner = words[at["channels"]], words[at["inner"]]
            by_channel = (len(learned), N // (channels * inner), channels, inner)
            sums = table.reshape(by_channel).sum((1, 3), dtype=torch.float64)
            for k, grad, own_sum in zip(program.learned, learned, sums, strict=True):
                one = program.parameters[k] == Scope.LAYER
                grad.copy_((own_sum.sum() if one else own_sum).reshape(grad.shape))


@functools.cache
def kernel(program: Program, dtype: torch.dtype, device: torch.device) -> CUDAKernel:
    """The kernel of a step and dtype on a device."""
    return CUDAKernel(program, dtype, device)
