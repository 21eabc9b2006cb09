"""The kernels on CUDA: compiled and launched by CuPy, on torch's device and stream."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from operator import or_
from typing import Any

import torch
from torch import Tensor

from ..step.graph import Program, Scope
from ..step.print import hoisted
from .buffers import (
    BATCH,
    MOST_THREADS,
    SEQUENCES,
    STRUCTS,
    Words,
    counts,
    cuda_norm_source,
    cuda_source,
    offsets,
    packer,
)
from .compiler import BackendUnavailableError

SEGMENT = 32  # most steps of a launch, whose loads are all in flight at once; more are cut
_REGISTERS = 192  # of a thread's 255, for what it holds of its steps, states and sums
_THREADS = MOST_THREADS
_SUMS = 1 << 17  # threads among which the gradients of learned parameters are summed
FLAGS = ("-std=c++17", "--prec-div=false")

_pack_norm, _order_norm = packer("GridNorm")
_NORM = ("moments", "normalize", "correct")  # the kernels around those of a step

# A kernel by name, called as kernel(blocks, threads, the words of its struct).
Launch = Callable[[int, int, Words], None]


def unavailable() -> str | None:
    """Returns the reason and remedy if CUDA kernels can't run here, else None."""
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
def backward_segment(program: Program, dtype: torch.dtype = torch.float32, width: int = 1) -> int:
    """Returns how many steps a launch of the backward kernel keeps in registers."""
    state = 2 * width if dtype == torch.float64 else width  # registers
    packed = max(1, dtype.itemsize * width // 4)
    fixed = state * (2 * program.states + len(program.learned) + len(hoisted(program, "neuron")))
    fixed += len(hoisted(program, "layer"))
    each = state * len(program.kept) + packed * (program.inputs + program.outputs)
    return max(1, min(SEGMENT, (_REGISTERS - fixed) // each))


def _period(row: int, total: int, width: int) -> int:
    """Returns how far a thread's neurons are apart: a multiple of the width and all channels."""
    period = row * min(total // row, -(_SUMS * width // -row))
    return period + row * (period % width)


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
        if torch.cuda.current_device() == index:
            call = Words("q", (words.buffer_info()[0],))  # the addresses of one argument
            shape = blocks, 1, 1, threads, 1, 1
            launch_kernel(function, *shape, 0, stream_of(index), call.buffer_info()[0], 0)
        else:
            with torch.cuda.device(index):
                launch(blocks, threads, words)

    return launch


# Where a kernel comes from, by its text; the tests put the same one, compiled for the CPU, here.
get_launch: Callable[[str, str, torch.device], Launch] = _cupy_launch


def is_capturing() -> bool:
    """Returns True while torch's current stream is captured as a graph."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


class Live:
    """A layer's numbers in a device's memory, where replays of a captured graph read them."""

    def __init__(self, words: Words, device: torch.device) -> None:
        self._words, self.is_captured = words, False
        self._tensor = torch.tensor(words, dtype=torch.int64, device=device)

    def write(self, words: Words) -> None:
        """Writes other numbers, for all replays that begin later."""
        if words != self._words:
            self._tensor.copy_(torch.tensor(words, dtype=torch.int64))
            self._words = words

    def captured(self, words: Words) -> int:
        """Returns the address for a graph's kernel; an error if not ``words`` are there."""
        if words != self._words:
            raise RuntimeError(
                "numbers of a neuron changed since its last uncaptured call; call "
                "htaf_snn.refresh(net) before the capture, and before a replay"
            )
        self.is_captured = True
        return self._tensor.data_ptr()


class CUDAKernel:
    """The kernels of one step and input dtype on a device, for any number of steps."""

    def __init__(self, program: Program, dtype: torch.dtype, device: torch.device) -> None:
        self._program, self._dtype, self._device = program, dtype, device
        self._state = torch.float64 if dtype == torch.float64 else torch.float32
        self._at, self._back = offsets(program, "Forward"), offsets(program, "Backward")
        self.number = "d" if dtype == torch.float64 else "f4x"  # the format of one, of a layer
        self._numbers = slice(self._at["numbers"], self._at["number_at"])
        self._launches: dict[Any, Launch] = {}
        self._by_neuron = [program.parameters[k] == Scope.CHANNEL for k in program.learned]

    def run(
        self, name: str, words: Words, learned: Sequence[Tensor] = (), live: Live | None = None
    ) -> None:
        """Launches a pass on the words of its struct, `learned` being what gp points to."""
        address = live.captured(words[self._numbers]) if live and is_capturing() else 0
        if not words[1]:  # no neurons
            for grad in learned:
                grad.zero_()
        elif name == "forward":
            at, states = self._at, self._program.states
            for k, part in enumerate(self._parts(words, "Forward", SEGMENT)):
                if k:  # from where the part before ended
                    part[at["s0"] : at["s0"] + states] = part[at["last"] : at["last"] + states]
                self._forward(part, address)
        else:
            self._backward(words, address)

    def norm(self, name: str, words: Words, values: Mapping[str, Any], live: Live | None) -> None:
        """Launches a pass of the step and of the norm before it, whose arguments are ``values``."""
        at, words = self._back, words[:]
        T, N, channels, inner = words[0], words[1], words[at["channels"]], words[at["inner"]]
        # The norm's parameters of the step are where `normalize` leaves them, 8 bytes a channel.
        last = at["parameters"] + counts(self._program)["PARAMETERS"]
        scaling = [values["scaling"] + 8 * channels * k for k in range(3)]
        words[last - 3 : last] = Words("q", scaling)
        width, row = self._width(words), channels * inner
        of: dict[str, Any] = dict.fromkeys((b.name for b in STRUCTS["GridNorm"]), 0) | {**values}
        of |= {"total": T * N, "channels": channels, "inner": inner, "x": words[at["x"]]}
        of["period"] = _period(row, T * N, width)

        def launch(kernel: str, neurons: int) -> None:
            self._launch(kernel, neurons, Words("q", _pack_norm(*_order_norm(of))), 1, width)

        if name == "norm_forward":
            if values["mode"] == BATCH:
                table = torch.empty(2 * of["period"], dtype=self._state, device=self._device)
                of["table"] = table.data_ptr()
                launch("moments", of["period"])
            launch("normalize", channels * width * _THREADS)
            self.run("forward", words, (), live)
            return
        sums = torch.empty(2, channels, dtype=torch.float64, device=self._device)
        end = at["gp"] + len(self._program.learned)
        words[end - 2 : end] = Words("q", map(Tensor.data_ptr, sums))
        self.run("backward", words, (), live)
        of["sums"] = sums.data_ptr()
        if values["elements"]:
            of["gx"] = words[at["gx"]]
        else:
            of["period"] = row  # the gradients of weight and bias alone
        launch("correct", of["period"])

    def _width(self, words: Words) -> int:
        """Returns how many neurons of 16 bits lie together in words that are aligned, or 1."""
        pairs = self._dtype.itemsize == 2 and words[1] % 4 == 0
        return 2 if pairs and not functools.reduce(or_, words[self._at["number_at"] :]) & 7 else 1

    def _launch(self, name: str, neurons: int, words: Words, *variant: Any) -> None:
        """Launches the kernel of a variant of the text, as `cuda_source` takes it."""
        launch = self._launches.get((get_launch, name, variant))
        if launch is None:
            if name in _NORM:
                source = cuda_norm_source(self._dtype, variant[1])
            else:
                source = cuda_source(self._program, self._dtype, *variant)
            launch = get_launch(source, name, self._device)
            self._launches[get_launch, name, variant] = launch
        launch(-(neurons // -(variant[1] * _THREADS)), _THREADS, words)

    def _parts(self, words: Words, struct: str, size: int) -> list[Words]:
        """The words of segments of about equal length, of at most ``size`` steps."""
        T, N, count = words[0], words[1], -(words[0] // -size)
        if count == 1:
            return [words]
        bytes_of = {"X": self._dtype.itemsize, "R": self._state.itemsize}
        sequences = [b for b in STRUCTS["Call"] + STRUCTS[struct] if b.name in SEQUENCES]
        at, many, parts = offsets(self._program, struct), counts(self._program), []
        for k in range(count):
            start, part = T * k // count, words[:]
            part[0] = T * (k + 1) // count - start
            for buffer in sequences:
                step = bytes_of[buffer.type.removeprefix("const ")[0]] * N
                for place in range(at[buffer.name], at[buffer.name] + many[buffer.many]):
                    part[place] += start * step if part[place] else 0
            parts.append(part)
        return parts

    def _given(self, words: Words, first: int) -> int:
        """A bit for each state whose sequence has an address, from word ``first`` on."""
        return sum((words[first + k] != 0) << k for k in range(self._program.states))

    def _forward(self, words: Words, live: int, writes_outputs: bool = True) -> None:
        given = self._given(words, self._at["s_seq"])
        variant = words[0], self._width(words), writes_outputs, given
        self._launch("forward", words[1], words + Words("q", (live,)), *variant)

    def _backward(self, words: Words, live: int) -> None:
        """Runs a long sequence forward once more, for the states at the start of each segment."""
        at, states, learned = self._back, self._program.states, len(self._program.learned)
        width, size = self._width(words), self._state.itemsize
        parts = self._parts(words, "Backward", backward_segment(self._program, self._dtype, width))
        ends = self._ends(parts, live) if len(parts) > 1 else None  # which holds their memory
        row = words[at["channels"]] * words[at["inner"]]
        period = _period(row, words[1], width) if learned else words[1]
        blocks = -(period // -(width * _THREADS))
        # For each learned parameter the sums of a segment, by neuron or block, on an even place.
        rows = [period if by_neuron else blocks for by_neuron in self._by_neuron]
        firsts = [0, *itertools.accumulate((len(parts) * row + 1) // 2 * 2 for row in rows)]
        table = torch.empty(firsts[-1], dtype=self._state, device=self._device)
        tables = [table.data_ptr() + size * first for first in firsts[:-1]]
        for k, part in reversed(list(enumerate(parts))):
            if k < len(parts) - 1:
                part[at["g_last"] : at["g_last"] + states] = part[at["gs0"] : at["gs0"] + states]
            own = [to + size * k * row for to, row in zip(tables, rows, strict=True)] or [0]
            call = part[: at["gp"]] + Words("q", (*own, live, period))
            variant = part[0], width, True, self._given(part, at["gs_seq"])
            self._launch("backward", period, call, *variant)
        del ends
        if learned:
            per = words[at["channels"] : at["inner"] + 1] if any(self._by_neuron) else (1, 1)
            sums = Words("q", (*per, len(parts) * period, len(parts) * blocks, *tables))
            sums += words[at["gp"] : at["gp"] + learned]
            self._launch("sum", per[0] * learned * _THREADS, sums, parts[0][0], 1)

    def _ends(self, parts: Sequence[Words], live: int) -> Tensor:
        """Runs all parts but the last forward, and gives each the states that it begins with."""
        program, at, many = self._program, self._back, max(1, self._program.states)
        shape = len(parts), many, parts[0][1]
        ends = torch.empty(shape, dtype=self._state, device=self._device)
        places = [[row.data_ptr() for row in end] for end in ends]
        for k, part in enumerate(parts):
            for j in range(program.states):
                if k:
                    part[at["s0"] + j] = places[k - 1][j]
                # the states' gradients lie where no segment ends
                part[at["gs0"] + j] = part[at["gs0"] + j] or places[-1][j]
            if k < len(parts) - 1:
                nothing = [0] * max(1, program.outputs), [0] * many
                call = part[: at["go"]] + Words("q", (*nothing[0], *places[k], *nothing[1]))
                self._forward(call, live, writes_outputs=False)
        return ends


kernel = functools.cache(CUDAKernel)
