"""`htaf-snn fit`: training from a configuration file and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from ..data import SpikingDataModule
from .module import SpikingClassifier


def default_out() -> Path:
    """``runs/<time>``: where results go unless told otherwise."""
    return Path("runs") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


class FitCLI(LightningCLI):
    """Lightning's command line with our defaults.

    Logs, ``config.yaml`` and ``checkpoints/{best,last}.ckpt`` go into ``--out``.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--seed", type=int, default=0, help="of weights, data order and training; repeatable"
        )
        parser.add_argument("--out", type=Path, default=default_out(), help="folder of the results")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.monitor": "val_accuracy",
                "checkpoint.mode": "max",
                "checkpoint.enable_version_counter": False,
            }
        )
        for target in ("seed_everything", "data.seed", "model.seed"):
            parser.link_arguments("seed", target)
        parser.link_arguments(
            "out", "checkpoint.dirpath", compute_fn=lambda out: out / "checkpoints"
        )
        for name in ("in_shape", "num_classes"):
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        out = self._get(self.config_init, "out")
        if self._get(self.config_init, "trainer.logger") is None:
            # A resumed run adds to the TensorBoard log and writes a CSV log of its own.
            kwargs["logger"] = [
                TensorBoardLogger(out, name="", version=""),
                CSVLogger(out, name="csv"),
            ]
        trainer: Any = super().instantiate_trainer(default_root_dir=out, **kwargs)
        # `save_last` of the best checkpoint's callback would skip epochs that are not the best.
        last = ModelCheckpoint(
            out / "checkpoints", "last", enable_version_counter=False, save_on_train_epoch_end=True
        )
        trainer.callbacks.append(last)
        return trainer


def fit(args: Sequence[str]) -> None:
    """Trains as the command line ``args`` say; see ``htaf-snn fit --help``."""
    FitCLI(
        SpikingClassifier,
        SpikingDataModule,
        trainer_defaults={"max_epochs": 12, "log_every_n_steps": 10},
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        auto_configure_optimizers=False,
        args=["fit", *args],
    )
