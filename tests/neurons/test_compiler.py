"""The kernel cache: who may write into it, and what a compiler, a disk or a kill can do to it."""

from __future__ import annotations

import ctypes
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

import htaf_snn
from htaf_snn.neurons import BackendUnavailableError
from htaf_snn.neurons.kernels import compiler
from htaf_snn.neurons.kernels.compiler import compile_library, find_compiler, load_library

SOURCE = 'extern "C" int answer() { return 42; }\n'


@pytest.fixture(autouse=True)
def kernels(own_cache: Path) -> Iterator[Path]:
    """The folder of the kernels, not made yet; and no compiler remembered."""
    find_compiler.cache_clear()
    yield own_cache / "kernels"
    find_compiler.cache_clear()


def loaded() -> ctypes.CDLL:
    return load_library(SOURCE)


def script(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that is a shell script, in ``CXX``."""
    path = folder / "c++"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    return path


def test_a_folder_that_others_can_write_to_is_to_be_removed(kernels: Path) -> None:
    kernels.mkdir()
    kernels.chmod(0o770)
    with pytest.raises(BackendUnavailableError, match=r"others can write to.*rm -r"):
        loaded()
    assert not list(kernels.iterdir())


@pytest.mark.parametrize("damage", ["rubbish sum", "not a library"])
def test_what_is_not_whole_is_made_anew(damage: str, kernels: Path) -> None:
    path = compile_library(SOURCE)
    checksum = path.with_suffix(".sha256")
    if damage == "rubbish sum":
        checksum.write_bytes(b"\xff\xfe\x00")
    else:
        path.write_bytes(b"no library")
        checksum.write_text(hashlib.sha256(b"no library").hexdigest())
    assert loaded().answer() == 42


def test_a_compiler_that_makes_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 'for f; do out=$f; done; echo rubbish > "$out"'
    script(tmp_path, f'[ "$1" = --version ] && echo fake && exit 0\n{writes}', monkeypatch)
    with pytest.raises(BackendUnavailableError, match=r"does not load: .*; name another folder"):
        loaded()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('printf "\\377\\376 error \\377" >&2; exit 1', "could not compile a kernel"),
        (
            'printf "In file a.h\n a.cpp:1: error: x is unknown\n" >&2; exit 1',
            r"could not compile a kernel.*\n a\.cpp:1: error: x is unknown$",
        ),
        ("exit 0", "no file"),
        ("kill -9 $$", "could not compile a kernel"),
    ],
    ids=["undecodable", "lines", "no file", "killed"],
)
def test_compilers_that_fail(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, f'[ "$1" = --version ] && echo fake && exit 0\n{text}', monkeypatch)
    with pytest.raises(BackendUnavailableError, match=message):
        loaded()


def test_a_compiler_that_hangs_is_ended_with_what_it_started(
    kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child"
    script(
        tmp_path,
        f'[ "$1" = --version ] && echo fake && exit 0\nsleep 300 & echo $! > {child}\nwait',
        monkeypatch,
    )
    monkeypatch.setattr(compiler, "_LONGEST", 0.5)
    start = time.monotonic()
    with pytest.raises(BackendUnavailableError, match=r"timed out after 0\.5 seconds"):
        loaded()
    assert time.monotonic() - start < 20
    process = Path("/proc") / child.read_text().strip() / "status"
    assert not process.exists() or "zombie" in process.read_text()
    assert [path.suffix for path in kernels.iterdir()] in ([], [".lock"])


def test_a_full_disk(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(BackendUnavailableError, match="No space left on device; name another"):
        loaded()


def test_a_launcher_before_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = find_compiler().path
    find_compiler.cache_clear()
    launcher = script(tmp_path, f'echo "$1" >> {tmp_path / "asked"}\nexec "$@"', monkeypatch)
    monkeypatch.setenv("CXX", f"{launcher} {real}")
    assert loaded().answer() == 42
    assert (tmp_path / "asked").read_text().splitlines() == [real, real]


def test_options_of_cxx_win(monkeypatch: pytest.MonkeyPatch) -> None:
    find_compiler.cache_clear()
    monkeypatch.setenv("CXX", "c++ -O0 -DX=1")
    assert find_compiler().flags[-2:] == ("-O0", "-DX=1")


def test_a_neuron_looks_at_the_folder_once(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(compiler, "others_can_change", lambda f: seen.append(f) or False)  # type: ignore[func-returns-value]
    for _ in range(3):
        htaf_snn.LIFNode(backend="cpu")
    assert seen == [kernels]


def test_a_compiler_without_threads(
    kernels: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As Apple's clang is."""

    class Decaying(htaf_snn.Neuron):
        states: ClassVar = {"v": 0.0}

        def step(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            h = 0.6875 * v + x
            return self.surrogate_function(h - self.v_threshold), h

    version = '[ "$1" = --version ] && echo "Apple clang version 16.0.0" && exit 0'
    refuses = 'for f; do test "$f" != -fopenmp || { echo unsupported >&2; exit 1; }; done'
    script(tmp_path, f'{version}\n{refuses}\nexec g++ "$@"', monkeypatch)
    assert {"-fopenmp", "-fopenmp-simd"} & set(find_compiler().flags) == {"-fopenmp-simd"}
    x = torch.randn(4, 3, 5)
    fused, reference = (
        Decaying(surrogate_function=htaf_snn.HTAFSpike(), step_mode="m", backend=backend)(x)
        for backend in ("cpu", "torch")
    )
    torch.testing.assert_close(fused, reference)
    assert list(kernels.glob("*.so"))
