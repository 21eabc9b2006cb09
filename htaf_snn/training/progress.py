"""Messages of a training: its progress, epochs counted from 1, and concerns about its network."""

import logging
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

_logger = logging.getLogger(__name__)
_SHOWN = {"train_loss_step": "loss", "train_accuracy": "train_acc", "val_accuracy": "val_acc"}

GAP_PP = 10.0  # percentage points between two accuracies that need an explanation
SILENT = 1e-4  # spikes a neuron and time step, below which a layer counts as silent
_QUANTILE = 1.645  # of the normal distribution, for a one-sided test at 5 %


def progress(bar: bool | None = None, name: str = "") -> dict[str, Any]:
    """The arguments of Lightning's `Trainer` that show its progress.

    Args:
        bar: whether to show a bar, or a line an epoch; None for a bar in a terminal.
        name: of the training, before each line.
    """
    if bar is None:
        bar = sys.stderr.isatty() and sys.stdout.isatty()
    return {"enable_progress_bar": bar, "callbacks": [_Bar() if bar else _LineAnEpoch(name)]}


class _Bar(TQDMProgressBar):
    """Lightning's bar, of which 80 columns show the accuracies."""

    BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {remaining}{postfix}"

    def on_train_epoch_start(self, trainer: Any, *arguments: Any) -> None:
        super().on_train_epoch_start(trainer, *arguments)
        of = f" of {trainer.max_epochs}" if trainer.max_epochs > 0 else ""
        self.train_progress_bar.set_description_str(f"epoch {trainer.current_epoch + 1}{of}")

    def get_metrics(self, trainer: Any, *_: Any) -> dict[str, Any]:
        found = trainer.progress_bar_metrics
        return {short: f"{found[name]:.3f}" for name, short in _SHOWN.items() if name in found}


class _LineAnEpoch(L.Callback):
    """Says what a bar would, where there is none."""

    def __init__(self, name: str) -> None:
        self._begin = f"{name}: " if name else ""

    def on_train_start(self, *_: Any) -> None:
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: Any, _module: Any) -> None:
        metrics = trainer.callback_metrics
        names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
        found = "  ".join(f"{name} {metrics[name]:.4f}" for name in names if name in metrics)
        if trainer.is_global_zero:
            _logger.info(
                "%sepoch %d of %d  %s  %.0f s", self._begin, trainer.current_epoch + 1,
                trainer.max_epochs, found, time.monotonic() - self._start,
            )  # fmt: skip
        self._start = time.monotonic()


class FirstEpochTime(L.Callback):
    """Says how long an epoch will take, if that is long, once its first steps were timed."""

    _STEPS, _LONG = 5, 60.0  # steps that are timed; seconds

    def __init__(self, remedy: str) -> None:
        self._remedy, self._times = remedy, list[float]()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if len(self._times) > self._STEPS:
            return
        self._times.append(time.monotonic())  # the first step compiles, and is not counted
        if len(self._times) <= self._STEPS or not trainer.is_global_zero:
            return
        a_step = (self._times[-1] - self._times[0]) / self._STEPS
        seconds = a_step * trainer.num_training_batches
        if self._LONG < seconds < float("inf"):
            _logger.warning(
                "an epoch will take about %.0f min on this machine (%d steps of %.2g s)%s",
                max(1.0, seconds / 60), trainer.num_training_batches, a_step, self._remedy,
            )  # fmt: skip


class _FromOne:
    """Makes a logger count epochs from 1, as everything that people read."""

    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        if "epoch" in metrics:
            metrics = metrics | {"epoch": metrics["epoch"] + 1}
        super().log_metrics(metrics, step)  # type: ignore[misc]


class CsvLog(_FromOne, CSVLogger):
    """Lightning's, of epochs from 1."""


class TensorBoardLog(_FromOne, TensorBoardLogger):
    """Lightning's, of epochs from 1."""


def concerns(found: Mapping[str, float], train_accuracy: float | None = None) -> list[str]:
    """Names what is wrong with a trained network, a sentence each with its remedy.

    Args:
        found: metrics of `SpikingClassifier.test_step` on held-out data.
        train_accuracy: of the last epoch, in [0, 1]; None where it is not known.
    """
    hard, soft, trained = (found[f"{form}_accuracy"] for form in ("hard", "soft", "trained"))
    wide = max(GAP_PP, 300 / found["samples"])  # three samples at least
    said = []
    if found["statistics_gap_pp"] > wide:
        said.append(
            f"with each batch's statistics, as trained, the accuracy is {trained:.2f}, with "
            f"running statistics, as used, {soft:.2f}: freeze the norms earlier "
            "(--model.freeze_norm 0.8) or take larger batches (--data.batch_size)"
        )
    if found["gap_pp"] > wide:
        said.append(
            f"smooth the accuracy is {soft:.2f}, with the exact step {hard:.2f}: bring the step in "
            "during training (--model.recipe hardened), and see htaf-snn gap"
        )
    if train_accuracy is not None and 100 * (train_accuracy - trained) > wide:
        said.append(
            f"the training accuracy is {train_accuracy:.2f}, on held-out data {trained:.2f} "
            "without any gap: it has learned its samples by heart; take more of them, "
            "--data.augment, or a smaller --model.width"
        )
    commonest = found["commonest_class"]
    chance = commonest + _QUANTILE * math.sqrt(commonest * (1 - commonest) / found["samples"])
    if hard <= min(chance, 1 - 1e-9):
        said.append(
            f"the accuracy, {hard:.2f}, can't be told from naming the commonest class each time "
            f"({commonest:.2f} of {found['samples']:.0f} samples): train longer "
            "(--trainer.max_epochs), try another --model.learning_rate, and look at the data with "
            "htaf-snn data inspect"
        )
    silent = [n.partition("/")[2] for n, rate in found.items() if "/" in n and rate < SILENT]
    if silent:
        said.append(
            f"{', '.join(silent)} fire less than once in {1 / SILENT:.0f} time steps: lower the "
            "threshold (--model.neuron_options '{v_threshold: 0.5}') or put more events into a "
            "frame (a smaller --data.T)"
        )
    return said
