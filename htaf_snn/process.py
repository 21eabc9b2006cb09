"""This process: what stops it, its random numbers, and the machine's memory."""

import contextlib
import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
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
    """Lets a stop within the block say ``advice()``, whatever the clean-up raises."""
    try:
        yield
    except BaseException as error:
        if not _asked:
            raise
        _asked[0].advice = advice()
        raise _asked[0] from error


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Lets SIGINT and SIGTERM raise `Stopped` within the block; a second one ends the process.

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


def physical() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
