"""Reading in a process of its own, whose end by a damaged file is an error here."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_LONGEST = 300  # seconds that reading a file may take


def guarded(function: Callable[..., Result], path: Path, *arguments: object) -> Result:
    """``function`` of a file, in a forked process; in this one where processes can't be forked.

    For libraries in C that a damaged file crashes or sends round for ever.

    Raises:
        ValueError: what the function raised, or that its process ended or took too long.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return function(path, *arguments)
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sending, function, path, *arguments))
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
    function: Callable[..., object],
    path: Path,
    *arguments: object,
) -> None:
    try:
        sending.send((function(path, *arguments), None))
    except Exception as error:
        sending.send((None, str(error) or type(error).__name__))
