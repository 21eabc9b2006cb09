"""The user's cache folder, and files that are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Where what this library builds lies: ``$HTAF_SNN_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("HTAF_SNN_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("htaf-snn")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets ``write`` fill a file beside ``path``, which takes its place when it is complete.

    Raises:
        OSError: it can't be written; what was at ``path`` is still there.
    """
    for stale in path.parent.glob(f".{path.name}.partial-*"):
        stale.unlink(missing_ok=True)  # of a process that was killed
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        write(partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
