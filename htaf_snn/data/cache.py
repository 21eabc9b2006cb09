"""The user's cache folder, and building in it what is built once."""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from tqdm import tqdm

from ..files import others_can_change

Item = TypeVar("Item")
Result = TypeVar("Result")

_ITEMS_A_PROCESS = 64  # fewer are not worth starting a process


def cache_key(*parts: object) -> str:
    """A folder name that changes when one of ``parts`` does."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def file_stamp(path: Path) -> tuple[str, int, int]:
    """What of a file goes into a `cache_key`: its path, size and time of change."""
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Returns the folder ``target``, which ``build`` fills if it does not exist.

    ``build`` fills a temporary folder beside it, which takes its name when it is complete, so
    that ``target`` is never half-written. Of two processes that build at once, one waits for the
    other; what a killed one left behind is removed by the next.

    Raises:
        OSError: the folder is another user's, or others can write to it.
    """
    if target.is_dir():
        return _trusted(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(target.name + ".lock")):
        if target.is_dir():
            return _trusted(target)
        for stale in target.parent.glob(f"{target.name}.partial-*"):
            shutil.rmtree(stale)
        partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=target.parent))
        try:
            build(partial)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return target


def _trusted(folder: Path) -> Path:
    if others_can_change(folder):
        raise OSError(
            f"the cache {folder} is another user's, or others can write to it, so nothing is read "
            f"from it; remove it, with 'rm -r {folder}', or name another folder in the environment "
            "variable HTAF_SNN_CACHE"
        )
    return folder


def map_in_order(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    desc: str,
    unit: str,
    processes: int | None = None,
) -> Iterator[Result]:
    """``function`` of each item, in order, with a progress bar.

    Args:
        function: picklable, and free of torch's operators, whose threads don't survive a fork.
        items: its arguments.
        desc: what the bar is called.
        unit: what an item is called.
        processes: how many work; 1 works in this one; None is as many as there are cores, if
            there is enough to do.
    """
    if processes is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        processes = min(cores, len(items) // _ITEMS_A_PROCESS)
    bar = functools.partial(tqdm, total=len(items), desc=desc, unit=unit)
    if processes <= 1:
        yield from bar(map(function, items))
        return
    # Forked processes start at once and ask no `if __name__ == "__main__"` of the caller's script.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from bar(pool.map(function, items, chunksize=8))
