"""The user's cache folder, files that are whole or absent, and folders with one writer."""

import contextlib
import errno
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import platformdirs


def cache_folder() -> Path:
    """Returns the cache folder: ``$HTAF_SNN_CACHE``, else one in the user's cache folder."""
    chosen = os.environ.get("HTAF_SNN_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("htaf-snn")


def is_hidden(name: str) -> bool:
    """Returns True for names of hidden files and folders."""
    return name.startswith(".") or name == "__MACOSX"


def others_can_change(path: Path) -> bool:
    """Returns True if ``path`` itself is another user's, or others may write; not on Windows."""
    if os.name == "nt":
        return False
    status = path.lstat()
    loose = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISLNK(status.st_mode)
    return status.st_uid != os.getuid() or bool(loose)


_UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.ENOTDIR, errno.EEXIST,
}  # fmt: skip


@contextlib.contextmanager
def explained(path: Path, remedy: str) -> Iterator[None]:
    """Adds the path of a file or folder, and a remedy, to an OSError within the block.

    Python's own error of a full disk names no file. Errors about other files pass as they are.
    """
    try:
        yield
    except OSError as error:
        about = path if error.filename is None else Path(str(error.filename))
        if error.errno not in _UNWRITABLE or not (
            about.is_relative_to(path) or path.is_relative_to(about)
        ):
            raise
        raise OSError(f"{path} could not be written: {error.strerror}; {remedy}") from error


def write_whole(
    path: Path, write: Callable[[Path], object], remedy: str = "free space, and do it again"
) -> None:
    """Lets ``write`` fill a file beside ``path``, which takes its place when it is complete.

    Raises:
        OSError: it can't be written; what was at ``path`` is still there.
    """
    for stale in path.parent.glob(f".{path.name}.partial-*"):
        if not is_alive(stale.name.rpartition("-")[2]):
            stale.unlink(missing_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        write(partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError when it fails
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        kept = "; the last one written is whole" if path.exists() else ""
        raise OSError(f"{path} could not be written: {reason}{kept}; {remedy}") from error
    finally:
        partial.unlink(missing_ok=True)


def is_alive(process: str) -> bool:
    """Returns True if there is a process of that number on this machine."""
    try:
        os.kill(int(process), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        pass  # another user's
    return True


def refuse_existing(paths: Iterable[Path], overwrite: bool) -> None:
    """Raises a FileExistsError for the first file that is there, unless ``overwrite``."""
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExistsError(
                f"{path} is there already; choose another place with --out, or replace it with "
                "--overwrite"
            )


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keeps other processes of this library from writing into ``folder`` meanwhile.

    The lock is the process's own: its children do not hold it, and it ends with the process,
    however that ends. The file that carries it is removed at the end.

    Raises:
        OSError: another process has it.
    """
    path = folder / ".lock"
    with path.open("a") as file:
        try:
            if os.name == "nt":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            else:
                import fcntl

                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path_is_locked = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except OSError:
            path_is_locked = False
        if not path_is_locked:  # or its holder removed it, and another made it anew
            raise OSError(
                f"another process is writing into {folder}; wait until it has ended, or choose "
                "another folder with --out"
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def write_figure(figure: Any, path: Path, **options: Any) -> None:
    """Writes a figure of Matplotlib's in the format of the path's suffix, whole or not at all."""
    drawn = io.BytesIO()  # Pillow hides a full disk behind an error of its own
    figure.savefig(drawn, format=path.suffix[1:] or "png", **options)
    write_whole(path, lambda partial: partial.write_bytes(drawn.getvalue()))


def save_figure(figure: Any, folder: Path, name: str) -> list[Path]:
    """Writes ``name``.png and ``name``.pdf into ``folder``, each whole or not at all."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once for all formats
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    write_figure(figure, png, dpi=300)
    write_figure(figure, pdf, metadata={"CreationDate": None})
    return [png, pdf]
