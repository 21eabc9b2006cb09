"""Runs cases in a process of their own, which may hang, die or grow without harm."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import peak_resident

from .cases import KINDS
from .outcomes import ACCEPTED, REFUSED, TRACEBACK, Change

HANG, DIED, MEMORY = "hang", "died", "memory"
SECONDS, BYTES = 60, 2 * 2**30  # the longest, of 600 frames a window, takes 28 s of CPU time


@dataclass(frozen=True)
class Failure:
    """A case that was neither refused clearly nor rightly accepted, with its smallest changes."""

    kind: str
    number: int
    outcome: str
    changes: list[Change]
    said: str


def _work(connection: Any) -> None:
    os.setsid()  # what it starts is killed with it
    os.environ["OMP_NUM_THREADS"] = "1"
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    while True:
        kind, changes = connection.recv()
        if changes is None:
            return
        if isinstance(changes, int):
            connection.send(KINDS[kind].draw(random.Random(f"{kind} {changes}")))
            continue
        before, of_children = peak_resident(restart=True), _largest_child()
        try:
            outcome, said = KINDS[kind].run(changes)
        except BaseException as error:
            outcome, said = TRACEBACK, f"{type(error).__name__}: {error}"
        child = _largest_child()
        if peak_resident() - before > BYTES or child > max(of_children, before + BYTES):
            outcome = MEMORY
        connection.send((outcome, said[:1000]))


def _largest_child() -> int:
    """Peak resident size, in bytes, of the largest process that this one started."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


class Runner:
    """A process that runs one case after the other, and is started anew if one ends it."""

    def __enter__(self) -> Runner:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def _kill(self) -> None:
        if self._process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # it may not have its group yet
        self._process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,))
        self._process.start()
        theirs.close()

    def _ask(self, kind: str, what: Any, seconds: float = SECONDS) -> Any:
        self._connection.send((kind, what))
        try:
            if self._connection.poll(seconds):
                return self._connection.recv()
            outcome = HANG, f"more than {seconds} s"
        except (EOFError, ConnectionResetError):
            self._process.join()
            outcome = DIED, f"exit code {self._process.exitcode}"
        self._kill()
        self._start()
        return outcome

    def run(self, kind: str, number: int) -> tuple[str, str, list[Change]]:
        """A case's outcome, what was said, and its changes."""
        changes = self._ask(kind, number, 120)  # makes the good input first
        outcome, said = self._ask(kind, changes)
        return outcome, said, changes

    def shrunk(self, kind: str, outcome: str, changes: list[Change]) -> list[Change]:
        """The changes without those that the same outcome comes without."""
        for change in list(changes):
            fewer = [one for one in changes if one is not change]
            if fewer and self._ask(kind, fewer)[0] == outcome:
                changes = fewer
        return changes


def shares(count: int) -> dict[str, int]:
    """Cases of each kind; at least one of each."""
    return {name: max(1, round(kind.share * count)) for name, kind in KINDS.items()}


def run(
    count: int, first: int = 0, show: Callable[[Iterator[Any], int], Iterator[Any]] | None = None
) -> tuple[dict[str, Counter[str]], list[Failure]]:
    """Runs ``count`` cases; returns the outcomes by kind, and the failures."""
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in KINDS}
    failures = []
    cases = [(name, first + i) for name, n in shares(count).items() for i in range(n)]
    with Runner() as runner:
        for name, number in show(iter(cases), len(cases)) if show else cases:
            outcome, said, changes = runner.run(name, number)
            outcomes[name][outcome] += 1
            if outcome not in (REFUSED, ACCEPTED):
                smallest = runner.shrunk(name, outcome, changes)
                failures.append(Failure(name, number, outcome, smallest, said))
    return outcomes, failures
