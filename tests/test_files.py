"""Files that are whole or absent, and folders with one writer."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from htaf_snn.comparison.results import Results
from htaf_snn.data.cache import build_once
from htaf_snn.files import explained, only_writer, write_figure, write_whole
from htaf_snn.training.predict import Prediction, write_json

HOLDING = """
import sys, time
from pathlib import Path
from htaf_snn.files import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_what_another_process_is_writing_stays_and_what_a_dead_one_left_goes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    dead = tmp_path / f".file.partial-{done.stdout.strip()}"
    living = tmp_path / f".file.partial-{os.getppid()}"
    for partial in (dead, living):
        partial.write_text("x")
    write_whole(path, lambda partial: partial.write_text("whole"))
    assert path.read_text() == "whole"
    assert living.exists() and not dead.exists()


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Within it a larger file can't be written, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def _build(folder: Path) -> None:
    with (folder / "frames").open("wb") as file:
        file.write(bytes(100_000))


def _figure() -> Figure:
    figure = Figure()
    figure.subplots().imshow(np.random.default_rng(0).random((200, 200)))
    return figure


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.csv", lambda p: write_whole(p, lambda q: q.write_bytes(bytes(100_000))), "free space"),
        ("a.ckpt", lambda p: write_whole(p, lambda q: torch.save(torch.ones(99_999), q)), "free"),
        ("a.png", lambda p: write_figure(_figure(), p, dpi=300), "free space"),
        ("a", lambda p: build_once(p / "b", _build), "environment variable HTAF_SNN_CACHE"),
        (
            "results.json",
            lambda p: Results(command="x" * 100_000).write(p.parent),
            "the runs in results.json are saved, and the same command goes on",
        ),
        (
            "a.json",
            lambda p: write_json(p, [Prediction(p, error="x" * 100_000)], []),
            "free space",
        ),
    ],
)
def test_a_full_disk_is_told_with_the_path_and_the_remedy(
    name: str, write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    with (
        files_of_at_most(20_000),
        pytest.raises(OSError, match=f"{path} could not be written: .*{message}"),
    ):
        write(path)
    assert not path.is_file() and not [p for p in tmp_path.rglob("*") if "partial" in p.name]


def test_a_cache_that_is_no_folder_is_told_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/frames could not .*variable HTAF_SNN_CACHE"):
        build_once(tmp_path / "file" / "frames" / "key", _build)


def test_what_is_wrong_with_another_file_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such file.*none'"), explained(tmp_path, "no"):
        (tmp_path / "none").read_text()
    other = PermissionError(errno.EACCES, "Permission denied", "/elsewhere")
    with pytest.raises(PermissionError) as raised, explained(tmp_path, "no"):
        raise other
    assert raised.value is other


def test_a_folder_has_one_writer_and_a_killed_one_is_none(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with (
            pytest.raises(OSError, match=r"another process is writing into .*--out"),
            only_writer(tmp_path),
        ):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with only_writer(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert not list(tmp_path.iterdir())
