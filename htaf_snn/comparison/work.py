"""Doing tasks one after the other or many at a time, and tuning a contender."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ..extras import needed
from ..training.finite import DivergedError
from .contender import Contender
from .run import Task, train

T = TypeVar("T")
R = TypeVar("R")


def work(
    function: Callable[[T], R],
    tasks: Sequence[T],
    workers: int = 1,
    ray_address: str | None = None,
) -> Iterator[R]:
    """``function`` of each task, as they are finished.

    Args:
        function: what to do; with Ray it and the tasks are sent to other processes, which see
            the same files.
        tasks: what to do it with.
        workers: tasks at a time on this machine, one core each; 1 for this process itself.
        ray_address: of a Ray cluster, whose cores are all used; None for this machine.

    Raises:
        ImportError: Ray is asked for and is not installed.
    """
    if not tasks or (workers == 1 and ray_address is None):
        yield from map(function, tasks)
        return
    ray = needed("ray")
    options: dict[str, Any] = (
        {"address": ray_address}
        if ray_address is not None
        else {"address": "local", "num_cpus": workers}
    )
    ray.init(**options, log_to_driver=False, include_dashboard=False)
    try:
        remote = ray.remote(num_cpus=1)(_call)
        pending = [remote.remote(function, task) for task in tasks]
        while pending:
            done, pending = ray.wait(pending)
            yield from ray.get(done)
    finally:
        ray.shutdown()


def _call(function: Callable[[T], R], task: T) -> R:
    return function(task)


# What is tuned, and over which range; on a logarithmic scale.
SPACE = {"learning_rate": (5e-4, 2e-2), "weight_decay": (1e-4, 1e-1)}


def tune(task: Task, trials: int, folder: Path, progress: bool = True) -> Task:
    """The task with the training options that do best on validation.

    The first trial has the options that the task has untuned; Optuna's TPE sampler chooses the
    others. What the contender fixes itself is not tuned. Trials are kept in a journal, so tuning
    goes on where it stopped; one that diverges counts. The test split is not read.

    Args:
        task: what to tune; its seed is that of each trial.
        trials: >= 1.
        folder: where the journal is.
        progress: whether each trial shows Lightning's progress bar.
    """

    def trial(options: dict[str, Any]) -> float:
        return train(replace(task, model=task.model | options), progress).validate()

    own = task.settings()["model"]
    fixed = Contender(task.contender).options
    start = {name: float(own[name]) for name in SPACE if name not in fixed}
    if not start:
        return task
    best = search(trial, start, trials, task.seed, folder / f"{task.name}.journal")
    return replace(task, model=task.model | best)


def search(
    value: Callable[[dict[str, float]], float],
    start: dict[str, float],
    trials: int,
    seed: int,
    journal: Path,
) -> dict[str, Any]:
    """The options within `SPACE` of the greatest ``value``, of so many trials in the journal.

    Raises:
        ValueError: every trial diverged.
    """
    optuna = needed("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="htaf_snn",
        direction="maximize",
        load_if_exists=True,
    )
    state = optuna.trial.TrialState
    ended = len(study.get_trials(states=(state.COMPLETE, state.FAIL)))
    study.sampler = optuna.samplers.TPESampler(seed=1_000 * seed + len(study.trials))
    if not ended:
        study.enqueue_trial(start)

    def objective(trial: Any) -> float:
        return value({name: trial.suggest_float(name, *SPACE[name], log=True) for name in start})

    study.optimize(objective, n_trials=max(0, trials - ended), catch=(DivergedError,))
    if not study.get_trials(states=(state.COMPLETE,)):
        raise ValueError(f"every trial in {journal} diverged; narrow the options that are tuned")
    best: dict[str, Any] = study.best_params
    return best
