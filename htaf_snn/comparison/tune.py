"""Tuning a contender on the validation split, every contender with the same budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .run import Task, train

# What is tuned, and over which range; on a logarithmic scale.
SPACE = {"learning_rate": (5e-4, 2e-2), "weight_decay": (1e-4, 1e-1)}


def tune(task: Task, trials: int, folder: Path, progress: bool = True) -> Task:
    """The task with the training options that do best on validation.

    The first trial has the task's own options; Optuna's TPE sampler, seeded by the task's seed,
    chooses the others. Trials are kept in a journal, so tuning goes on where it stopped. The test
    split is not read.

    Args:
        task: what to tune; its seed is that of each trial.
        trials: >= 1.
        folder: where the journal is.
        progress: whether each trial shows Lightning's progress bar.
    """

    def trial(options: dict[str, Any]) -> float:
        return train(replace(task, model=task.model | options), progress).validate()

    best = search(trial, task, trials, folder / f"{task.name}.journal")
    return replace(task, model=task.model | best)


def search(
    value: Callable[[dict[str, Any]], float], task: Task, trials: int, journal: Path
) -> dict[str, Any]:
    """The options within `SPACE` of the greatest ``value``, of so many trials in the journal."""
    optuna = import_optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    study = optuna.create_study(
        study_name=task.name,
        storage=optuna.storages.JournalStorage(backend),
        sampler=optuna.samplers.TPESampler(seed=task.seed),
        direction="maximize",
        load_if_exists=True,
    )
    own = {name: task.model[name] for name in SPACE if name in task.model}
    if not study.trials:
        study.enqueue_trial(own)
    done = optuna.trial.TrialState.COMPLETE
    finished = len(study.get_trials(states=(done,)))

    def objective(trial: Any) -> float:
        return value({k: trial.suggest_float(k, *ends, log=True) for k, ends in SPACE.items()})

    study.optimize(objective, n_trials=max(0, trials - finished))
    best: dict[str, Any] = study.best_params
    return best


def import_optuna() -> Any:
    """Optuna, or an ImportError that says how to get it."""
    try:
        import optuna
    except ImportError as error:
        raise ImportError("`tune` needs Optuna: pip install 'htaf-snn[tune]'") from error
    return optuna
