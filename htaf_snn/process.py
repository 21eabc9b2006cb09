"""This process: what stops it, its random numbers, its memory and the machine's."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class Stopped(BaseException):
    """A signal asked this process to end.

    Attributes:
        code: the exit code that shells expect, 128 + the signal's number.
        advice: where it stopped, and how to go on.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number
        self.advice = "stopped"

    def __str__(self) -> str:
        return f"{self.advice} ({signal.Signals(self.code - 128).name})"


_asked: list[Stopped] = []  # at most one


def raise_if_asked() -> None:
    """Raises the `Stopped` of a signal that came, but whose exception was lost on its way.

    Python ignores what is raised within a ``__del__``, and libraries raise errors of their own
    while they clean up after an exception.
    """
    if _asked:
        raise _asked[0]


@contextlib.contextmanager
def advising(advice: Callable[[], str]) -> Iterator[None]:
    """Within it, a stop says ``advice()``, whatever the clean-up after it raises."""
    try:
        yield
    except BaseException as error:
        if not _asked:
            raise
        _asked[0].advice = advice()
        raise _asked[0] from error


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within it, SIGINT and SIGTERM raise `Stopped`, and a second one ends the process at once.

    Processes that are forked meanwhile end as if nothing was changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != owner:
            os.kill(os.getpid(), number)
        _asked[:] = [Stopped(number)]
        raise _asked[0]

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    _asked.clear()
    try:
        yield
    except Exception:
        raise_if_asked()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def seed_of(*key: object) -> int:
    """A seed that depends on what ``repr`` says of the key alone, on any machine."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest())


def seed_torch(*key: object) -> None:
    """Seeds torch's random numbers, on all devices, by `seed_of` the key."""
    import torch  # not for the command line's first moments

    torch.manual_seed(seed_of(*key))


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


def physical() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
