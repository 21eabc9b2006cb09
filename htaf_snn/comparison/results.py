"""The results of a comparison in one file, which is whole at any time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from ..files import write_whole
from .contender import Run, from_json, to_json
from .run import GO_ON, Task

FILE = "results.json"


class Trial(TypedDict):
    """A learning rate that was tried on the first seed.

    ``val_accuracy`` is that of the exact network on validation, None where training diverged.
    """

    data: str
    spike: str
    learning_rate: float
    val_accuracy: float | None


@dataclass
class Results:
    """The runs and the trials of a folder's ``results.json``.

    Attributes:
        command: what a reader types to repeat the comparison.
        runs: by the names of their tasks.
        trials: by the names of their tasks.
    """

    command: str = ""
    runs: dict[str, Run] = field(default_factory=dict)
    trials: dict[str, Trial] = field(default_factory=dict)

    def add(self, name: str, run: Run) -> None:
        """Adds a run, in place of one of the same data set, contender and seed."""
        key = (run.data, run.spike, run.seed)
        kept = {n: r for n, r in self.runs.items() if (r.data, r.spike, r.seed) != key}
        self.runs = kept | {name: run}

    def put_first(self, names: Iterable[str]) -> None:
        """Orders the runs: those named, as far as they are there, then the others."""
        self.runs = {name: self.runs[name] for name in names if name in self.runs} | self.runs

    def has_like(self, task: Task) -> bool:
        """Returns True if there is a run of the task's data set, contender and seed."""
        key = (task.title, task.contender, task.seed)
        return any((run.data, run.spike, run.seed) == key for run in self.runs.values())

    def write(self, folder: Path) -> None:
        """Writes ``results.json``, a line a run and a trial."""
        parts: dict[str, dict[str, Any]] = {
            "runs": {name: to_json(run) for name, run in self.runs.items()},
            "trials": dict(sorted(self.trials.items())),
        }
        text = f'{{"command": {json.dumps(self.command)}'
        for key, entries in parts.items():
            lines = ",\n".join(f"{json.dumps(n)}: {json.dumps(e)}" for n, e in entries.items())
            text += f',\n"{key}": {{\n{lines}\n}}'
        write_whole(folder / FILE, lambda partial: partial.write_text(f"{text}}}\n"), GO_ON)


def read_results(folder: Path) -> Results:
    """Reads what `Results.write` wrote; empty if there is no file.

    Raises:
        ValueError: the file can't be read as such.
    """
    path = folder / FILE
    if not path.exists():
        return Results()
    try:
        content = json.loads(path.read_text())
        runs = {name: from_json(record) for name, record in content["runs"].items()}
        return Results(content["command"], runs, content["trials"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no record of htaf-snn compare: {error}") from error
