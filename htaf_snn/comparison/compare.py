"""Training the same network with every contender, under the same conditions."""

from __future__ import annotations

import functools
import logging
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..arguments import in_range
from ..checkpoint_io import check_writable
from ..data import SpikingDataModule
from ..extras import need
from ..files import explained, only_writer
from ..training.finite import DivergedError
from .contender import Run
from .results import Results, Trial, read_results
from .run import GO_ON, Task, run, train
from .study import Study
from .tables import overview
from .work import work

_logger = logging.getLogger(__name__)


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
        for task in study.tasks()[: len(study.contenders)]:
            task.build()
    check_writable(out / "checkpoints")
    results.command = command
    with only_writer(out), explained(out, GO_ON):
        return _Comparison(results, out.resolve(), workers, ray_address).runs_of(studies)


@dataclass(frozen=True)
class _Turn:
    """A task and when it comes: round by round, contender by contender, over all studies."""

    round: int  # the seed's, or the learning rate's, place
    contender: int
    task: Task


class _Comparison:
    """Tasks being done, one after the other or side by side, and what they found."""

    def __init__(self, results: Results, out: Path, workers: int, ray_address: str | None) -> None:
        self.results, self.out = results, out
        self.workers, self.ray_address = workers, ray_address
        self.seconds: dict[str, list[float]] = {}  # that each data set's tasks took
        for made in results.runs.values():
            self.seconds.setdefault(made.data, []).append(made.seconds)

    def runs_of(self, studies: Sequence[Study]) -> list[Run]:
        trials = [
            _Turn(i, place, task)
            for study in studies
            for place, contender in enumerate(study.contenders)
            for i, task in enumerate(study.candidates(contender))
            if task.name not in self.results.trials
        ]
        ahead = Counter(turn.task.title for turn in trials)
        for study in studies:
            ahead[study.name] += sum(not self.results.has_like(task) for task in study.tasks())
        for turn, accuracy in self._do(_validated, trials, ahead):
            task = turn.task
            rate = task.model.learning_rate
            self.results.trials[task.name] = Trial(
                data=task.title, spike=task.contender, learning_rate=rate, val_accuracy=accuracy
            )
            self.results.write(self.out)
        turns = [
            _Turn(
                list(study.seeds).index(task.seed),
                list(study.contenders).index(task.contender),
                self._with_best(task, study.candidates(task.contender)),
            )
            for study in studies
            for task in study.tasks()
        ]
        missing = [turn for turn in turns if turn.task.name not in self.results.runs]
        left = Counter(turn.round for turn in missing)
        make = functools.partial(_tested, checkpoints=self.out / "checkpoints")
        for turn, found in self._do(make, missing, Counter(t.task.title for t in missing)):
            if found is not None:
                self.results.add(turn.task.name, found)
                self.results.put_first(turn.task.name for turn in turns)
                self.results.write(self.out)
            left[turn.round] -= 1
            if not left[turn.round]:
                _logger.info("%s", overview(self._made(turns)))
        lines = [
            f"{turn.task.label}: {concern}"
            for turn in turns
            if turn.task.name in self.results.runs
            for concern in self.results.runs[turn.task.name].concerns
        ]
        if lines:
            _logger.warning("what to look at in these networks:\n  %s", "\n  ".join(lines))
        return self._made(turns)

    def _made(self, turns: Sequence[_Turn]) -> list[Run]:
        runs = self.results.runs
        return [runs[turn.task.name] for turn in turns if turn.task.name in runs]

    def _with_best(self, task: Task, candidates: Sequence[Task]) -> Task:
        """The task with the learning rate that was best on validation, the first of equal ones."""
        if not candidates:
            return task
        trials = [self.results.trials[one.name] for one in candidates]
        best = max(trials, key=lambda trial: trial["val_accuracy"] or -1.0)
        if best["val_accuracy"] is None:
            raise ValueError(
                f"{task.title}, {task.contender}: training diverged at every learning rate that "
                "was tried; give the contender a lower @learning_rate"
            )
        return replace(task, model=replace(task.model, learning_rate=best["learning_rate"]))

    def _do(
        self, function: Callable[..., Any], turns: Sequence[_Turn], ahead: Counter[str]
    ) -> Iterator[tuple[_Turn, Any]]:
        """Yields each turn with the function's result for its task, None if it diverged.

        Args:
            ahead: how many tasks of each data set there are to do, these and later ones.
        """
        ordered = sorted(turns, key=lambda turn: (turn.round, turn.contender))
        parallel = self.workers > 1 or self.ray_address is not None
        timed = functools.partial(_timed, functools.partial(function, show=not parallel))
        told = self._tell_time(ahead)
        done = work(timed, ordered, self.workers, self.ray_address)
        for turn, found, seconds in tqdm(
            done, "tasks", len(ordered), disable=None if ordered else True
        ):
            task = turn.task
            ahead[task.title] -= 1
            self.seconds.setdefault(task.title, []).append(seconds)
            if isinstance(found, str):
                _logger.error("%s is left out: %s", task.label, found)
            told = told or self._tell_time(ahead)
            yield turn, None if isinstance(found, str) else found

    def _tell_time(self, ahead: Counter[str]) -> bool:
        """Says how long the tasks ahead will take, if one of each data set has been timed."""
        if not ahead.total() or any(n and title not in self.seconds for title, n in ahead.items()):
            return False
        each = {title: statistics.median(self.seconds[title]) for title, n in ahead.items() if n}
        hours = sum(ahead[title] * each[title] for title in each) / 3600
        parts = ", ".join(f"{ahead[title]} of {title} ({each[title]:.0f} s each)" for title in each)
        if self.ray_address is None:
            _logger.info(
                "about %.1f hours left, %d at a time: %s", hours / self.workers, self.workers, parts
            )
        else:
            _logger.info("about %.1f hours of a core left: %s", hours, parts)
        return True


def _timed(function: Callable[[Task], Any], turn: _Turn) -> tuple[_Turn, Any, float]:
    """Returns the turn, the function's result or its error's text, and the seconds it took."""
    start = time.monotonic()
    try:
        found = function(turn.task)
    except DivergedError as error:
        found = str(error)
    return turn, found, time.monotonic() - start


def _validated(task: Task, show: bool) -> float:
    return train(task, show).validate()


def _tested(task: Task, show: bool, checkpoints: Path) -> Run:
    return run(task, checkpoints, show)
