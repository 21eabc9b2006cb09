"""The fused kernel on CUDA: compiled and launched by CuPy, on torch's device and stream."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .call import Call
from .emit import cuda_source
from .errors import BackendUnavailableError
from .program import Program

# Time steps that a kernel keeps in registers, so that none spills; a longer sequence is cut.
SEGMENT = 32
_REGISTERS = 64  # for what the backward pass keeps of its steps
_THREADS = 256
FLAGS = ("-std=c++17", "--prec-div=false")

# A kernel by name, called as kernel(blocks, threads, the words of struct Call).
Kernel = Callable[[int, int, npt.NDArray[np.int64]], None]


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


def _cupy_kernel(source: str, name: str, device: torch.device) -> Kernel:
    import cupy

    index = torch.cuda.current_device() if device.index is None else device.index

    def launch(blocks: int, threads: int, words: npt.NDArray[np.int64]) -> None:
        stream = torch.cuda.current_stream(device).cuda_stream
        with cupy.cuda.Device(index), cupy.cuda.ExternalStream(stream, index):
            # CuPy passes an array by value if it has one element.
            call = words.view(np.dtype((np.void, words.nbytes)))
            _function(source, name, index)((blocks,), (threads,), (call,))

    return launch


# Where a kernel comes from, by its text; the tests put the same one, compiled for the CPU, here.
get_kernel: Callable[[str, str, torch.device], Kernel] = _cupy_kernel


def _launch(
    name: str,
    call: Call,
    outputs: Sequence[Tensor | None] = (),
    last: Sequence[Tensor | None] = (),
    after: Sequence[Tensor | None] = (),
    g_outputs: Sequence[Tensor | None] = (),
    g_last: Sequence[Tensor | None] = (),
    g_after: Sequence[Tensor | None] = (),
    g_x: Sequence[Tensor | None] = (),
    g_states: Sequence[Tensor | None] = (),
    g_parameters: Tensor | None = None,
) -> None:
    """Launches a kernel on struct Call: words of 8 bytes, the arrays that it lacks being null."""
    if not call.neurons:
        return
    program = call.program
    held = [n if isinstance(n, Tensor) else None for n in call.numbers]
    numbers = [0.0 if isinstance(n, Tensor) else float(n) for n in call.numbers]
    words = [call.neurons, call.channels, call.inner]
    words += np.array(numbers or [0.0], dtype=np.float64).view(np.int64).tolist()
    x, outs, ss = program.inputs, program.outputs, program.states
    for group, count in (
        (held, len(held)), ([call.table], 1), (call.x, x), (call.states, ss), (outputs, outs),
        (last, ss), (after, ss), (g_outputs, outs), (g_last, ss), (g_after, ss), (g_x, x),
        (g_states, ss), ([g_parameters], 1),
    ):  # fmt: skip
        addresses = [0 if t is None else t.data_ptr() for t in group]
        words += addresses + [0] * (max(1, count) - len(addresses))
    first = call.x[0]
    kernel = get_kernel(cuda_source(program, first.dtype, len(first)), name, first.device)
    kernel(math.ceil(call.neurons / _THREADS), _THREADS, np.array(words, dtype=np.int64))


def _on_its_device(call: Call) -> Call:
    """With the numbers that are tensors of the state's type, as the kernel reads them."""
    state = call.states[0].dtype if call.states else torch.float32
    return call._replace(
        numbers=[n.to(state) if isinstance(n, Tensor) else n for n in call.numbers]
    )


def forward(call: Call, sequences: bool) -> list[Tensor]:
    """The outputs, the last states, and if asked for the states after each step."""
    call = _on_its_device(call)
    x, states = call.x[0], call.states
    outputs = [torch.empty_like(x) for _ in range(call.program.outputs)]
    after = [torch.empty_like(x, dtype=s.dtype) for s in states] if sequences else []
    for start in range(0, len(x), SEGMENT):
        part = slice(start, start + SEGMENT)
        last = [torch.empty_like(s) for s in states]
        _launch(
            "forward",
            call._replace(x=[t[part] for t in call.x], states=states),
            [t[part] for t in outputs],
            last,
            [t[part] for t in after],
        )
        states = last
    return [*outputs, *states, *after]


def backward(
    call: Call,
    outputs: Sequence[Tensor],
    last: Sequence[Tensor | None],
    after: Sequence[Tensor | None],
) -> tuple[list[Tensor], Tensor]:
    """From the gradients of what `forward` gives: those of the inputs and first states.

    And those of the learned parameters, [learned, channels] in float64. A sequence longer than a
    segment is run forward once more for the states at the start of each segment, and
    differentiated segment by segment from the end.
    """
    call = _on_its_device(call)
    segment = backward_segment(call.program)
    parts = [slice(start, start + segment) for start in range(0, len(call.x[0]), segment)]
    runs = []
    states = call.states
    for part in parts:
        runs.append(call._replace(x=[t[part] for t in call.x], states=states))
        if part is not parts[-1]:
            made = forward(runs[-1], sequences=False)
            states = made[call.program.outputs :]
    g_x = [torch.empty_like(t) for t in call.x]
    learned, x = len(call.program.learned), call.x[0]
    kind = call.states[0].dtype if call.states else torch.float32
    table = torch.empty(learned, call.neurons, dtype=kind, device=x.device)
    total = torch.zeros_like(table) if learned and len(parts) > 1 else table
    for part, run in zip(reversed(parts), reversed(runs), strict=True):
        g_states: list[Tensor | None] = [torch.empty_like(s) for s in run.states]
        _launch(
            "backward",
            run,
            g_outputs=[t[part] for t in outputs],
            g_last=last,
            g_after=[None if t is None else t[part] for t in after],
            g_x=[t[part] for t in g_x],
            g_states=g_states,
            g_parameters=table,
        )
        last = g_states
        if total is not table:
            total += table
    found = [*g_x, *(g for g in last if g is not None)]
    if not learned:
        return found, table
    # One value a neuron, summed by torch: the same order every time, no atomics.
    by_channel = (learned, call.neurons // (call.channels * call.inner), call.channels, call.inner)
    return found, total.reshape(by_channel).sum((1, 3), dtype=torch.float64)
