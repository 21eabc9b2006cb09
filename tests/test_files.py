"""Files that are whole or absent, and folders with one writer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from htaf_snn.files import only_writer, write_whole

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
