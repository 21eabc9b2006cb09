"""The kernels on CUDA: compiled and launched by CuPy, on torch's device and stream."""

from __future__ import annotations

import array
import functools
import math
from collections.abc import Callable, Sequence
from operator import or_
from typing import Any

import torch
from torch import Tensor

from ..step.graph import Program, Scope
from .buffers import MOST_THREADS, STRUCTS, Words, counts, cuda_source, offsets
from .compiler import BackendUnavailableError

SEGMENT = 32  # most steps of a launch, whose loads are all in flight at once; more are cut
_REGISTERS = 208  # of a thread's 255, for what it holds of its steps, states and sums
_THREADS = MOST_THREADS
_SUMS = 1 << 17  # threads among which the gradients of learned parameters are summed
FLAGS = ("-std=c++17", "--prec-div=false")



class Live:
    """A layer's numbers in a device's memory, where replays of a captured graph read them.

    Attributes:
        words: what was written there.
        is_captured: whether a graph reads them.
    """

    def __init__(self, words: Words, device: torch.device) -> None:
        self.words, self.is_captured = words, False
        self.tensor = torch.tensor(words, dtype=torch.int64, device=device)

    def write(self, words: Words) -> None:
        """Writes other numbers, for all replays that begin later."""
        if words != self.words:
            self.tensor.copy_(torch.tensor(words, dtype=torch.int64))
            self.words = words


def is_capturing() -> bool:
    """Whether torch's current stream is being captured as a graph."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


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


def backward_segment(program: Program, dtype: torch.dtype = torch.float32, width: int = 1) -> int:
    """How many steps a launch of the backward kernel keeps in registers."""
    state = 2 * width if dtype == torch.float64 else width  # registers
    packed = max(1, dtype.itemsize * width // 4)
    fixed = state * (2 * program.states + len(program.learned))
    each = state * len(program.kept) + packed * (program.inputs + program.outputs)
    return max(1, min(SEGMENT, (_REGISTERS - fixed) // each))


@functools.cache
def _module(source: str, device: int) -> Any:
    import cupy

    try:
        with cupy.cuda.Device(device):
            module = cupy.RawModule(code=source, options=FLAGS)
            module.compile()
            return module
    except cupy.cuda.compiler.CompileException as error:
        raise BackendUnavailableError(f"NVRTC could not compile a kernel: {error}") from error


def _cupy_launch(source: str, name: str, device: torch.device) -> Launch:
    import cupy

    index = torch.cuda.current_device() if device.index is None else device.index
    function = _module(source, index).get_function(name).kernel.ptr
    launch_kernel, stream_of = cupy.cuda.driver.launchKernel, torch._C._cuda_getCurrentRawStream

    def launch(blocks: int, threads: int, words: Words) -> None:
        if torch.cuda.current_device() != index:
            with torch.cuda.device(index):
                return launch(blocks, threads, words)
        parameters = array.array("q", (words.buffer_info()[0],))
        launch_kernel(
            function, blocks, 1, 1, threads, 1, 1, 0, stream_of(index), parameters.buffer_info()[0], 0
        )  # fmt: skip

    return launch


# Where a kernel comes from, by its text; the tests put the same one, compiled for the CPU, here.
get_launch: Callable[[str, str, torch.device], Launch] = _cupy_launch


class CUDAKernel:
    """The kernels of one step and input dtype on a device, for any number of steps."""

    def __init__(self, program: Program, dtype: torch.dtype, device: torch.device) -> None:
        self._program, self._dtype, self._device = program, dtype, device
        self._state = torch.float64 if dtype == torch.float64 else torch.float32
        self._at = {name: offsets(program, name) for name in ("Forward", "Backward")}
        self.number = "d" if dtype == torch.float64 else "f4x"  # the format of one, of a layer
        self._launches: dict[Any, Launch] = {}
        self._by_neuron = [program.parameters[k] == Scope.CHANNEL for k in program.learned]

    def run(
        self, name: str, words: Words, learned: Sequence[Tensor] = (), live: Live | None = None
    ) -> None:
        """Launches a pass on the words of its struct, `learned` being what gp points to.

        Raises:
            RuntimeError: a graph is captured that would not see the numbers of this call.
        """
        address = 0
        if live is not None and is_capturing():
            first = self._at["Forward"]["numbers"]
            if live.words != words[first : first + len(live.words)]:
                raise RuntimeError(
                    "numbers of a neuron changed since its last uncaptured call; call "
                    "htaf_snn.refresh(net) before the capture, and before a replay"
                )
            live.is_captured, address = True, live.tensor.data_ptr()
        if not words[1]:  # no neurons
            for grad in learned:
                grad.zero_()
        elif name == "forward":
            self._forward(words, address)
        else:
            self._backward(words, address)

    def _width(self, words: Words) -> int:
        """How many neurons of 16 bits lie together in words that are aligned, or 1."""
        pairs = self._dtype.itemsize == 2 and words[1] % 4 == 0
        first = self._at["Forward"]["number_at"]
        return 2 if pairs and not functools.reduce(or_, words[first:]) & 7 else 1

    def _get(self, name: str, *variant: Any) -> Launch:
        """The kernel of a variant of the text, as `cuda_source` takes it."""
        found = self._launches.get((get_launch, name, variant))
        if found is None:
            source = cuda_source(self._program, self._dtype, *variant)
            found = self._launches[get_launch, name, variant] = get_launch(
                source, name, self._device
            )
        return found

    def _sequences(self, words: Words, first: int) -> int:
        """A bit for each state whose sequence has an address, from word ``first`` on."""
        return sum((words[first + k] != 0) << k for k in range(self._program.states))

    def _parts(self, words: Words, struct: str, size: int) -> list[Words]:
        """The words of segments of about equal length, of at most ``size`` steps."""
        T, N = words[:2]
        count = math.ceil(T / size)
        if count == 1:
            return [words]
        state, at = self._state.itemsize, self._at[struct]
        bytes_of = dict.fromkeys(("x", "o", "go", "gx"), self._dtype.itemsize)
        bytes_of |= {"s_seq": state, "gs_seq": state}
        many, parts = counts(self._program), []
        for k in range(count):
            start, part = T * k // count, words[:]
            part[0] = T * (k + 1) // count - start
            for buffer in STRUCTS["Call"] + STRUCTS[struct]:
                size = bytes_of.get(buffer.name, 0) * start * N
                for place in range(at[buffer.name], at[buffer.name] + many[buffer.many]):
                    if size and part[place]:
                        part[place] += size
            parts.append(part)
        return parts

    def _run_forward(self, words: Words, live: int, writes_outputs: bool = True) -> None:
        width, sequences = self._width(words), self._sequences(words, self._at["Forward"]["s_seq"])
        launch = self._get("forward", words[0], width, writes_outputs, sequences)
        launch(-(words[1] // -(width * _THREADS)), _THREADS, words + array.array("q", (live,)))

    def _forward(self, words: Words, live: int) -> None:
        at, states = self._at["Forward"], self._program.states
        for k, part in enumerate(self._parts(words, "Forward", SEGMENT)):
            if k:  # from where the part before ended
                part[at["s0"] : at["s0"] + states] = part[at["last"] : at["last"] + states]
            self._run_forward(part, live)

    def _backward(self, words: Words, live: int) -> None:
        """Runs a long sequence forward once more, for the states at the start of each segment."""
        program, at = self._program, self._at["Backward"]
        N, states, learned = words[1], program.states, len(program.learned)
        width = self._width(words)
        parts = self._parts(words, "Backward", backward_segment(program, self._dtype, width))
        ends = self._ends(parts, live) if len(parts) > 1 else None
        period = self._period(words, width) if learned else 0
        blocks = -((period or N) // -(width * _THREADS))
        tables = []  # for each learned parameter a sum by segment and neuron, or block
        for by_neuron in self._by_neuron:
            shape = len(parts), period if by_neuron else blocks
            tables.append(torch.empty(shape, dtype=self._state, device=self._device))
        for k, part in reversed(list(enumerate(parts))):
            if k < len(parts) - 1:
                part[at["g_last"] : at["g_last"] + states] = part[at["gs0"] : at["gs0"] + states]
            if learned:
                row = array.array("q", [table[k].data_ptr() for table in tables])
                part = part[: at["gp"]] + row
            sequences = self._sequences(part, at["gs_seq"])
            launch = self._get("backward", part[0], width, True, sequences)
            launch(blocks, _THREADS, part + array.array("q", (live, period)))
        del ends
        if learned:
            shared = not any(self._by_neuron)
            channels, inner = (1, 1) if shared else (words[at["channels"]], words[at["inner"]])
            sums = array.array("q", (channels, inner, len(parts) * period, len(parts) * blocks))
            sums += array.array("q", [table.data_ptr() for table in tables])
            sums += words[at["gp"] : at["gp"] + learned]
            self._get("sum", parts[0][0], width, True, 0)(channels * learned, _THREADS, sums)

    def _period(self, words: Words, width: int) -> int:
        """How far apart the neurons of a thread lie: a multiple of all channels, and of width."""
        row = words[self._at["Backward"]["channels"]] * words[self._at["Backward"]["inner"]]
        count = min(words[1] // row, -(_SUMS * width // -row))
        return row * (count + (row * count) % width)

    def _ends(self, parts: Sequence[Words], live: int) -> Tensor:
        """Runs all parts but the last forward, and gives each the states that it begins with."""
        program, at = self._program, self._at["Backward"]
        states = program.states
        shape = len(parts), max(1, states), parts[0][1]
        ends = torch.empty(shape, dtype=self._state, device=self._device)
        address, size = ends.data_ptr(), shape[2] * self._state.itemsize
        places = [[address + (k * shape[1] + j) * size for j in range(states)] for k in range(len(parts))]
        no_outputs = array.array("q", [0] * max(1, program.outputs))
        no_sequences = array.array("q", [0] * max(1, states))
        for k, part in enumerate(parts):
            for j in range(states):
                if k:
                    part[at["s0"] + j] = places[k - 1][j]
                # the states' gradients lie where no segment ends
                part[at["gs0"] + j] = part[at["gs0"] + j] or places[-1][j]
            if k < len(parts) - 1:
                last = array.array("q", places[k] or [0])
                words = part[: at["go"]] + no_outputs + last + no_sequences
                self._run_forward(words, live, writes_outputs=False)
        return ends


@functools.cache
def kernel(program: Program, dtype: torch.dtype, device: torch.device) -> CUDAKernel:
    """The kernel of a step and dtype on a device."""
    return CUDAKernel(program, dtype, device)
