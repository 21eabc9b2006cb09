"""Oracles, and running a command, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch

from htaf_snn import cli

# Forks of a process that has imported all, and done nothing: an import takes longer than most runs.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["htaf_snn.comparison.compare", "htaf_snn.training.use"])


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def command(*arguments: str | Path, check: bool = True) -> Done:
    """Runs ``htaf-snn`` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    assert not check or code == 0, err.getvalue()
    return Done(code, out.getvalue(), err.getvalue())


def forked(log: Path, function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Starts ``function(*arguments)`` in a new process and session.

    It has one thread, as the sum's order, so the last bit, depends on how many there are.

    Args:
        log: file of what it prints.
        function: of a module, to be found by its name, as its arguments.
    """
    process = _FORKS.Process(
        target=_begun, args=(log, dict(os.environ), function, *arguments), daemon=False
    )
    process.start()
    return process


def _begun(
    log: Path, environment: dict[str, str], function: Callable[..., object], *arguments: object
) -> None:
    os.setsid()
    os.environ.update(environment)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    multiprocessing.set_start_method(None, force=True)  # of its own children, as everywhere
    torch.set_num_threads(1)
    function(*arguments)


def new_process(log: Path, *arguments: str | Path) -> None:
    """Runs ``htaf-snn`` in a new process to its end."""
    process = forked(log, cli.main, list(map(str, arguments)))
    process.join()
    assert process.exitcode == 0, log.read_text()


def htaf_reference(x: float, alpha0: float, alpha1: float) -> tuple[float, float]:
    """HTAF's value and derivative by their definitions, in extended precision."""
    y, a0, a1 = (np.longdouble(a) for a in (x, alpha0, alpha1))
    t = np.tanh(a0 * y)
    value = 1 / (1 + np.exp(-a1 * t))
    u = min(abs(a0 * y), np.longdouble(5000))
    sech = 2 / (np.exp(u) + np.exp(-u))
    e = np.exp(-abs(a1 * t))
    return float(value), float(a0 * a1 * e / (1 + e) ** 2 * sech**2)
