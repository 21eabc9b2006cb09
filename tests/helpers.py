"""Oracles, and running a command."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from htaf_snn import cli


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


def htaf_reference(x: float, alpha0: float, alpha1: float) -> tuple[float, float]:
    """HTAF's value and derivative by their definitions, in extended precision."""
    y, a0, a1 = (np.longdouble(a) for a in (x, alpha0, alpha1))
    t = np.tanh(a0 * y)
    value = 1 / (1 + np.exp(-a1 * t))
    u = min(abs(a0 * y), np.longdouble(5000))
    sech = 2 / (np.exp(u) + np.exp(-u))
    e = np.exp(-abs(a1 * t))
    return float(value), float(a0 * a1 * e / (1 + e) ** 2 * sech**2)
