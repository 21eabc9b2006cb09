"""Where a neuron's time loop runs: the choice of a backend, and what is available."""

from __future__ import annotations

import functools
import logging
from typing import Literal, get_args

import torch
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor

from ...surrogates.expressions import Expression, expression
from ...surrogates.spike_function import SpikeFunction
from . import call as call
from . import cpu, cuda, fused
from . import operators as operators
from . import reference as reference
from .check import check
from .compiler import find_compiler
from .errors import BackendUnavailableError as BackendUnavailableError
from .fused import Leak as Leak
from .report import BackendStatus as BackendStatus
from .report import backends as backends
from .report import clear_cache as clear_cache

Backend = Literal["auto", "torch", "cpu", "cupy"]

_logger = logging.getLogger(__name__)


def check_backend(backend: str) -> Backend:
    """Returns ``backend`` if it exists and this machine has what it needs.

    Raises:
        ValueError: an unknown backend.
        BackendUnavailableError: it cannot run here.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"`backend` (={backend!r}) must be one of {', '.join(get_args(Backend))}")
    if backend == "cpu":
        find_compiler()
    if backend == "cupy" and (reason := cuda.unavailable()):
        raise BackendUnavailableError(f"backend 'cupy' can't run here: {reason}")
    if backend == "auto":
        _toolchain_obstacle("cuda" if torch.cuda.is_available() else "cpu")
    return backend  # type: ignore[return-value]  # narrowed by the first check


def choose(
    backend: Backend, function: SurrogateFunctionBase, leak: Leak | None, x_seq: Tensor
) -> Literal["torch", "cpu", "cupy"]:
    """The backend that runs a layer: the one asked for, or for "auto" the fastest that can.

    Raises:
        BackendUnavailableError: the one asked for can't run this layer.
        ValueError: the C expressions of a user's function disagree with its Python function.
    """
    if backend == "torch":
        return "torch"
    reason = _obstacle(backend, function, leak, x_seq)
    fast: Literal["cpu", "cupy"] = "cupy" if x_seq.is_cuda else "cpu"
    if reason is None and isinstance(function, SpikeFunction) and not torch.compiler.is_compiling():
        check(function)
    if backend == "auto":
        if not torch.compiler.is_compiling():
            _say_once(
                f"backend 'auto' runs {fast!r} for {type(function).__name__}"
                if reason is None
                else f"backend 'auto' runs 'torch' for {type(function).__name__}: {reason}"
            )
        return fast if reason is None else "torch"
    if reason is not None:
        raise BackendUnavailableError(
            f"backend {backend!r} can't run this layer: {reason}; use backend='auto' or 'torch'"
        )
    return fast


def _obstacle(
    backend: Backend, function: SurrogateFunctionBase, leak: Leak | None, x_seq: Tensor
) -> str | None:
    needs = {"cpu": "cpu", "cupy": "cuda"}.get(backend, x_seq.device.type)
    if x_seq.device.type != needs or needs not in ("cpu", "cuda"):
        return f"the input is on {x_seq.device}"
    reason = fused.obstacle(function, leak, x_seq)
    if torch.compiler.is_compiling():
        return reason or _toolchain_obstacles.get(needs)  # known since the neuron was made
    reason = reason or _toolchain_obstacle(needs)
    if reason is None and needs == "cpu":
        found = expression(function)
        assert found is not None
        reason = _compile_obstacle(found, x_seq.dtype)
    return reason


@functools.cache
def _compile_obstacle(function: Expression, dtype: torch.dtype) -> str | None:
    try:
        cpu.kernel(function, dtype)
    except BackendUnavailableError as error:
        return str(error)
    return None


_toolchain_obstacles: dict[str, str | None] = {}


def _toolchain_obstacle(device: str) -> str | None:
    if device not in _toolchain_obstacles:
        _toolchain_obstacles[device] = cuda.unavailable() if device == "cuda" else _no_compiler()
    return _toolchain_obstacles[device]


def _no_compiler() -> str | None:
    try:
        find_compiler()
    except BackendUnavailableError as error:
        return str(error)
    return None


@functools.cache
def _say_once(message: str) -> None:
    _logger.info(message)
