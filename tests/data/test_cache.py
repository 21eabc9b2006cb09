"""The data cache: built once and whole, and not read where others can change it."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from htaf_snn.data.cache import build_once

FORK = multiprocessing.get_context("fork")


def build_slowly(target: Path, said: Path, seconds: float) -> None:
    """Builds in this process, and says in a file of its own how far it came."""
    log = said / str(os.getpid())

    def build(folder: Path) -> None:
        (folder / "a").write_text("1")
        log.write_text("half ")
        time.sleep(seconds)
        (folder / "b").write_text("2")

    build_once(target, build)
    with log.open("a") as file:
        file.write("done")


def test_two_processes_build_once(tmp_path: Path) -> None:
    target, said = tmp_path / "made", tmp_path / "said"
    said.mkdir()
    processes = [FORK.Process(target=build_slowly, args=(target, said, 1)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(p.read_text() for p in said.iterdir()) == ["done", "half done"]
    assert sorted(p.name for p in target.iterdir()) == ["a", "b"]


def test_a_killed_build_leaves_nothing_behind(tmp_path: Path) -> None:
    target, said = tmp_path / "made", tmp_path / "said"
    said.mkdir()
    process = FORK.Process(target=build_slowly, args=(target, said, 60))
    process.start()
    while not list(said.iterdir()):
        time.sleep(0.02)
    process.kill()
    process.join()
    assert not target.exists()
    build_once(target, lambda folder: (folder / "b").touch())
    assert [p.name for p in target.iterdir()] == ["b"]
    assert not list(tmp_path.glob("*.partial-*"))


def test_a_failing_build_leaves_nothing_behind(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "a").touch()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        build_once(tmp_path / "made", build)
    assert not (tmp_path / "made").exists() and not list(tmp_path.glob("*.partial-*"))


def test_a_folder_that_others_can_write_to_is_not_read(tmp_path: Path) -> None:
    target = tmp_path / "built"
    assert build_once(target, lambda partial: (partial / "x").touch()) == target
    assert build_once(target, lambda _: pytest.fail("it is built")) == target
    target.chmod(0o777)
    with pytest.raises(OSError, match=r"others can write to it.*rm -r"):
        build_once(target, lambda _: pytest.fail("it is built"))
