"""Doing tasks one after the other in this process, or many at a time by Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from ..extras import needed

T = TypeVar("T")
R = TypeVar("R")


def work(
    function: Callable[[T], R],
    tasks: Sequence[T],
    workers: int = 1,
    ray_address: str | None = None,
) -> Iterator[R]:
    """``function`` of each task, as they are finished.

    Args:
        function: what to do; with Ray it and the tasks are sent to other processes, which see
            the same files.
        tasks: what to do it with.
        workers: tasks at a time on this machine, one core each; 1 for this process itself.
        ray_address: of a Ray cluster, whose cores are all used; None for this machine.

    Raises:
        ImportError: Ray is asked for and is not installed.
    """
    if not tasks or (workers == 1 and ray_address is None):
        yield from map(function, tasks)
        return
    ray = needed("ray")
    options: dict[str, Any] = (
        {"address": ray_address}
        if ray_address is not None
        else {"address": "local", "num_cpus": workers}
    )
    ray.init(**options, log_to_driver=False, include_dashboard=False)
    try:
        remote = ray.remote(num_cpus=1)(_call)
        pending = [remote.remote(function, task) for task in tasks]
        while pending:
            done, pending = ray.wait(pending)
            yield from ray.get(done)
    finally:
        ray.shutdown()


def _call(function: Callable[[T], R], task: T) -> R:
    return function(task)
