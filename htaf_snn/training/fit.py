"""`htaf-snn fit`: training from a configuration file and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from ..data import SpikingDataModule
from .checkpoint_io import WholeCheckpointIO, check_writable, read_checkpoint
from .module import SpikingClassifier
from .sync import MultiStepSyncBatchNorm


class _WithinEpoch(ModelCheckpoint):
    """Leaves an epoch's last step to the checkpoint of its end, which comes after validation."""

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        if not trainer.is_last_batch:
            super().on_train_batch_end(trainer, *arguments)


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
        parser.add_argument(
            "--save_steps", type=int, default=None,
            help="steps after which last.ckpt is written within an epoch too; >= 1",
        )  # fmt: skip
        parser.add_argument(
            "--patience", type=int, default=None,
            help="epochs without a better validation accuracy after which training ends; >= 1",
        )  # fmt: skip
        parser.add_argument(
            "--ema", type=float, default=None,
            help="decay of an exponential moving average of the weights, which is validated and "
            "kept; in (0, 1)",
        )  # fmt: skip
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

    def _parse_ckpt_path(self) -> None:
        # Lightning would let the checkpoint's settings replace those of the command line.
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path is not None and Path(path).is_file():
            read_checkpoint(path)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        out = self._get(self.config_init, "out")
        save_steps, patience, ema = (
            self._get(self.config_init, name) for name in ("save_steps", "patience", "ema")
        )
        for name, value in (("save_steps", save_steps), ("patience", patience)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` (={value}) must be at least 1")
        if ema is not None and not 0 < ema < 1:
            raise ValueError(f"`ema` (={ema}) must lie in (0, 1)")
        check_writable(out / "checkpoints")
        if self._get(self.config_init, "trainer.logger") is None:
            # A resumed run adds to the TensorBoard log and writes a CSV log of its own.
            kwargs["logger"] = [
                TensorBoardLogger(out, name="", version=""),
                CSVLogger(out, name="csv"),
            ]
        plugins = self._get(self.config_init, "trainer.plugins") or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]),
                             WholeCheckpointIO()]  # fmt: skip
        synchronised = bool(self._get(self.config_init, "trainer.sync_batchnorm"))
        if synchronised:
            kwargs["sync_batchnorm"] = False
            kwargs["plugins"].append(MultiStepSyncBatchNorm())
        trainer: Any = super().instantiate_trainer(default_root_dir=out, **kwargs)
        if synchronised and isinstance(trainer.accelerator, CPUAccelerator):
            raise ValueError(
                "`trainer.sync_batchnorm` (=True) needs GPUs: torch's SyncBatchNorm refuses CPU "
                "tensors; leave it out, or train with --trainer.accelerator gpu"
            )
        # `save_last` of the best checkpoint's callback would skip epochs that are not the best.
        last: dict[str, Any] = {
            "dirpath": out / "checkpoints", "filename": "last", "enable_version_counter": False,
        }  # fmt: skip
        trainer.callbacks.append(ModelCheckpoint(**last, save_on_train_epoch_end=True))
        if save_steps is not None:
            trainer.callbacks.append(_WithinEpoch(**last, every_n_train_steps=save_steps))
        # Before the checkpoints, which so hold what these two know of the step.
        if patience is not None:
            stopping = EarlyStopping("val_accuracy", patience=patience, mode="max")
            trainer.callbacks.insert(0, stopping)
        if ema is not None:
            trainer.callbacks.insert(0, EMAWeightAveraging(decay=ema))
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
