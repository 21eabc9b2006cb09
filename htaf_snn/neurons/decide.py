"""The slow door: decides whether a layer runs on a kernel, and gives the reason if not."""

import functools
import logging
from typing import Any

import torch
from torch import Tensor

from ..surrogates.spike_function import say_once
from . import torch_state
from .kernels import cpu
from .kernels.buffers import DTYPES
from .kernels.compiler import BackendUnavailableError
from .kernels.device import Backend, toolchain_obstacle, warn_slow
from .step.graph import decode
from .step.simplify import with_norm
from .traced import NodeStep


def fused(step: NodeStep, backend: Backend, x: Tensor, multi: bool, states: Any = ()) -> bool:
    """Returns True if the layer runs on a kernel; with backend "auto", if it can.

    Args:
        step: the node's.
        backend: the node's.
        x: the input, [T, N, *] if ``multi``.
        multi: whether it has a dimension T.
        states: what is known of the states.

    Raises:
        BackendUnavailableError: the backend that was asked for can't run it.
    """
    reason = _obstacle(step, backend, x, x.shape[1:] if multi else x.shape, states)
    missing = None if reason else _missing(step, x)
    if backend != "auto" and (reason or missing):
        raise BackendUnavailableError(
            f"backend {backend!r} can't run this layer: {reason or missing}; "
            "use backend='auto' or 'torch'"
        )
    if backend == "auto" and not missing and not torch.compiler.is_compiling():
        kernel = "torch" if reason else "cupy" if x.is_cuda else "cpu"
        why = f": {reason}" if reason else ""
        say_once(logging.INFO, f"backend 'auto' runs {kernel!r} for {step.name}{why}")
    return not (reason or missing)


def _obstacle(
    step: NodeStep, backend: Backend, x: Tensor, shape: torch.Size, states: Any
) -> str | None:
    needs = {"cpu": "cpu", "cupy": "cuda"}.get(backend, x.device.type)
    if x.device.type != needs or needs not in ("cpu", "cuda"):
        return f"the input is on {x.device}"
    if step.traced.program is None:
        return step.traced.reason
    if x.dtype not in DTYPES:
        return f"there is no kernel for {x.dtype}"
    if not all(isinstance(s, Tensor) and s.shape == shape for s in states):
        return "a state is not a tensor like one step of the input"
    if any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in step.modules[1:]
    ):
        return "a hook or monitor watches a module within the neuron"
    if not broadcasts(step, shape):
        return "a parameter does not broadcast to the input"  # torch explains
    return torch_state.obstacle(x, named=backend != "auto")


def _missing(step: NodeStep, x: Tensor) -> str | None:
    """Returns what this machine lacks for the step's kernel, which has been told, or None."""
    device, text = x.device.type, step.traced.program
    if torch.compiler.is_compiling():
        return toolchain_obstacle(device, ask=False)  # known since the neuron was made
    assert text is not None
    return toolchain_obstacle(device) or (
        compile_obstacle(text, x.dtype) if device == "cpu" else None
    )


def broadcasts(step: NodeStep, shape: torch.Size) -> bool:
    """Returns True if the step's parameters broadcast to a step of a shape."""
    for parameter in step.parameters(len(shape)):
        sizes = zip(reversed(parameter.shape), reversed(shape), strict=False)
        fits = parameter.ndim <= len(shape) and all(p in (1, n) for p, n in sizes)
        if not (fits or parameter.numel() == 1):
            return False
    return True


@functools.cache
def compile_obstacle(text: str, dtype: torch.dtype, normed: bool = False) -> str | None:
    """Compiles a step, or a step with its batch norm; returns the reason if that fails, or None."""
    try:
        program = decode(text)
        cpu.kernel(with_norm(program) if normed else program, dtype, normed)
    except BackendUnavailableError as error:
        warn_slow(str(error))
        return str(error)
    return None
