"""`htaf-snn fit`: training from a configuration file and the command line."""

from __future__ import annotations

import contextlib
import logging
import math
import shlex
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LambdaCallback,
    ModelCheckpoint,
)
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from ..arguments import arguments_of
from ..data import SpikingDataModule, data_set
from ..files import only_writer
from ..memory import physical
from ..models import default_model
from ..stopping import advising, raise_if_asked
from .checkpoint_io import WholeCheckpointIO, check_writable, read_checkpoint
from .module import SpikingClassifier
from .options import check_checkpoints, check_run, check_trainer
from .sync import MultiStepSyncBatchNorm

_logger = logging.getLogger(__name__)


class _OnceHandedOver(L.Callback):
    """Looks at those epochs alone in which the exact step is in place, which is what fires."""

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        if module.has_handed_over:
            super().on_validation_end(trainer, module)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if module.has_handed_over:
            super().on_train_epoch_end(trainer, module)


class _Best(_OnceHandedOver, ModelCheckpoint):
    """``best.ckpt``."""


class _Patience(_OnceHandedOver, EarlyStopping):
    """Ends a training that gets no better."""


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

    Logs, ``config.yaml`` and ``checkpoints/{best,last}.ckpt`` go into ``--out``. The whole run is
    checked before anything is made: options and their types when they are parsed, then by
    `options`, then data, network and trainer by building them.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--seed", type=int, default=0, help="of weights, data order and training; repeatable"
        )
        parser.add_argument("--out", type=Path, default=default_out(), help="folder of the results")
        parser.add_argument(
            "--ckpt_path", type=str, default=None,
            help="a checkpoint to go on from; last is the last in --out",
        )  # fmt: skip
        parser.add_argument(
            "--save_steps", type=int, default=None,
            help="steps after which last.ckpt is written within an epoch too; >= 1",
        )  # fmt: skip
        parser.add_argument(
            "--patience", type=int, default=None,
            help="epochs without a better validation accuracy after which training ends, counted "
            "once the hardening has ended; >= 1",
        )  # fmt: skip
        parser.add_argument(
            "--ema", type=float, default=None,
            help="decay of an exponential moving average of the weights, which is validated and "
            "kept; in (0, 1)",
        )  # fmt: skip
        parser.add_lightning_class_args(_Best, "checkpoint")
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

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        network = default_model(data_set(self.config.data.name).shape)
        if network != parser.get_default("model.model"):
            parser.set_defaults({"model.model": network})
            super().parse_arguments(parser, args)
        for part, of in (("model", SpikingClassifier), ("data", SpikingDataModule)):
            # The parser takes null for any type.
            arguments_of(of, self.config[part].as_dict(), f"option of {part}")
        check_run(self.config)
        check_trainer(self.config.trainer)
        check_checkpoints(self.config.checkpoint, parser.get_defaults().checkpoint)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        config, out = self.config_init, self.config_init.out
        data = self.datamodule
        batch = 4 * data.options.T * data.batch_size * math.prod(data.in_shape)
        if 16 * batch > physical():
            raise ValueError(
                f"`data.T` (={data.options.T}) and `data.batch_size` (={data.batch_size}): a batch "
                f"has {batch / 2**30:.1f} GiB, too much for this machine's memory; lower one"
            )
        if config.trainer.logger is None:
            # A resumed run adds to the TensorBoard log and writes a CSV log of its own.
            kwargs["logger"] = [
                TensorBoardLogger(out, name="", version=""),
                CSVLogger(out, name="csv"),
            ]
        plugins = config.trainer.plugins or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]),
                             WholeCheckpointIO()]  # fmt: skip
        synchronised = bool(config.trainer.sync_batchnorm)
        if synchronised:
            kwargs["sync_batchnorm"] = False
            kwargs["plugins"].append(MultiStepSyncBatchNorm())
        try:
            trainer: Any = super().instantiate_trainer(default_root_dir=out, **kwargs)
        except Exception as error:  # of many kinds
            raise ValueError(f"Lightning refuses the options of `trainer`: {error}") from error
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
        if config.save_steps is not None:
            trainer.callbacks.append(_WithinEpoch(**last, every_n_train_steps=config.save_steps))
        # Before the checkpoints, which so hold what these two know of the step.
        if config.patience is not None:
            stopping = _Patience("val_accuracy", patience=config.patience, mode="max")
            trainer.callbacks.insert(0, stopping)
        if config.ema is not None:
            trainer.callbacks.insert(0, EMAWeightAveraging(decay=config.ema))
        return trainer

    def run(self) -> None:
        """Trains; a run that is refused, or stopped before its first step, leaves no folder."""
        out, checkpoint = self.config.out, self.config.ckpt_path
        made = [path for path in (out, *out.parents) if not path.exists()]
        begun: list[object] = []
        trainer: Any = self.trainer
        trainer.callbacks.append(
            LambdaCallback(
                on_train_start=lambda *_: begun.append(1),
                on_train_batch_start=lambda *_: raise_if_asked(),
            )
        )
        try:
            check_writable(out / "checkpoints")
            with (
                advising(self._how_to_go_on),
                self._writing(made) if trainer.is_global_zero else contextlib.nullcontext(),
            ):
                self.trainer.fit(self.model, self.datamodule, ckpt_path=checkpoint)
        except Exception as error:
            if checkpoint is not None and not begun:
                raise ValueError(
                    f"can't go on from the checkpoint {checkpoint}: {error}"
                ) from error
            raise
        self._say_which_is_best()

    @contextlib.contextmanager
    def _writing(self, made: list[Path]) -> Iterator[None]:
        """As the only writer; folders that were made for a training without a step are removed."""
        with only_writer(self.config.out):
            try:
                yield
            finally:
                if made and not self.trainer.global_step:
                    shutil.rmtree(self.config.out, ignore_errors=True)
                    with contextlib.suppress(OSError):  # not empty: another run is there
                        for path in made[1:]:
                            path.rmdir()

    def _how_to_go_on(self) -> str:
        stopped = f"stopped at step {self.trainer.global_step}; "
        if (self.config.out / "checkpoints" / "last.ckpt").exists():
            return (
                f"{stopped}go on with the same options, --out {self.config.out} and "
                "--ckpt_path last"
            )
        return f"{stopped}no checkpoint was written yet"

    @rank_zero_only
    def _say_which_is_best(self) -> None:
        best = next(one for one in self.trainer.checkpoint_callbacks if isinstance(one, _Best))
        path = best.best_model_path
        if not path or not Path(path).exists():
            _logger.info("no best.ckpt: the training ended before the hardening did; see last.ckpt")
            return
        _logger.info(
            "best.ckpt is of epoch %d, %s %.4f%s", read_checkpoint(path)["epoch"], best.monitor,
            best.best_model_score,
            "" if self.model.hparams["hardening"] is None
            else "; only epochs after the end of the hardening competed",
        )  # fmt: skip
        _logger.info("next: htaf-snn test %s", shlex.quote(str(path)))


def fit(args: Sequence[str]) -> None:
    """Trains as the command line ``args`` say; see ``htaf-snn fit --help``."""
    FitCLI(
        SpikingClassifier,
        SpikingDataModule,
        trainer_defaults={"max_epochs": 12, "log_every_n_steps": 10},
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        parser_kwargs={
            "prog": "htaf-snn fit",
            "usage": "htaf-snn fit [options]",  # which are a page
            "description": "Trains a network.",
        },
        args=list(args),
        run=False,
    ).run()
