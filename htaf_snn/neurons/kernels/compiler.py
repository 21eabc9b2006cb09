"""Compiling kernels with the system's C++ compiler, once, into a cache of the user's own."""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ...files import cache_folder, others_can_change, write_whole

_LONGEST = 120.0  # seconds of a compile, which takes about one
_OTHER_FOLDER = "name another folder in the environment variable HTAF_SNN_CACHE"
_CANDIDATES = ("c++", "g++", "clang++")
# Without -ffast-math: NaN and infinity keep their meaning.
_FLAGS = (
    "-std=c++14",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
)


class BackendUnavailableError(RuntimeError):
    """A backend cannot run here, or not this neuron; the message names the reason and remedy."""


@dataclass(frozen=True)
class Compiler:
    """A working C++ compiler: its path, its version's first line, and the flags that it gets.

    The path is a launcher's, such as ccache's, if ``CXX`` names one; the compiler is then the
    first of the flags. Options in ``CXX`` come last.
    """

    path: str
    version: str
    flags: tuple[str, ...]


def kernel_folder() -> Path:
    """Returns the folder of compiled kernels."""
    return cache_folder() / "kernels"


@functools.cache
def find_compiler() -> Compiler:
    """The compiler that ``CXX`` names, else the first of c++, g++ and clang++.

    Raises:
        BackendUnavailableError: there is none, or it does not run; or this is Windows.
    """
    if os.name == "nt":
        raise BackendUnavailableError(
            "no kernels are compiled on Windows; use the backend torch, or Linux under WSL"
        )
    try:
        chosen = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise BackendUnavailableError(f"the environment variable CXX: {error}") from error
    candidates = chosen[:1] or _CANDIDATES
    path = next((found for name in candidates if (found := shutil.which(name))), None)
    if path is None:
        raise BackendUnavailableError(
            f"no C++ compiler: none of {', '.join(candidates)} is on the PATH; install one, for "
            "example with 'apt install g++', or name it in the environment variable CXX"
        )
    done = _run([path, *chosen[1:], "--version"], 60)
    if done.returncode:
        raise BackendUnavailableError(
            f"the C++ compiler {path} does not run: {done.stderr.strip()}; "
            "name another in the environment variable CXX"
        )
    version = done.stdout.partition("\n")[0]
    openmp = _openmp([path, *chosen[1:]]) if "clang" in version else ("-fopenmp",)
    given = next((i for i, part in enumerate(chosen) if part.startswith("-")), len(chosen))
    flags: tuple[str, ...] = (*chosen[1:given], *_FLAGS, *openmp)
    if "avx512f" in _cpu_features():
        flags += ("-mprefer-vector-width=512",)
    return Compiler(path, version, (*flags, *chosen[given:]))  # its options win over ours


def check_toolchain() -> None:
    """Checks that there is a compiler and a folder for what it makes, each once a process.

    Raises:
        BackendUnavailableError: as `find_compiler`, or a cache folder that can't be written or
            that others can write to.
    """
    find_compiler()
    _check_folder(kernel_folder())


def _openmp(compiler: Sequence[str]) -> tuple[str, ...]:
    """The flag for threads and vectors, or vectors alone: Apple's clang has no threads."""
    for flag in ("-fopenmp", "-fopenmp-simd"):
        done = _run([*compiler, flag, "-fsyntax-only", "-x", "c++", os.devnull], _LONGEST)
        if not done.returncode:
            return (flag,)
    return ()


def load_library(source: str) -> ctypes.CDLL:
    """The shared library of ``source``, loaded.

    Raises:
        BackendUnavailableError: as `compile_library`, or what was compiled just now does not load.
    """
    path = compile_library(source)
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # as where the cache was made on a system with another C library
        path.unlink(missing_ok=True)
    try:
        return ctypes.CDLL(str(compile_library(source)))
    except OSError as error:
        raise BackendUnavailableError(
            f"the kernel {path} does not load: {error}; {_OTHER_FOLDER}, or another compiler in CXX"
        ) from error


def compile_library(source: str) -> Path:
    """The shared library of ``source``, compiled now or taken from the cache.

    The name in the cache is a hash of the source, the flags, the compiler and the processor; the
    file appears whole or not at all, and its content is checked before it is used. The folder is
    the user's alone.

    Raises:
        BackendUnavailableError: no compiler, a compiler that fails or takes too long, or a cache
            folder that can't be written or that others can write to.
    """
    compiler = find_compiler()
    key = hashlib.sha256(
        "\0".join([source, compiler.version, *compiler.flags, _cpu_features()]).encode()
    ).hexdigest()[:32]
    folder = kernel_folder()
    library, checksum = folder / f"{key}.so", folder / f"{key}.sha256"
    with _private(folder):
        if not _intact(library, checksum):
            with FileLock(folder / f"{key}.lock", timeout=2 * _LONGEST):
                if not _intact(library, checksum):
                    made = _compile(compiler, source)
                    write_whole(library, lambda path: path.write_bytes(made))
                    sum_ = hashlib.sha256(made).hexdigest()
                    write_whole(checksum, lambda path: path.write_text(sum_))
    return library


def _compile(compiler: Compiler, source: str) -> bytes:
    """The bytes of a shared library."""
    with tempfile.TemporaryDirectory(prefix="htaf_snn-") as work:
        text, made = Path(work, "kernel.cpp"), Path(work, "kernel.so")
        text.write_text(source, encoding="utf-8")
        done = _run([compiler.path, *compiler.flags, str(text), "-o", str(made)], _LONGEST)
        if done.returncode or not made.is_file():
            lines = [line for line in done.stderr.splitlines() if "error" in line]
            report = "\n".join(lines[:5]) or done.stderr.strip()[-500:] or "no file"
            raise BackendUnavailableError(f"{compiler.path} could not compile a kernel:\n{report}")
        return made.read_bytes()


def _run(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Runs a compiler with all that it starts, which ends with it."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            encoding="utf-8", errors="replace", start_new_session=True,
        )  # fmt: skip
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendUnavailableError(
            f"the C++ compiler {command[0]} does not run: {error}; name another in the environment "
            "variable CXX"
        ) from error
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _intact(library: Path, checksum: Path) -> bool:
    try:
        return hashlib.sha256(library.read_bytes()).hexdigest().encode() == checksum.read_bytes()
    except FileNotFoundError:
        return False


@functools.cache
def _check_folder(folder: Path) -> None:
    with _private(folder):
        pass


@contextlib.contextmanager
def _private(folder: Path) -> Iterator[None]:
    """Makes the kernels' folder, the user's alone, and explains what fails in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{folder} is not yours to write")
        if others_can_change(folder):
            raise BackendUnavailableError(
                f"others can write to the kernel cache {folder}; nothing is loaded from it. Remove "
                f"it, with 'rm -r {folder}', or {_OTHER_FOLDER}"
            )
        yield
    except (OSError, Timeout) as error:
        raise BackendUnavailableError(
            f"the kernel cache {folder} can't be made or written: {error}; {_OTHER_FOLDER}"
        ) from error


@functools.cache
def _cpu_features() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return " ".join(sorted(line.partition(":")[2].split()))
    except OSError:
        pass  # not Linux
    return f"{platform.machine()} {platform.processor()}"
