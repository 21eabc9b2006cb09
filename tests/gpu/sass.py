"""Disassembles our CUDA kernels: registers, spills, instructions, loads before stores.

    python -m tests.gpu.sass [--architecture 90] [--T 16] [--zoo]

needs no GPU: NVRTC compiles, and Triton's nvdisasm disassembles. In the order of accesses to
global memory L is a load and S a store: `L17 S17` has 17 loads in flight before the first store.
``--zoo`` prints, for every fused class, the longest T that spills nothing.
"""
# ruff: noqa: T201  # a command

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import surrogate

import htaf_snn
from htaf_snn.neurons.kernels import cuda
from htaf_snn.neurons.kernels.buffers import MOST_THREADS, cuda_source
from htaf_snn.neurons.step.graph import Program, decode
from htaf_snn.neurons.traced import step_of
from tests import nvrtc


@dataclass(frozen=True)
class Kernel:
    """The machine code of a kernel.

    Attributes:
        registers: of a thread.
        stack: bytes of a thread's local memory: spills, and arrays that are no registers.
        instructions: the names of all, in order.
        order: of loads (L) and stores (S), as "L17 S17".
    """

    registers: int
    stack: int
    instructions: tuple[str, ...]

    @property
    def order(self) -> str:
        accesses = (o[:3] for o in self.instructions)
        letters = "".join({"LDG": "L", "STG": "S"}.get(name, "") for name in accesses)
        return re.sub(r"(.)\1*", lambda run: f"{run[1]}{len(run[0])} ", letters).strip()

    def count(self, *names: str) -> int:
        """Returns how many instructions begin with one of ``names``."""
        return sum(o.startswith(names) for o in self.instructions)

    def occupancy(self, threads: int) -> float:
        """The share of a multiprocessor's 2048 threads that its 65536 registers allow."""
        registers = (self.registers + 7) // 8 * 8 * threads
        return min(2048 // threads, 65536 // registers) * threads / 2048


def tools() -> Path | None:
    """Returns the folder of Triton's disassembler, or None."""
    found = importlib.util.find_spec("triton")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "backends" / "nvidia" / "bin"
    return folder if (folder / "nvdisasm").exists() and (folder / "cuobjdump").exists() else None


def kernels(source: str, architecture: int = 90) -> dict[str, Kernel]:
    """The kernels of a text, by name."""
    folder = tools()
    assert folder is not None
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "k.cubin")
        path.write_bytes(nvrtc.compile_cubin(source, architecture, cuda.FLAGS))

        def run(*command: str) -> str:
            command = (str(folder / command[0]), *command[1:], str(path))
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        text, usage = run("nvdisasm"), run("cuobjdump", "-res-usage")
    found = {}
    for name, registers, stack in re.findall(
        r"Function (\w+):\s*\n?\s*REG:(\d+) STACK:(\d+)", usage
    ):
        body = re.search(rf"\.text\.{name}:.*?(?=\n\s*\.section|\Z)", text, re.DOTALL)
        assert body is not None
        operations = re.findall(r"/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)", body[0])
        operations = [o for o in operations if o != "NOP"]
        found[name] = Kernel(int(registers), int(stack), tuple(operations))
    return found


def program_of(node: Any) -> Program:
    """What a node's kernels are printed from."""
    text = step_of(node).traced.program
    assert text is not None
    return decode(text)


def print_examples(architecture: int, T: int) -> None:
    """Prints HTAF and ATan on LIF in three types."""
    functions = {"HTAF soft": htaf_snn.HTAFSpike(mode="soft"), "ATan": surrogate.ATan()}
    for name, function in functions.items():
        program = program_of(htaf_snn.LIFNode(surrogate_function=function, step_mode="m").train())
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            found = kernels(cuda_source(program, dtype, T, 4 // dtype.itemsize), architecture)
            for kernel, of in found.items():
                print(
                    f"{name} {str(dtype)[6:]} {kernel}: {of.registers} registers, "
                    f"stack {of.stack}, {len(of.instructions) / T:.1f} instructions a step, "
                    f"{of.count('MUFU') / T:.1f} of them MUFU; {of.order[:70]}"
                )


def print_zoo(architecture: int) -> None:
    """Prints the longest sequence that spills nothing, and what a launch does, for every class."""
    from tests.neurons.test_zoo import FUSED

    print("| class | forward, at least | backward | a launch, backward | registers | occupancy |")
    print("|---|---|---|---|---|---|")
    for name, make in FUSED.items():
        torch.manual_seed(0)
        program = program_of(htaf_snn.convert(make(htaf_snn.HTAFSpike(mode="soft"))))
        longest = dict.fromkeys(("forward", "backward"), 0)
        for T in (8, 16, 24, 32, 48, 64):
            found = kernels(cuda_source(program, torch.float32, T), architecture)
            longest |= {k: T for k in longest if not found[k].stack}
            if any(found[kernel].stack for kernel in longest):
                break
        T = cuda.backward_segment(program)
        used = kernels(cuda_source(program, torch.float32, T), architecture)["backward"]
        most = ["64 or more" if T == 64 else str(T) for T in longest.values()]
        print(
            f"| {name} | {most[0]} | {most[1]} | {T} | {used.registers} "
            f"| {used.occupancy(MOST_THREADS):.0%} |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--architecture", type=int, default=90)
    parser.add_argument("--T", type=int, default=16)
    parser.add_argument("--zoo", action="store_true")
    arguments = parser.parse_args()
    if arguments.zoo:
        print_zoo(arguments.architecture)
    else:
        print_examples(arguments.architecture, arguments.T)
