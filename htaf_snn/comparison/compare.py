"""Training the same network with every contender, under the same conditions."""

from __future__ import annotations

import functools
import logging
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..arguments import in_range
from ..checkpoint_io import check_writable
from ..data import SpikingDataModule
from ..extras import need
from ..files import explained, only_writer
from ..training.concerns import DivergedError
from .results import GO_ON, Results, Run, Trial, read_results
from .run import Task, run, train, validate
from .study import Study
from .tables import table
from .work import work

_logger = logging.getLogger(__name__)
# When a task comes (the places of its seed, or learning rate, and contender), and the task.
_Turn = tuple[tuple[int, int], Task]


def compare(
    studies: Sequence[Study],
    out: Path,
    workers: int = 1,
    ray_address: str | None = None,
    command: str = "",
) -> list[Run]:
    """Makes all runs of the studies that are not made yet.

    First each contender's learning rate is chosen on validation, where a study asks for it; then
    the runs are made seed by seed, over all studies. ``out/results.json`` is written after every
    run and trial, so a comparison that was interrupted goes on where it stopped; the networks are
    in ``out/checkpoints``. After the first task of each data set and after each seed the log says
    how long the rest will take; after each seed also what was found so far. A run that diverges is
    told of, leaves no record, and is tried again the next time.

    Args:
        studies: what to compare.
        out: folder of the results.
        workers: runs at a time on this machine, in processes of their own if more than 1.
        ray_address: of a Ray cluster that shares ``out`` and the data.
        command: what a reader types to repeat the comparison.

    Returns:
        the runs in the studies' order, but those that diverged.

    Raises:
        ValueError: a number out of its range, two studies of one title, a contender's option
            that the network refuses, or a ``results.json`` of another kind; before anything is
            trained. Or all learning rates of a contender diverged.
        ImportError: a Ray cluster without Ray; likewise.
    """
    in_range("workers", workers, 1, 1e4)
    if ray_address is not None:
        need("ray")
    titles = [study.name for study in studies]
    if len(set(titles)) < len(titles):
        raise ValueError(f"two studies have one title (={titles}); give each its own")
    results = read_results(out)
    for study in studies:
        SpikingDataModule(study.data).prepare_data()
        for task in study.first_tasks():
            task.build()
    check_writable(out / "checkpoints")
    results.command = command
    with only_writer(out), explained(out, GO_ON):
        comparison = _Comparison(studies, results, out.resolve(), workers, ray_address)
        comparison.tune()
        return comparison.run()


@dataclass
class _Comparison:
    """Tasks being done, one after the other or side by side, and what they found."""

    studies: Sequence[Study]
    results: Results
    out: Path
    workers: int
    ray_address: str | None
    seconds: dict[str, list[float]] = field(default_factory=dict)  # that a data set's tasks took

    def __post_init__(self) -> None:
        for made in self.results.runs.values():
            self.seconds.setdefault(made.data, []).append(made.seconds)

    def tune(self) -> None:
        """Tries the learning rates that were not tried yet."""
        turns = [
            ((number, place), candidate)
            for study in self.studies
            for place, task in enumerate(study.first_tasks())
            for number, candidate in enumerate(study.candidates(task.contender))
            if candidate.name not in self.results.trials
        ]
        made = {run.key for run in self.results.runs.values()}
        tasks = [task for study in self.studies for task in study.tasks()]
        later = Counter(task.title for task in tasks if task.key not in made)
        for (_, task), accuracy in self._do(turns, later):
            self.results.trials[task.name] = Trial(
                data=task.title,
                spike=task.contender,
                learning_rate=task.model.learning_rate,
                val_accuracy=accuracy,
            )
            self.results.write(self.out)

    def run(self) -> list[Run]:
        """Makes the runs that are not made yet; returns all, in the studies' order."""
        turns = [
            (divmod(number, len(study.contenders)), self._with_best_rate(task, study))
            for study in self.studies
            for number, task in enumerate(study.tasks())
        ]
        names = [task.name for _, task in turns]
        missing = [turn for turn in turns if turn[1].name not in self.results.runs]
        left = Counter(seed for (seed, _), _ in missing)
        for ((seed, _), task), found in self._do(missing, Counter(), self.out / "checkpoints"):
            if found is not None:
                self.results.add(task.name, found, names)
                self.results.write(self.out)
            left[seed] -= 1
            if not left[seed] and (made := self._made(names)):
                _logger.info("%s", table(made))
        runs = self._made(names)
        concerns = [f"{run.label}: {concern}" for run in runs for concern in run.concerns]
        if concerns:
            _logger.warning("what to look at in these networks:\n  %s", "\n  ".join(concerns))
        return runs

    def _made(self, names: Sequence[str]) -> list[Run]:
        return [self.results.runs[name] for name in names if name in self.results.runs]

    def _with_best_rate(self, task: Task, study: Study) -> Task:
        """The task with the learning rate that was best on validation, the first of equal ones."""
        trials = [self.results.trials[one.name] for one in study.candidates(task.contender)]
        if not trials:
            return task
        best = max(trials, key=lambda trial: trial["val_accuracy"] or -1.0)
        if best["val_accuracy"] is None:
            raise ValueError(
                f"{task.title}, {task.contender}: training diverged at every learning rate that "
                "was tried; give the contender a lower @learning_rate"
            )
        return replace(task, model=replace(task.model, learning_rate=best["learning_rate"]))

    def _do(
        self, turns: Sequence[_Turn], later: Counter[str], checkpoints: Path | None = None
    ) -> Iterator[tuple[_Turn, Any]]:
        """Yields each turn with what `_done` made of it, None if it diverged.

        Args:
            turns: in any order.
            later: tasks of each data set that come after these.
            checkpoints: where the networks go; None for a validation alone.
        """
        ordered = sorted(turns, key=lambda turn: turn[0])
        ahead = later + Counter(task.title for _, task in turns)
        told = self._tell_time(ahead)
        show = self.workers == 1 and self.ray_address is None
        done = functools.partial(_done, checkpoints=checkpoints, show=show)
        for turn, found, seconds in tqdm(
            work(done, ordered, self.workers, self.ray_address), "tasks", len(ordered),
            disable=None if ordered else True,
        ):  # fmt: skip
            task = turn[1]
            ahead[task.title] -= 1
            self.seconds.setdefault(task.title, []).append(seconds)
            diverged = isinstance(found, str)
            if diverged:
                _logger.error("%s is left out: %s", task.label, found)
            told = told or self._tell_time(ahead)
            yield turn, None if diverged else found

    def _tell_time(self, ahead: Counter[str]) -> bool:
        """Says how long the tasks ahead will take, if one of each data set has been timed."""
        left = {title: count for title, count in ahead.items() if count}
        if not left or not left.keys() <= self.seconds.keys():
            return False
        each = {title: statistics.median(self.seconds[title]) for title in left}
        hours = sum(count * each[title] for title, count in left.items()) / 3600
        parts = ", ".join(f"{n} of {title} ({each[title]:.0f} s each)" for title, n in left.items())
        if self.ray_address is None:
            _logger.info(
                "about %.1f hours left, %d at a time: %s", hours / self.workers, self.workers, parts
            )
        else:
            _logger.info("about %.1f hours of a core left: %s", hours, parts)
        return True


def _done(turn: _Turn, checkpoints: Path | None, show: bool) -> tuple[_Turn, Any, float]:
    """Returns the turn, its run or accuracy or why it diverged, and the seconds it took."""
    start = time.monotonic()
    found: Run | float | str
    try:
        if checkpoints is None:
            found = validate(train(turn[1], show)[0])
        else:
            found = run(turn[1], checkpoints, show)
    except DivergedError as error:
        found = str(error)
    return turn, found, time.monotonic() - start
