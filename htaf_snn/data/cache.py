"""The user's cache folder, and building in it what is built once."""

import functools
import hashlib
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tqdm import tqdm

from ..files import explained, others_can_change

Item = TypeVar("Item")
Result = TypeVar("Result")

_ITEMS_A_PROCESS = 64  # fewer are not worth starting a process
_ITEMS_COPIED = 256  # at a time


def cache_key(*parts: object) -> str:
    """A folder name that changes when one of ``parts`` does."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def file_stamp(path: Path) -> tuple[str, int, int]:
    """Returns a file's path, size and time of change, for a `cache_key`."""
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Returns the folder ``target``, which ``build`` fills if it does not exist.

    ``build`` fills a temporary folder beside it, which takes its name when it is complete, so
    that ``target`` is never half-written. Of two processes that build at once, one waits for the
    other; what a killed one left behind is removed by the next.

    Raises:
        OSError: the folder is another user's, can't be written, or others can write to it.
    """
    folder, prefix = target.parent, f"{target.name}.partial-"
    remedy = "free space, or name another folder in the environment variable HTAF_SNN_CACHE"
    if not target.is_dir():
        with explained(folder, remedy):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(target.with_name(target.name + ".lock")):
                if not target.is_dir():  # another process may have built it meanwhile
                    for stale in folder.glob(f"{prefix}*"):
                        shutil.rmtree(stale)
                    with TemporaryDirectory(prefix=prefix, dir=folder) as partial:
                        build(Path(partial))
                        Path(partial).rename(target)
    if others_can_change(target):
        raise OSError(
            f"the cache {target} is another user's, or others can write to it, so nothing is read "
            f"from it; remove it, with 'rm -r {target}', or name another folder in the environment "
            "variable HTAF_SNN_CACHE"
        )
    return target


def map_in_order(
    function: Callable[[Item], Result], items: Sequence[Item], desc: str, unit: str
) -> Iterator[Result]:
    """``function`` of each item, in order, with a progress bar that ``desc`` and ``unit`` name.

    Its processes are forked: they start at once, where joblib's import this library anew, and ask
    no ``if __name__ == "__main__"`` of the caller's script. ``function`` is picklable, and free of
    torch's operators, whose threads don't survive a fork. There are as many processes as cores, if
    there is enough to do; else this one works.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    processes = min(cores, len(items) // _ITEMS_A_PROCESS)
    bar = functools.partial(tqdm, total=len(items), desc=desc, unit=unit, disable=None)
    if processes <= 1:
        yield from bar(map(function, items))
        return
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(processes, context, end_with_parent) as pool:
        yield from bar(pool.map(function, items, chunksize=8))


def end_with_parent() -> None:
    """Lets this process, a child, live no longer than its parent, even if that is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


class ArrayFile:
    """A .npy file of non-negative whole numbers, written item by item.

    It has the smallest of uint8, int16 and int32 (torch does little with uint16) that holds them
    all, and is written in order, so that a full disk is an error of a write. (A file that is
    mapped into memory and has no room on the disk ends the process by a signal.) ``shape`` is an
    item's.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape, self.length = path, shape, 0
        self._begin(np.dtype(np.uint8))

    def _begin(self, dtype: np.dtype[Any]) -> None:
        self.dtype, self._file = dtype, self.path.open("wb")
        self._write_header()

    def _write_header(self) -> None:
        # numpy pads the header so that the first side can grow in place
        descr, shape = np.lib.format.dtype_to_descr(self.dtype), (self.length, *self.shape)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def extend(self, items: NDArray[np.integer]) -> None:
        """Adds items [N, ...], and changes the type of the whole file where theirs is wider."""
        items = smallest(items)
        if items.itemsize > self.dtype.itemsize:
            self._widen(items.dtype)
        self._file.write(items.astype(self.dtype).tobytes())
        self.length += len(items)

    def _widen(self, dtype: np.dtype[Any]) -> None:
        self.close()
        narrow = self.path.rename(self.path.with_name("narrow.npy"))
        items = np.load(narrow, mmap_mode="r" if self.length else None)  # none can't be mapped
        self._begin(dtype)
        for start in range(0, len(items), _ITEMS_COPIED):
            self._file.write(items[start : start + _ITEMS_COPIED].astype(dtype).tobytes())
        narrow.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Writes the header anew, with the final length."""
        with self._file:
            self._file.seek(0)
            self._write_header()


def smallest(counts: NDArray[np.integer]) -> NDArray[np.integer]:
    """``counts`` as the smallest of uint8, int16 and int32 that holds them."""
    most = int(counts.max(initial=0))
    dtype = np.uint8 if most < 1 << 8 else np.int16 if most < 1 << 15 else np.int32
    return counts.astype(dtype, copy=False)
