"""Doing tasks one after the other or many at a time.

joblib's workers outlive a parent that is killed; these do not.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch

from ..extras import needed

T = TypeVar("T")
R = TypeVar("R")


def work(
    function: Callable[[T], R],
    tasks: Sequence[T],
    workers: int = 1,
    ray_address: str | None = None,
) -> Generator[R, None, None]:
    """Yields ``function`` of each task, as they are finished, begun in their order.

    Args:
        function: what to do; with several workers it and the tasks are sent to other processes,
            which see the same files.
        tasks: what to do it with.
        workers: tasks at a time on this machine, one core each; 1 for this process itself.
        ray_address: of a Ray cluster, whose cores are all used; None for this machine.

    Raises:
        ImportError: Ray is asked for and is not installed.
        concurrent.futures.process.BrokenProcessPool: a worker was killed, for memory perhaps.
    """
    if ray_address is not None:
        yield from _by_ray(function, tasks, ray_address)
    elif workers > 1 and tasks:
        yield from _side_by_side(function, tasks, min(workers, len(tasks)))
    else:
        yield from map(function, tasks)


def _side_by_side(
    function: Callable[[T], R], tasks: Sequence[T], workers: int
) -> Generator[R, None, None]:
    others = set(multiprocessing.active_children())
    # Spawned: a fork of a process whose threads have run can hang.
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    try:
        for done in as_completed([executor.submit(function, task) for task in tasks]):
            yield done.result()
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.kill()  # Lightning would hear a SIGTERM and go on
        raise
    executor.shutdown()


def _begin() -> None:
    """Makes this process a worker: one thread, quiet, and no longer alive than its parent."""
    from ..cli import configure_logging

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal's Ctrl-C the parent takes care
    torch.set_num_threads(1)
    configure_logging()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _by_ray(
    function: Callable[[T], R], tasks: Sequence[T], address: str
) -> Generator[R, None, None]:
    ray = needed("ray")
    ray.init(address=address, log_to_driver=False, include_dashboard=False)
    try:
        remote = ray.remote(num_cpus=1)(lambda task: function(task))
        pending = [remote.remote(task) for task in tasks]
        while pending:
            done, pending = ray.wait(pending)
            yield from ray.get(done)
    finally:
        ray.shutdown()
