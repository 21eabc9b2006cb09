"""Measuring side by side, and the table of it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

SHORTEST = 0.02  # s; what takes less is repeated, as the clocks and a busy machine ask for
_CUDA_REPEATS = 20
LIMIT = "ReLU"
Task = TypeVar("Task")
BASELINE = "SpikingJelly, ATan"


@dataclass(frozen=True)
class Timing:
    """Medians over the rounds, in seconds a call."""

    cpu: float
    wall: float


def at_least_one(name: str, *values: int) -> None:
    """Checks the numbers of an argument.

    Raises:
        ValueError: there is none, or one is below 1.
    """
    if not values:
        raise ValueError(f"`{name}` (=[]) must name a number")
    for value in values:
        if value < 1:
            raise ValueError(f"`{name}` (={value}) must be at least 1")


def thread_counts(threads: Sequence[int] | None) -> list[int]:
    """``threads`` in order, or if None one and all that torch has.

    Raises:
        ValueError: there is none, or one is below 1.
    """
    counts = sorted({1, torch.get_num_threads()} if threads is None else set(threads))
    at_least_one("threads", *counts)
    return counts


@contextlib.contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Sets torch's number of threads, and back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    time.sleep(0.02)  # the threads of before spin for a while, which is CPU time of this process
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleave(
    tasks: Mapping[Task, Callable[[], object]],
    rounds: int,
    threads: Sequence[int],
    progress: tqdm,
) -> dict[tuple[Task, int], Timing]:
    """Times every task once a round, so that what the machine does beside them hits all alike.

    Args:
        tasks: what to time, by name.
        rounds: number of rounds, >= 1; medians are over them.
        threads: torch's thread counts, each used in every round.
        progress: advances by one a round.

    Returns:
        timings by task and thread count.
    """
    repeats = {}
    for count in threads:
        with using_threads(count):
            for name, task in tasks.items():
                repeats[name, count] = _repeats(task)
    samples: dict[tuple[Task, int], list[Timing]] = {key: [] for key in repeats}
    for _ in range(rounds):
        for count in threads:
            with using_threads(count):
                for name, task in tasks.items():
                    samples[name, count].append(_clock(task, repeats[name, count]))
        progress.update()
    return {
        key: Timing(
            statistics.median(s.cpu for s in taken), statistics.median(s.wall for s in taken)
        )
        for key, taken in samples.items()
    }


def interleave_on_cuda(
    tasks: Mapping[str, Callable[[], object]], rounds: int, progress: tqdm
) -> dict[str, float]:
    """Times every task once a round on the current CUDA device, by events of its stream.

    Args:
        tasks: what to time, by name.
        rounds: number of rounds, >= 1; medians are over them.
        progress: advances by one a round.

    Returns:
        seconds a call, by task.
    """
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        for _ in range(3):
            task()  # compiles, allocates
    for _ in range(rounds):
        for name, task in tasks.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(_CUDA_REPEATS):
                task()
            end.record()
            end.synchronize()
            samples[name].append(start.elapsed_time(end) / 1e3 / _CUDA_REPEATS)
        progress.update()
    return {name: statistics.median(taken) for name, taken in samples.items()}


def _repeats(task: Callable[[], object]) -> int:
    task()  # compiles, allocates, warms the caches
    taken = _clock(task, 1).wall
    if taken < SHORTEST:
        taken = min(taken, _clock(task, 5).wall)  # the machine may have paused the one before
    return math.ceil(SHORTEST / taken)


def _clock(task: Callable[[], object], repeats: int) -> Timing:
    collects = gc.isenabled()
    gc.disable()
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            task()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    finally:
        if collects:
            gc.enable()
    return Timing(cpu / repeats, wall / repeats)


def kept_for_backward(forward: Callable[[], object]) -> dict[int, int]:
    """The bytes of each storage that ``forward`` keeps for its backward pass, by address."""
    saved: list[Tensor] = []  # keeps them alive, so that no two share an address

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in saved}


def in_fresh_process(function: Callable[..., int], *arguments: object) -> int:
    """What a module's function returns in a Python of its own, with this one's torch threads.

    Args:
        function: of a module that can be imported.
        arguments: numbers, strings and the like, whose ``repr`` is Python.

    Raises:
        RuntimeError: the process failed; the message has what it wrote.
    """
    code = (
        f"import torch; torch.set_num_threads({torch.get_num_threads()}); "
        f"from {function.__module__} import {function.__name__} as function; "
        f"print(function{(*arguments,)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{', '.join(map(str, arguments))}: the process that measures this failed:\n"
            f"{done.stderr.strip()}"
        )
    return int(done.stdout)


def timing_table(
    timings: Mapping[tuple[str, int], Timing], threads: Sequence[int], unit: float
) -> str:
    """One line a task: CPU time on one thread, wall time on more, and ratios.

    Args:
        timings: by task and thread count; `LIMIT` and `BASELINE` are among the tasks.
        threads: the thread counts.
        unit: that of the times shown, in seconds a call.
    """
    header = ["layer"]
    for count in threads:
        clock = "CPU, 1 thread" if count == 1 else f"wall, {count} threads"
        header += [clock, f"/ {LIMIT}", "speed"]
    most = threads[-1]
    scales = threads[0] == 1 and most > 1
    if scales:
        header.append(f"1 to {most}")

    def taken(name: str, count: int) -> float:
        timing = timings[name, count]
        return timing.cpu if count == 1 else timing.wall

    rows = []
    for name in dict.fromkeys(name for name, _ in timings):
        row = [name]
        for count in threads:
            own = taken(name, count)
            row += [
                f"{own / unit:.2f}",
                f"{own / taken(LIMIT, count):.2f}",
                f"{taken(BASELINE, count) / own:.2f}",
            ]
        if scales:
            row.append(f"{timings[name, 1].wall / timings[name, most].wall:.2f}")
        rows.append(row)
    return table(header, rows)


def cuda_table(seconds: Mapping[str, float], unit: float) -> str:
    """`timing_table` of times on a CUDA device: one line a task, and ratios.

    Args:
        seconds: a call, by task; `LIMIT` and `BASELINE` are among the tasks.
        unit: that of the times shown, in seconds a call.
    """
    rows = [
        [
            name,
            f"{own / unit:.2f}",
            f"{own / seconds[LIMIT]:.2f}",
            f"{seconds[BASELINE] / own:.2f}",
        ]
        for name, own in seconds.items()
    ]
    return table(["layer", "CUDA events", f"/ {LIMIT}", "speed"], rows)


def legend(threads: Sequence[int]) -> str:
    """What the columns of `timing_table` are."""
    lines = [
        f"/ {LIMIT}: time over {LIMIT}'s; speed: how many times as fast as {BASELINE}; "
        "each with as many threads"
    ]
    if threads[0] == 1 and threads[-1] > 1:
        lines.append(f"1 to {threads[-1]}: wall time on 1 thread over that on {threads[-1]}")
    return "\n".join(lines)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for cells in (header, *rows):
        first, *rest = (
            f"{cell:{'<' if i == 0 else '>'}{width}}"
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]))
    return "\n".join(lines)


def setting() -> str:
    """The versions and the instruction set that a benchmark ran with."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "spikingjelly"))
    return f"{versions}; {torch.backends.cpu.get_cpu_capability()}"


def peak_resident(restart: bool = False) -> int:
    """Largest resident size of this process so far, in bytes.

    On Linux it can restart from the present size, and is not `resource.getrusage`'s, which starts
    at the size of the process's parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        if restart:
            Path("/proc/self/clear_refs").write_text("5")
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_memory() -> None:
    """Lets this process keep the memory that it frees, until it ends, where glibc allocates it.

    By default glibc gives large tensors back to the system and gets them again, page by page, at
    every training step, which may take as long as the step. Elsewhere this changes nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    mallopt(_M_TRIM_THRESHOLD, -1)  # none is too much to keep
    mallopt(_M_MMAP_MAX, 0)  # no tensor gets pages of its own, which go when it does
