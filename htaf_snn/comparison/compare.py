"""Training the same network with every contender, under the same conditions: `htaf-snn compare`."""

import functools
import logging
import shlex
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..arguments import in_range
from ..checkpoint_io import check_writable
from ..data import DataConfig, SpikingDataModule
from ..extras import need
from ..files import explained, only_writer
from ..process import advising
from ..training import ModelConfig
from ..training.fit import default_out
from ..training.losses import DivergedError
from .report import report, table
from .results import GO_ON, Results, Run, Trial, read_results
from .run import run, train, validate, work
from .study import Study, Task, split_labels
from .study import preset as studies_of

_logger = logging.getLogger(__name__)
_Turn = tuple[int, int, Task]  # the places of its seed, or learning rate, and contender


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
    in ``out/checkpoints``. After the first task of each data set the log says how long the rest
    will take, after each seed what was found so far. A run that diverges is told of, leaves no
    record, and is tried again the next time.

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
            (number, place, candidate)
            for study in self.studies
            for place, task in enumerate(study.first_tasks())
            for number, candidate in enumerate(study.candidates(task.contender))
            if candidate.name not in self.results.trials
        ]
        made = {run.key for run in self.results.runs.values()}
        tasks = [task for study in self.studies for task in study.tasks()]
        later = Counter(task.title for task in tasks if task.key not in made)
        for (*_, task), accuracy in self._do(turns, later):
            rate = task.model.learning_rate
            self.results.trials[task.name] = Trial(
                data=task.title, spike=task.contender, learning_rate=rate, val_accuracy=accuracy
            )
            self.results.write(self.out)

    def run(self) -> list[Run]:
        """Makes the runs that are not made yet; returns all, in the studies' order."""
        turns = [
            (*divmod(number, len(study.contenders)), self._with_best_rate(task, study))
            for study in self.studies
            for number, task in enumerate(study.tasks())
        ]
        names = [task.name for *_, task in turns]
        missing = [turn for turn in turns if turn[2].name not in self.results.runs]
        left = Counter(seed for seed, *_ in missing)
        for (seed, _, task), found in self._do(missing, Counter(), self.out / "checkpoints"):
            if found is not None:
                self.results.add(task.name, found, names)
                self.results.write(self.out)
            left[seed] -= 1
            if not left[seed] and (made := self._made(names)):
                _logger.info("%s", table(made))
        runs = self._made(names)
        concerns = [f"{run.key}: {concern}" for run in runs for concern in run.concerns]
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

        ``later`` counts the tasks of each data set that come after these. The networks go to
        ``checkpoints``; None is a validation alone.
        """
        ahead = later + Counter(task.title for *_, task in turns)
        told = self._tell_time(ahead)
        show = self.workers == 1 and self.ray_address is None
        done = functools.partial(_done, checkpoints=checkpoints, show=show)
        ordered = sorted(turns, key=lambda turn: turn[:2])
        works = work(done, ordered, self.workers, self.ray_address)
        for turn, found, seconds in tqdm(
            works, "tasks", len(turns), disable=None if turns else True
        ):
            task = turn[2]
            ahead[task.title] -= 1
            self.seconds.setdefault(task.title, []).append(seconds)
            if isinstance(found, str):
                _logger.error("%s is left out: %s", task.key, found)
            told = told or self._tell_time(ahead)
            yield turn, None if isinstance(found, str) else found

    def _tell_time(self, ahead: Counter[str]) -> bool:
        """Says how long the tasks ahead will take, if one of each data set has been timed."""
        left = {title: count for title, count in ahead.items() if count}
        if not left or not left.keys() <= self.seconds.keys():
            return False
        each = {title: statistics.median(self.seconds[title]) for title in left}
        hours = sum(count * each[title] for title, count in left.items()) / 3600
        parts = ", ".join(f"{n} of {title} ({each[title]:.0f} s each)" for title, n in left.items())
        rest = f"about {hours / self.workers:.1f} hours left, {self.workers} at a time"
        if self.ray_address is not None:
            rest = f"about {hours:.1f} hours of a core left"
        _logger.info("%s: %s", rest, parts)
        return True


def _done(turn: _Turn, checkpoints: Path | None, show: bool) -> tuple[_Turn, Any, float]:
    """Returns the turn, its run or accuracy or why it diverged, and the seconds it took."""
    start, task = time.monotonic(), turn[2]
    found: Run | float | str
    try:
        found = run(task, checkpoints, show) if checkpoints else validate(train(task, show)[0])
    except DivergedError as error:
        found = str(error)
    return turn, found, time.monotonic() - start


_DEFAULTS: dict[str, Any] = {
    # HTAF and the scaled sigmoid, each hardened and as a surrogate, and the field's usual choice.
    "contenders": ["htaf", "sigmoid@hardening=[0,0.8]", "htaf:mode=hard", "sigmoid", "atan"],
    "seeds": [0],
    "epochs": 12,
}


def command(
    data: DataConfig = DataConfig(),
    model: ModelConfig = ModelConfig(),
    preset: Path | None = None,
    data_folder: Path | None = None,
    spikes: str | list[str] | None = None,
    seeds: str | int | list[int] | None = None,
    epochs: int | None = None,
    tune: int | None = None,
    workers: int = 1,
    ray_address: str | None = None,
    out: Path | None = None,
) -> str:
    """Trains the same network with several spike functions and compares them.

    Args:
        data: what is trained on.
        model: the network and its training, the same for all.
        preset: a YAML file of several data sets, each with its network and budget, as those in
            examples/presets; instead of the options of data and model.
        data_folder: where a preset's data are; $HTAF_SNN_DATA unless given.
        spikes: contenders, separated by commas: name[:parameter=value][@option=value], the option
            one of model's, or calibrate; htaf,atan,sigmoid, or the preset's, unless given.
        seeds: separated by commas, one run each; 0, or the preset's, unless given.
        epochs: budget of a run; 12, or the preset's, unless given.
        tune: learning rates tried for each contender, on the validation split; 0, or the preset's,
            unless given.
        workers: runs at a time, one core each.
        ray_address: of a Ray cluster that does the runs.
        out: folder of the results, where a comparison that is there goes on; runs/<time> unless
            given.

    Returns:
        the table, and where the rest is.

    Raises:
        ValueError: a preset beside options of data or model, or without the folder of its data; or
            what `Study` refuses.
    """
    if model.spike != ModelConfig().spike:
        raise ValueError(f"`model.spike` (={model.spike}): name the contenders with --spikes")
    asked = {
        "contenders": split_labels(spikes) if isinstance(spikes, str) else spikes,
        "seeds": None if seeds is None else _integers(seeds),
        "epochs": epochs,
        "trials": tune,
    }
    changes: dict[str, Any] = {n: value for n, value in asked.items() if value is not None}
    if preset is None:
        if data_folder is not None:
            raise ValueError(
                f"`data_folder` (={data_folder}) is where a preset's data are; without --preset, "
                "name the folder with --data.root"
            )
        studies = [Study(**_DEFAULTS | {"data": data, "model": model} | changes)]
    elif preset.is_file() and (data, model) != (DataConfig(), ModelConfig()):
        raise ValueError(
            f"`preset` (={preset}) brings its own data and model; leave their options out, or the "
            "preset"
        )
    else:
        studies = [replace(study, **changes) for study in studies_of(preset, data_folder)]
    out = out or default_out()
    typed = shlex.join(["htaf-snn", *sys.argv[1:]])
    with advising(lambda: f"stopped; the same command goes on, with --out {out}"):
        compare(studies, out, workers, ray_address, typed)
    page = report(out)
    parts = "report.html, figures/, table.csv, table.tex, results.json, checkpoints/"
    return f"{(out / 'table.txt').read_text()}{out}/: {parts}\nnext: open {page}"


def _integers(seeds: str | int | list[int]) -> list[int]:
    try:
        return [int(one) for one in (seeds if isinstance(seeds, list) else str(seeds).split(","))]
    except ValueError:
        raise ValueError(f"`seeds` (={seeds}) must be integers between commas") from None
