"""Reading in a process of its own, whose end by a damaged file is an error here."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_LONGEST = 300  # seconds that reading a file may take


def guarded(
    function: Callable[..., Result], path: Path, *arguments: object, growth: int | None = None
) -> Result:
    """``function`` of a file, in a forked process; in this one where processes can't be forked.

    For libraries that a damaged file crashes, sends round for ever or lets grow.

    Args:
        function: of the path and the further arguments; what it returns can be pickled.
        path: the file.
        arguments: of the function.
        growth: bytes that the forked process may take beyond what this one has, on Linux; None
            is no limit.

    Raises:
        ValueError: what the function raised, or that its process ended or took too long.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return function(path, *arguments)
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sending, growth, function, path, *arguments))
    process.start()
    sending.close()
    try:
        if not receiving.poll(_LONGEST):
            raise ValueError(f"not read within {_LONGEST} s; the file is damaged")
        result, error = receiving.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise ValueError(f"the library that reads it crashed ({ended})") from None
    finally:
        if process.is_alive():
            process.join(1)
            process.kill()
        process.join()
        process.close()
        receiving.close()
    if error is not None:
        raise ValueError(error)
    read: Result = result
    return read


def _run(
    sending: multiprocessing.connection.Connection,
    growth: int | None,
    function: Callable[..., object],
    path: Path,
    *arguments: object,
) -> None:
    try:
        if growth is not None and sys.platform == "linux":  # elsewhere it is not enforced
            _limit(growth)
        sending.send((function(path, *arguments), None))
    except Exception as error:
        sending.send((None, str(error) or type(error).__name__))


def _limit(growth: int) -> None:
    import resource  # not on Windows

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + growth
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
