"""The one description of what a kernel is called with, for every device, and the texts made of it.

A call is a row of 8-byte words: first the scalars, then the addresses, in the order below. The C
struct is printed from it, and Python fills it by `scalars` and `arrangement`, which follow it too.
"""

from __future__ import annotations

import array
import functools
import struct
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..step.graph import Program, Scope
from ..step.print import print_counts, print_cpu_passes, print_cuda_passes, print_hoisted

if TYPE_CHECKING:
    Words = array.array[int]
else:  # Python 3.11's takes no type
    Words = array.array

DTYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}  # of inputs and outputs, by their names in C; states are float, or double for a double input


class Buffer(NamedTuple):
    """A field of the struct: its type in C, and which number of the step's says how many."""

    name: str
    type: str
    many: str = ""


MOST_THREADS = 128  # of a block on CUDA

# Scalars, then addresses. An array is [T, N], [N] or [channels]; X is the input's type, R the
# state's; neuron i has the parameters of channel (i / inner) % channels.
SCALARS = (
    Buffer("T", "i64"), Buffer("N", "i64"), Buffer("threads", "i64"),
    Buffer("channels", "i64"), Buffer("inner", "i64"),
    Buffer("rest", "double", "STATES"),  # the first states, where s0 is null
    Buffer("numbers", "double", "NUMBERS"),  # of the layer: arguments, then parameters
)  # fmt: skip
ADDRESSES = (
    Buffer("number_at", "const R*", "UNIFORM"),  # where a parameter of the layer is, or null
    Buffer("parameters", "const R*", "PARAMETERS"),  # by channel
    Buffer("x", "const X*", "INPUTS"), Buffer("s0", "const R*", "STATES"),
)  # fmt: skip
FORWARD = (
    Buffer("o", "X*", "OUTPUTS"), Buffer("last", "R*", "STATES"),
    Buffer("s_seq", "R*", "STATES"),  # states after each step, or null
)  # fmt: skip
BACKWARD = (  # gradients: of what `FORWARD` writes, and of what is read
    Buffer("go", "const X*", "OUTPUTS"),
    Buffer("g_last", "const R*", "STATES"), Buffer("gs_seq", "const R*", "STATES"),  # or null
    Buffer("gx", "X*", "INPUTS"), Buffer("gs0", "R*", "STATES"),  # or null
    Buffer("gp", "R*", "LEARNED"),
)  # fmt: skip
BATCH, RUNNING, GIVEN = range(3)  # whose statistics: kernel_norm.h's Mode
NORM = (
    Buffer("mode", "i64"), Buffer("elements", "i64"), Buffer("eps", "double"),
    Buffer("momentum", "double"),  # least share of the newest batch in the running statistics
    Buffer("weight", "const R*"), Buffer("bias", "const R*"),  # or null
    Buffer("running_mean", "R*"), Buffer("running_var", "R*"), Buffer("tracked", "i64*"),
    Buffer("moments", "double*"),  # mean and variance, [2, C]; read where mode says so
    Buffer("scaling", "double*"),  # what forward leaves for backward, [5, C]
)  # fmt: skip
NORM_BACKWARD = (
    Buffer("elements", "i64"),  # that a channel's statistics are of; 0: they are given
    Buffer("g_weight", "R*"), Buffer("g_bias", "R*"),  # or null
    Buffer("sums", "double*"),  # both, [2, C], for other processes to add to, or null
    Buffer("scaling", "double*"),
)  # fmt: skip
GRID_FORWARD = (Buffer("live", "const Number*"),)  # numbers where a captured graph reads them
GRID_BACKWARD = (*GRID_FORWARD, Buffer("period", "i64"))  # of the neurons that a thread has
SUM = (  # of what the backward pass left on CUDA
    Buffer("channels", "i64"), Buffer("inner", "i64"),
    Buffer("sums", "i64"), Buffer("block_sums", "i64"),  # how many there are
    Buffer("table", "const R*", "LEARNED"), Buffer("grad", "R*", "LEARNED"),
)  # fmt: skip
GRID_NORM = (  # of the kernels on CUDA around those of a step
    Buffer("total", "i64"), Buffer("channels", "i64"), Buffer("inner", "i64"),
    Buffer("period", "i64"), Buffer("eps", "double"), Buffer("momentum", "double"),
    Buffer("weight", "const R*"), Buffer("bias", "const R*"),  # or null
    Buffer("running_mean", "R*"), Buffer("running_var", "R*"), Buffer("tracked", "i64*"),
    Buffer("x", "const X*"), Buffer("gx", "X*"),  # or null: the statistics were given
    Buffer("table", "R*"),  # what `moments` leaves, [2, period], or null
    Buffer("scaling", "double*"),  # what forward leaves for backward, [5, C] of R
    Buffer("sums", "double*"),  # the gradients of scale and shift, [2, C] of R
    Buffer("g_weight", "R*"), Buffer("g_bias", "R*"),  # or null
)  # fmt: skip
SEQUENCES = ("x", "o", "s_seq", "go", "gs_seq", "gx")  # those that have a row for each step
STRUCTS = {
    "Call": (*SCALARS, *ADDRESSES), "Forward": FORWARD, "Backward": BACKWARD,
    "NormForward": NORM, "NormBackward": NORM_BACKWARD,
    "GridForward": GRID_FORWARD, "GridBackward": GRID_BACKWARD, "Sum": SUM,
    "GridNorm": GRID_NORM,
}  # fmt: skip
_BASES = {
    "Forward": "Call", "Backward": "Call", "NormForward": "Forward", "NormBackward": "Backward",
    "GridForward": "Forward", "GridBackward": "Backward",
}  # fmt: skip


def counts(program: Program) -> dict[str, int]:
    """The number of buffers of each kind."""
    return {"": 1, "UNIFORM": program.parameters.count(Scope.LAYER), **program.counts}


def _call_structs(program: Program, names: Sequence[str], number: str = "double") -> str:
    uniform = f"const int UNIFORM = {counts(program)['UNIFORM']};"
    return "\n".join(["namespace htaf_snn {", uniform, _structs(names, number)])


def _structs(names: Sequence[str], number: str = "double") -> str:
    lines = []
    for name in names:
        base = f" : {_BASES[name]}" if name in _BASES else ""
        lines.append(f"struct {name}{base} {{")
        for buffer in STRUCTS[name]:
            size = f"[AT_LEAST_ONE({buffer.many})]" if buffer.many else ""
            kind = number if buffer.type == "double" else buffer.type
            lines.append(f"    {kind} {buffer.name}{size};")
        lines.append("};")
    return "\n".join(lines)


_VALUES_OF_LAYER = """\
HTAF_FN void values_of_layer(const Call& call, R* u) {
    double n[AT_LEAST_ONE(NUMBERS)];
    for (int k = 0; k < NUMBERS; ++k) n[k] = call.numbers[k];
    for (int k = 0; k < UNIFORM; ++k)
        if (call.number_at[k]) n[NUMBERS - UNIFORM + k] = (double)*call.number_at[k];
    layer_values(n, u);
}
}"""


def scalars(program: Program, values: Mapping[str, Sequence[float]], number: str) -> Words:
    """The first words of a call; ``number`` is the format of a number, as `struct` has it."""
    words = Words("q")
    for buffer in SCALARS:
        padding = [0] * (max(1, counts(program)[buffer.many]) - len(values[buffer.name]))
        kind = number if buffer.type == "double" else "q"
        row = [*values[buffer.name], *padding]
        words.frombytes(struct.pack(f"={kind * len(row)}", *row))
    return words


def arrangement(
    program: Program, name: str, places: Mapping[str, Sequence[int]]
) -> Callable[[Sequence[int]], tuple[int, ...]]:
    """Returns a function that puts addresses in the struct's order: those at ``places``.

    A buffer without places, and what it has too few of, is null.
    """
    order: list[int] = []
    for buffer in (*ADDRESSES, *STRUCTS[name]):
        own = list(places.get(buffer.name, ()))
        order += own + [0] * (max(1, counts(program)[buffer.many]) - len(own))
    return itemgetter(*order)


@functools.cache
def offsets(program: Program, name: str) -> dict[str, int]:
    """At which word of a call each buffer begins."""
    found, at = {}, 0
    for buffer in (*STRUCTS["Call"], *STRUCTS[name]):
        found[buffer.name] = at
        at += max(1, counts(program)[buffer.many])
    return found


@functools.cache
def cpu_source(program: Program, dtype: torch.dtype, normed: bool = False) -> str:
    """The text that the C++ compiler gets for one step and input dtype."""
    return "\n".join(
        [
            "#include <math.h>\n#include <stdlib.h>\n#include <string.h>",
            *_types(dtype),
            read_header("kernel.h"),
            print_counts(program),
            print_hoisted(program),
            print_cpu_passes(program),
            _call_structs(program, ("Call", "Forward", "Backward", "NormForward", "NormBackward")),
            _VALUES_OF_LAYER,
            read_header("kernel_cpu.h"),
            *([read_header("kernel_norm.h")] if normed else []),
        ]
    )


_CUDA_STRUCTS = ("Call", "Forward", "Backward", "GridForward", "GridBackward", "Sum")


@functools.cache
def cuda_source(
    program: Program, dtype: torch.dtype, steps: int, width: int = 1,
    writes_outputs: bool = True, sequences: int = 0,
) -> str:  # fmt: skip
    """The text that NVRTC gets for one step and input dtype.

    Args:
        program: the step.
        dtype: of the input.
        steps: how many a launch does.
        width: how many neurons a thread does at once.
        writes_outputs: whether the forward pass does, or gives the last states alone.
        sequences: a bit for each state: whether that after each step is written, or has a gradient.
    """
    by_neuron = [program.parameters[k] == Scope.CHANNEL for k in program.learned]
    return "\n".join(
        [
            f"#define STEPS {steps}",
            f"#define WIDTH {width}",
            f"#define WRITES_OUTPUTS {int(writes_outputs)}",
            f"#define SEQUENCES {sequences}u",
            f"#define SUMMED_BY_NEURON {sum(own << j for j, own in enumerate(by_neuron))}u",
            f"#define MOST_THREADS {MOST_THREADS}",
            *_types(dtype),
            read_header("kernel.h"),
            read_header("hardware.h"),
            print_counts(program),
            print_hoisted(program),
            print_cuda_passes(program, dtype != torch.float64),
            _call_structs(program, _CUDA_STRUCTS, "Number"),
            "}",
            read_header("kernel_cuda.h"),
        ]
    )


@functools.cache
def cuda_norm_source(dtype: torch.dtype, width: int) -> str:
    """The text that NVRTC gets for a batch norm before any step, as `cuda_source` for a step."""
    return "\n".join(
        [
            f"#define WIDTH {width}",
            f"#define MOST_THREADS {MOST_THREADS}",
            *_types(dtype),
            read_header("kernel.h"),
            read_header("hardware.h"),
            f"namespace htaf_snn {{\n{_structs(('GridNorm',))}\n}}",
            read_header("kernel_cuda_norm.h"),
        ]
    )


def _types(dtype: torch.dtype) -> list[str]:
    state = "double" if dtype == torch.float64 else "float"
    return [f"#define INPUT {DTYPES[dtype]}", f"#define STATE {state}"]


@functools.cache
def read_header(name: str) -> str:
    """The text of one of the headers here."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def packer(name: str) -> tuple[Callable[..., bytes], Callable[[Mapping[str, float]], Any]]:
    """Returns what packs the one-element buffers of a struct, and what orders them by name."""
    buffers = STRUCTS[name]
    kinds = "".join("d" if buffer.type == "double" else "q" for buffer in buffers)
    return struct.Struct(kinds).pack, itemgetter(*(buffer.name for buffer in buffers))
