"""Reading files in another process, so that a damaged file ends that one and not this."""

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from ...extras import needed
from .columns import ALWAYS_READ, RATIO

Function = TypeVar("Function", bound=Callable[..., Any])

_LONGEST = 300  # seconds that reading a file may take
_IDLE = 10  # seconds without a file after which the process ends


def guarded(package: str, *, limited: bool = False) -> Callable[[Function], Function]:
    """Lets a function of a file run in a forked process; in this one where none can be forked.

    For libraries that a damaged file can crash, keep in an endless loop, or make take all memory.
    What the function takes and returns can be pickled. Its own errors become a ValueError, and so
    do the process's end and a reading that takes too long. The process reads the next file too,
    unless this one was refused: to fork one takes ten times as long as to read a small file.

    ``package`` is what the function needs. If it is ``limited``, it may take no more memory than
    `check_size` allows a file, on Linux.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def reading(path: Path, *arguments: object) -> Any:
            needed(package)
            if "fork" not in multiprocessing.get_all_start_methods():
                return function(path, *arguments)
            growth = ALWAYS_READ + RATIO * path.stat().st_size if limited else None
            return _call(reading, package, growth, path, *arguments)

        return cast(Function, reading)

    return decorate


class _Child:
    """A forked process that reads files, one after the other."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self.parent, self.calls = os.getpid(), 0
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=_serve, args=(far, self.pipe), daemon=True)
        self.process.start()
        far.close()

    def call(self, *call: object) -> tuple[Any, str | None]:
        """Returns what it read, or why it did not; an EOFError is its end."""
        self.calls += 1
        self.pipe.send(call)
        if not self.pipe.poll(_LONGEST):
            return None, f"not read within {_LONGEST} s; the file is damaged"
        return self.pipe.recv()

    def end(self) -> str:
        """Ends it, and says how it had ended before."""
        self.pipe.close()
        self.process.join(1)
        self.process.kill()
        self.process.join()
        code = self.process.exitcode or 0
        self.process.close()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


_child: _Child | None = None


def _call(*call: object) -> Any:
    global _child
    while True:
        child, _child = _child, None
        if child is None or child.parent != os.getpid():
            child = _Child()
        try:
            result, error = child.call(*call)
        except (EOFError, ConnectionError):
            result, error = None, f"the library that reads it crashed ({child.end()})"
            if child.calls > 1:  # it was idle, or harmed by a file before
                continue
        else:
            if error is None:
                _child = child
                return result
            child.end()
        raise ValueError(error)


def _serve(pipe: Any, parents: Any) -> None:
    parents.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with its parent
    with contextlib.suppress(EOFError):
        while pipe.poll(_IDLE):
            reading, package, growth, *arguments = pipe.recv()
            needed(package)
            result = refused = None
            try:
                with _limited(growth):
                    result = reading.__wrapped__(*arguments)
            except Exception as error:
                refused = str(error) or type(error).__name__
            pipe.send((result, refused))


@contextlib.contextmanager
def _limited(growth: int | None) -> Iterator[None]:
    """Lets this process take so many bytes more, on Linux; elsewhere it is not enforced."""
    if growth is None or sys.platform != "linux":
        yield
        return
    import resource  # not on Windows

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + growth, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
