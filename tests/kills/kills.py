"""Kills a run at a random moment, looks at what it leaves, and goes on with it to the end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from htaf_snn.checkpoint_io import read_checkpoint
from htaf_snn.cli import main
from htaf_snn.comparison import read_results
from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.process import Stopped, stoppable
from tests.helpers import forked

_SMALL = ("--data=digits", "--data.T=2", "--data.batch_size=64", "--model.widths=[4]")
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
_DURABLE = ("seconds", "peak_memory_mib")  # what differs from run to run


@dataclass(frozen=True)
class Victim:
    """What is killed.

    Args:
        run: a run into a folder, with further options.
        resume: added to go on, by what a kill left in the folder.
        result: what must be the same in the end, by name.
    """

    run: Callable[..., object]
    resume: Callable[[Path], tuple[str, ...]]
    result: Callable[[Path], dict[str, Any]]


def _weights(out: Path) -> dict[str, Any]:
    state: dict[str, Any] = read_checkpoint(out / "checkpoints/last.ckpt")["state_dict"]
    return state


def _runs(out: Path) -> dict[str, Any]:
    return {
        name: {key: value for key, value in asdict(run).items() if key not in _DURABLE}
        for name, run in read_results(out).runs.items()
    }


def _frames(out: Path) -> dict[str, Any]:
    # Beside `out` is the cache; the folder of a set's frames is named after where its data lie.
    files = (path.relative_to(_cache(out)) for path in _cache(out).rglob("*"))
    return {
        "/".join(path.parts[:1] + path.parts[2:]): (_cache(out) / path).read_bytes()
        for path in sorted(files)
        if (_cache(out) / path).is_file() and path.suffix not in (".lock", ".so", ".sha256")
    }


def _cache(out: Path) -> Path:
    return out.with_name(f"{out.name}-cache")


def _build(_out: Path) -> None:
    try:
        with stoppable():
            SpikingDataModule(DataConfig("digits_events", T=4)).prepare_data()
    except Stopped as stopped:
        sys.exit(stopped.code)


def _run(name: str, out: Path, *more: str) -> None:
    VICTIMS[name].run(out, *more)


def _fit(workers: int) -> Victim:
    return Victim(
        lambda out, *more: main([
            "fit", *_SMALL, "--trainer.max_epochs=4", "--save_steps=5",
            "--trainer.enable_progress_bar=false", f"--data.num_workers={workers}", f"--out={out}",
            *more,
        ]),
        lambda out: (
            ("--ckpt_path=last",)
            if (out / "checkpoints/last.ckpt").exists()
            else ("--overwrite",)  # a best.ckpt, if it came between the two
        ),
        _weights,
    )  # fmt: skip


VICTIMS: dict[str, Victim] = {
    "fit": _fit(workers=1),
    "fit-0": _fit(workers=0),
    "fit-2": _fit(workers=2),
    "compare": Victim(
        lambda out: main([
            "compare", *_SMALL, "--spikes=htaf,atan", "--epochs=2", "--workers=2", f"--out={out}",
        ]),
        lambda _: (),
        _runs,
    ),
    "frames": Victim(_build, lambda _: (), _frames),
}  # fmt: skip


@dataclass(frozen=True)
class Kill:
    """One kill, and what was wrong after it; nothing, if ``wrong`` is empty."""

    victim: str
    number: signal.Signals
    seconds: float
    wrong: list[str]


class Kills:
    """Kills into a folder, against one uninterrupted run of each victim."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self._expected: dict[str, tuple[dict[str, Any], float]] = {}

    def expected(self, name: str) -> tuple[dict[str, Any], float]:
        """The result of the run that nothing interrupts, and how many seconds it takes."""
        if name not in self._expected:
            out = self.folder / f"{name}-whole"
            start = time.monotonic()
            process = self._start(name, out)
            process.join(600)
            if process.exitcode:
                raise RuntimeError(f"{name} fails without a kill: {self.log.read_text()}")
            self._expected[name] = VICTIMS[name].result(out), time.monotonic() - start
        return self._expected[name]

    def kill(self, name: str, draw: random.Random) -> Kill:
        """Kills a run of ``name`` at a random moment and goes on with it."""
        expected, whole = self.expected(name)
        number, seconds = draw.choice(_SIGNALS), draw.uniform(0.2 * whole, whole)
        out = self.folder / f"{name}-killed"
        wrong = []
        process = self._start(name, out)
        assert process.pid is not None
        process.join(seconds)
        ended = not process.is_alive()
        if not ended:
            os.kill(process.pid, number)
        process.join(15)
        if process.is_alive():
            wrong.append("did not end within 15 s")
            process.kill()
            process.join()
        # A signal that comes before main or after it is Python's own affair.
        if not ended and process.exitcode not in (_CODES[number], -number, 0):
            wrong.append(f"exit code {process.exitcode}: {self.log.read_text()[-300:]}")
        if orphans := _left(process.pid):
            wrong.append(f"orphans: {orphans}")
        process = self._start(name, out, *VICTIMS[name].resume(out))
        process.join(600)
        if process.exitcode:
            said = self.log.read_text()[-300:]
            wrong.append(f"going on fails with {process.exitcode}: {said}")
        elif not _equal(VICTIMS[name].result(out), expected):
            wrong.append("the result differs")
        leftovers = [
            path.name
            for folder in (out, _cache(out))
            for path in folder.rglob("*")
            if "partial" in path.name or path.name == ".lock" or path.name.startswith(".writable-")
        ]
        if leftovers:
            wrong.append(f"leftovers: {leftovers}")
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(_cache(out), ignore_errors=True)
        return Kill(name, number, seconds, wrong)

    def _start(self, name: str, out: Path, *resume: str) -> BaseProcess:
        shared = os.environ.get("HTAF_SNN_CACHE", str(self.folder / "cache"))
        cache = _cache(out) if name == "frames" else shared
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HTAF_SNN_CACHE", str(cache))
            return forked(self.log, _run, name, out, *resume)


def _left(session: int) -> list[str]:
    """Processes of a session that are still there 10 s after its leader ended."""
    for _ in range(100):
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append((process / "cmdline").read_text().replace("\0", " ")[:200])
            except OSError:
                continue
        if not found:
            return []
        time.sleep(0.1)
    return found


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)
