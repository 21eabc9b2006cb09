"""The user's cache folder, and building in it what is built once."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock


def cache_folder() -> Path:
    """Where data built by this library lies: ``$HTAF_SNN_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("HTAF_SNN_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("htaf-snn")


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
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(target.name + ".lock")):
        if target.is_dir():
            return target
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
