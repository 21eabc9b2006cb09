"""Where a neuron's time loop runs."""

from __future__ import annotations

import functools
import logging
from typing import Literal, get_args

from .reference import multi_step as multi_step

Backend = Literal["auto", "torch", "cpu", "cupy"]

_logger = logging.getLogger(__name__)


class BackendUnavailableError(RuntimeError):
    """An explicitly chosen backend cannot run here; the message names the reason and the remedy."""


def check_backend(backend: str) -> Backend:
    """Returns ``backend`` if it can run.

    Raises:
        ValueError: an unknown backend.
        BackendUnavailableError: a backend that cannot run here.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"`backend` (={backend!r}) must be one of {', '.join(get_args(Backend))}")
    if backend in ("cpu", "cupy"):
        raise BackendUnavailableError(
            f"backend {backend!r} is not part of this release: its fused kernels are yet to come; "
            "use backend='torch', which runs on any device, or 'auto'"
        )
    if backend == "auto":
        _say_once("backend 'auto' runs 'torch', the only backend of this release")
    return backend  # type: ignore[return-value]  # narrowed by the first check


@functools.cache
def _say_once(message: str) -> None:
    _logger.info(message)
