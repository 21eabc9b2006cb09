"""Where a neuron's time loop runs: the choice of a backend, and what is available."""

from __future__ import annotations

import functools
import logging
from typing import Literal, get_args

import torch
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor

from . import fused, operators, reference
from .compiler import find_compiler
from .errors import BackendUnavailableError as BackendUnavailableError
from .fused import Leak as Leak

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
    if backend == "cupy":
        raise BackendUnavailableError(
            "backend 'cupy' is not part of this release; use backend='auto', which runs SpikingJelly's "
            "equations in torch on CUDA"
        )
    return backend  # type: ignore[return-value]  # narrowed by the first check


def choose(
    backend: Backend, function: SurrogateFunctionBase, leak: Leak | None, x_seq: Tensor
) -> Literal["torch", "cpu"]:
    """The backend that runs a layer: the one asked for, or for "auto" the fastest that can.

    Raises:
        BackendUnavailableError: the one asked for can't run this layer.
    """
    if backend == "torch":
        return "torch"
    reason = _obstacle(function, leak, x_seq)
    if backend == "auto":
        if not torch.compiler.is_compiling():
            _say_once(
                f"backend 'auto' runs 'cpu' for {type(function).__name__}"
                if reason is None
                else f"backend 'auto' runs 'torch' for {type(function).__name__}: {reason}"
            )
        return "cpu" if reason is None else "torch"
    if reason is not None:
        raise BackendUnavailableError(
            f"backend {backend!r} can't run this layer: {reason}; use backend='auto' or 'torch'"
        )
    return "cpu"


def _obstacle(function: SurrogateFunctionBase, leak: Leak | None, x_seq: Tensor) -> str | None:
    if x_seq.device.type != "cpu":
        return f"the input is on {x_seq.device.type}"
    return fused.obstacle(function, leak, x_seq) or _cpu_obstacle()


@functools.cache
def _cpu_obstacle() -> str | None:
    try:
        find_compiler()
    except BackendUnavailableError as error:
        return str(error)
    return None


@functools.cache
def _say_once(message: str) -> None:
    _logger.info(message)
