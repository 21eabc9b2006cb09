"""Reading in a process of its own, whose end by a damaged file is an error here."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from ...extras import needed
from .columns import ALWAYS_READ, RATIO

Function = TypeVar("Function", bound=Callable[..., Any])

_LONGEST = 300  # seconds that reading a file may take


def guarded(
    package: str, optional: str = "", *, limited: bool = False
) -> Callable[[Function], Function]:
    """Lets a function of a file run in a forked process; in this one where none can be forked.

    For libraries that a damaged file crashes, sends round for ever or lets grow. What the function
    returns can be pickled. It raises a ValueError for what it raised itself, and where its process
    ended or took too long.

    Args:
        package: imported before, and not anew in every process.
        optional: another, where it is installed.
        limited: whether the process may take no more memory than `check_size` allows a file, on
            Linux.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def reading(path: Path, *arguments: object) -> Any:
            needed(package)
            with contextlib.suppress(ModuleNotFoundError):
                needed(optional or package)
            if "fork" not in multiprocessing.get_all_start_methods():
                return function(path, *arguments)
            growth = ALWAYS_READ + RATIO * path.stat().st_size if limited else None
            return _in_a_process(functools.partial(function, path, *arguments), growth)

        return cast(Function, reading)

    return decorate


def _in_a_process(call: Callable[[], object], growth: int | None) -> Any:
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sending, growth, call))
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
    return result


def _run(sending: Any, growth: int | None, call: Callable[[], object]) -> None:
    try:
        if growth is not None and sys.platform == "linux":  # elsewhere it is not enforced
            import resource  # not on Windows

            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + growth
            resource.setrlimit(
                resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1])
            )
        sending.send((call(), None))
    except Exception as error:
        sending.send((None, str(error) or type(error).__name__))
