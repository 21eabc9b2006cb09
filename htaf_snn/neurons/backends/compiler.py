"""Compiling kernels with the system's C++ compiler, once, into a cache of the user's own."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from ...files import cache_folder
from .errors import BackendUnavailableError

_CANDIDATES = ("c++", "g++", "clang++")
# Without -ffast-math: NaN and infinity keep their meaning.
_FLAGS = (
    "-std=c++14",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-fPIC",
    "-shared",
)


@dataclass(frozen=True)
class Compiler:
    """A working C++ compiler: its path, its version's first line, and the flags that it gets."""

    path: str
    version: str
    flags: tuple[str, ...]


def kernel_folder() -> Path:
    """Where compiled kernels lie."""
    return cache_folder() / "kernels"


@functools.cache
def find_compiler() -> Compiler:
    """The compiler that ``CXX`` names, else the first of c++, g++ and clang++.

    Raises:
        BackendUnavailableError: there is none, or it does not run.
    """
    chosen = os.environ.get("CXX")
    candidates = (chosen,) if chosen else _CANDIDATES
    path = next((found for name in candidates if (found := shutil.which(name))), None)
    if path is None:
        raise BackendUnavailableError(
            f"no C++ compiler: none of {', '.join(candidates)} is on the PATH; install one, for "
            "example with 'apt install g++', or name it in the environment variable CXX"
        )
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendUnavailableError(f"the C++ compiler {path} does not run: {error}") from error
    if done.returncode:
        raise BackendUnavailableError(
            f"the C++ compiler {path} does not run: {done.stderr.strip()}; "
            "name another in the environment variable CXX"
        )
    flags: tuple[str, ...] = _FLAGS
    if "avx512f" in _cpu_features():
        flags += ("-mprefer-vector-width=512",)
    return Compiler(path, done.stdout.partition("\n")[0], flags)


def compile_library(source: str) -> Path:
    """The shared library of ``source``, compiled now or taken from the cache.

    The name in the cache is a hash of the source, the flags, the compiler and the processor; the
    file appears whole or not at all, and its content is checked before it is used.

    Raises:
        BackendUnavailableError: no compiler, a compiler that fails, or a cache folder that can't
            be written or that others can write to.
    """
    compiler = find_compiler()
    key = hashlib.sha256(
        "\0".join([source, compiler.version, *compiler.flags, _cpu_features()]).encode()
    ).hexdigest()[:32]
    folder = kernel_folder()
    _make_private(folder)
    library, checksum = folder / f"{key}.so", folder / f"{key}.sha256"
    if not _intact(library, checksum):
        with FileLock(folder / f"{key}.lock"):
            if not _intact(library, checksum):
                _compile(compiler, source, library, checksum)
    return library


def _compile(compiler: Compiler, source: str, library: Path, checksum: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=f"{library.stem}.partial-") as work:
        text, made = Path(work, "kernel.cpp"), Path(work, "kernel.so")
        text.write_text(source, encoding="utf-8")
        done = subprocess.run(
            [compiler.path, *compiler.flags, str(text), "-o", str(made)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise BackendUnavailableError(
                f"{compiler.path} could not compile a kernel:\n{_errors(done.stderr)}"
            )
        sum_ = Path(work, "sum")
        sum_.write_text(hashlib.sha256(made.read_bytes()).hexdigest())
        made.replace(library)
        sum_.replace(checksum)


def _errors(report: str) -> str:
    lines = [line for line in report.splitlines() if "error" in line]
    return "\n".join(lines[:5]) or report.strip()[-500:]


def _intact(library: Path, checksum: Path) -> bool:
    try:
        return hashlib.sha256(library.read_bytes()).hexdigest() == checksum.read_text()
    except FileNotFoundError:
        return False


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        raise BackendUnavailableError(
            f"the kernel cache {folder} can't be made: {error}; name another folder in the "
            "environment variable HTAF_SNN_CACHE"
        ) from error
    if not writable:
        raise BackendUnavailableError(
            f"the kernel cache {folder} can't be written; name another folder in the environment "
            "variable HTAF_SNN_CACHE"
        )
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise BackendUnavailableError(
            f"others can write to the kernel cache {folder}, so nothing is loaded from it; "
            f"run 'chmod go-w {folder}', or name another folder in HTAF_SNN_CACHE"
        )


@functools.cache
def _cpu_features() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return " ".join(sorted(line.partition(":")[2].split()))
    except OSError:
        pass  # not Linux
    return f"{platform.machine()} {platform.processor()}"
