"""One run of a comparison: one spike function, one seed."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from ..data import SpikingDataModule
from ..training import SpikingClassifier


@dataclass(frozen=True)
class Run:
    """What a run measured on the test split, and its course on the way there.

    Accuracies and firing rates lie in [0, 1]; ``gap_pp`` is soft minus hard accuracy in
    percentage points; ``epoch_seconds`` is the median time of an epoch's training.
    """

    spike: str
    seed: int
    hard_accuracy: float
    soft_accuracy: float
    gap_pp: float
    firing_rate: float
    firing_rate_by_layer: dict[str, float]
    epoch_seconds: float
    best_epoch: int
    history: list[dict[str, float]]
    settings: dict[str, Any]
    versions: dict[str, str]


@dataclass
class _History(L.Callback):
    epochs: list[dict[str, float]] = field(default_factory=list)
    _started: float = 0.0
    _seconds: float = 0.0

    def on_train_epoch_start(self, _trainer: L.Trainer, _module: L.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_validation_start(self, _trainer: L.Trainer, _module: L.LightningModule) -> None:
        self._seconds = time.perf_counter() - self._started  # validation ends an epoch

    def on_train_epoch_end(self, trainer: L.Trainer, _module: L.LightningModule) -> None:
        metrics: dict[str, Tensor] = trainer.callback_metrics
        names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
        self.epochs.append(
            {"epoch": trainer.current_epoch, "train_seconds": self._seconds}
            | {name: float(metrics[name]) for name in names}
        )


def run(
    spike: str,
    seed: int,
    epochs: int,
    data_settings: dict[str, Any],
    model_settings: dict[str, Any],
    versions: dict[str, str],
    checkpoints: Path,
) -> Run:
    """Trains one network, chooses its best epoch on validation, reads the test split once.

    The seed sets the initial weights and the data order, the same for every spike function.
    """
    L.seed_everything(seed, verbose=False)
    data = SpikingDataModule(**data_settings, seed=seed)
    model = SpikingClassifier(
        data.in_shape, data.num_classes, spike=spike, seed=seed, **model_settings
    )
    history = _History()
    folder = checkpoints / f"{spike.replace(':', '_')}-seed{seed}"
    best = ModelCheckpoint(folder, "best", monitor="val_accuracy", mode="max")
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=[history, best],
        logger=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, data)
    (metrics,) = trainer.test(model, data, ckpt_path=best.best_model_path, verbose=False)
    layers = {k.removeprefix("firing_rate/"): v for k, v in metrics.items() if "/" in k}
    return Run(
        spike=spike,
        seed=seed,
        hard_accuracy=metrics["hard_accuracy"],
        soft_accuracy=metrics["soft_accuracy"],
        gap_pp=metrics["gap_pp"],
        firing_rate=metrics["firing_rate"],
        firing_rate_by_layer=layers,
        epoch_seconds=statistics.median(e["train_seconds"] for e in history.epochs),
        best_epoch=int(max(history.epochs, key=lambda e: e["val_accuracy"])["epoch"]),
        history=history.epochs,
        settings={
            "epochs": epochs,
            "data": {k: str(v) if isinstance(v, Path) else v for k, v in data_settings.items()},
            "model": model_settings,
        },
        versions=versions,
    )
