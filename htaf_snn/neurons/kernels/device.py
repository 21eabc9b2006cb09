"""The backends: which there are, what runs here, and why not."""

import logging
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from ...surrogates.spike_function import say_once
from . import cuda
from .compiler import BackendUnavailableError, check_toolchain, find_compiler, kernel_folder

Backend = Literal["auto", "torch", "cpu", "cupy"]


def check_backend(backend: str) -> Backend:
    """Returns ``backend`` if it exists and this machine has what it needs.

    Raises:
        ValueError: an unknown backend.
        BackendUnavailableError: it cannot run here.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"`backend` (={backend!r}) must be one of {', '.join(get_args(Backend))}")
    if backend == "cpu":
        check_toolchain()
    if backend == "cupy" and (reason := cuda.unavailable()):
        raise BackendUnavailableError(f"backend 'cupy' can't run here: {reason}")
    if backend == "auto":
        toolchain_obstacle("cuda" if torch.cuda.is_available() else "cpu")
    return backend  # type: ignore[return-value]  # narrowed by the first check


_toolchain_obstacles: dict[str, str | None] = {}  # once asked, by device


def toolchain_obstacle(device: str, ask: bool = True) -> str | None:
    """Returns the reason why no kernel can be made for a device, or None."""
    if ask and device not in _toolchain_obstacles:
        reason = cuda.unavailable() if device == "cuda" else _no_compiler()
        _toolchain_obstacles[device] = reason
        if reason is not None:
            warn_slow(reason)
    return _toolchain_obstacles.get(device)


def warn_slow(reason: str) -> None:
    """Warns, once of a reason, that what this machine lacks makes neurons slow, and what to do."""
    message = f"neurons run on backend 'torch', several times slower: {reason}"
    say_once(logging.WARNING, message)


def _no_compiler() -> str | None:
    try:
        check_toolchain()
    except BackendUnavailableError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class BackendStatus:
    """The state of a backend here; ``detail`` names its tools, or the reason and remedy."""

    available: bool
    detail: str


def backends() -> dict[str, BackendStatus]:
    """Each backend, whether it can run here, and with what or why not."""
    try:
        check_toolchain()
        compiler = find_compiler()
        cpu = BackendStatus(
            True, f"{compiler.path} ({compiler.version}), {' '.join(compiler.flags)}"
        )
    except BackendUnavailableError as error:
        cpu = BackendStatus(False, str(error))
    reason = cuda.unavailable()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "torch": BackendStatus(True, f"the reference, torch {torch.__version__}, any device"),
        "cpu": cpu,
        "cupy": BackendStatus(reason is None, reason or ", ".join(devices)),
    }


def show(clear_cache: bool = False) -> str:
    """The neurons' backends, available or why not, and the kernel cache.

    Args:
        clear_cache: remove the compiled kernels first.
    """
    lines = [f"removed {clear_kernels()} kernels"] if clear_cache else []
    for name, status in backends().items():
        available = "available" if status.available else "not available"
        lines.append(f"{name:6} {available}: {status.detail}")
    sizes = [path.stat().st_size for path in kernel_folder().glob("*.so")]
    lines.append(f"cache  {kernel_folder()}: {len(sizes)} kernels, {sum(sizes) / 2**20:.1f} MiB")
    return "\n".join(lines)


def clear_kernels() -> int:
    """Removes the compiled CPU kernels; returns how many. Loaded ones go on working."""
    folder, removed = kernel_folder(), 0
    for path in folder.glob("*"):
        if path.suffix in (".so", ".sha256", ".lock"):
            removed += path.suffix == ".so"
            path.unlink(missing_ok=True)
    return removed
