"""`htaf-snn fit`: a training, with logs and checkpoints."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LambdaCallback,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from ..arguments import in_range
from ..data import DataConfig, SpikingDataModule
from ..files import only_writer, write_whole
from ..process import advising, physical, raise_if_asked
from .checkpoint_io import WholeCheckpointIO, check_writable, read_checkpoint
from .concerns import concerns
from .config import CheckpointConfig, ModelConfig, TrainerConfig
from .module import SpikingClassifier
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
    """``best.ckpt``; of epochs that are equally good the last, whose norms are frozen."""

    def check_monitor_top_k(self, trainer: Any, current: Any = None) -> bool:
        equal = current is not None and current == self.best_model_score
        return equal or super().check_monitor_top_k(trainer, current)


class _Patience(_OnceHandedOver, EarlyStopping):
    """Ends a training that gets no better."""


class _WithinEpoch(ModelCheckpoint):
    """Leaves an epoch's last step to the checkpoint of its end, which comes after validation."""

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        if not trainer.is_last_batch:
            super().on_train_batch_end(trainer, *arguments)


class _LineAnEpoch(L.Callback):
    """Says what a progress bar would, where there is none."""

    def on_train_start(self, _trainer: Any, _module: Any) -> None:
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: Any, _module: Any) -> None:
        metrics = trainer.callback_metrics
        names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
        found = "  ".join(f"{name} {metrics[name]:.4f}" for name in names if name in metrics)
        if trainer.is_global_zero:
            _logger.info(
                "epoch %d of %d  %s  %.0f s", trainer.current_epoch + 1, trainer.max_epochs, found,
                time.monotonic() - self._start,
            )  # fmt: skip
        self._start = time.monotonic()


def default_out() -> Path:
    """``runs/<time>``: where results go unless told otherwise."""
    return Path("runs") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def fit(
    model: ModelConfig = ModelConfig(),
    data: DataConfig = DataConfig(),
    trainer: TrainerConfig = TrainerConfig(),
    checkpoint: CheckpointConfig = CheckpointConfig(),
    seed: int = 0,
    out: Path | None = None,
    ckpt_path: str | None = None,
    save_steps: int | None = None,
    patience: int | None = None,
    ema: float | None = None,
) -> str:
    """Trains a network, with logs and checkpoints.

    Logs, ``config.yaml`` and ``checkpoints/{best,last}.ckpt`` go into ``out``. The whole run is
    checked before anything is made; one that is refused, or stopped before its first step, leaves
    no folder.

    Args:
        model: the network and its training.
        data: what it is trained on.
        trainer: how long, and on what machine.
        checkpoint: which epoch is the best.
        seed: of weights, data order and training; repeatable.
        out: folder of the results; runs/<time> unless given.
        ckpt_path: a checkpoint to go on from; last is the last in --out.
        save_steps: steps after which last.ckpt is written within an epoch too; >= 1.
        patience: epochs without a better validation accuracy after which training ends, counted
            once the hardening has ended; >= 1.
        ema: decay of an exponential moving average of the weights, which is validated and kept; in
            (0, 1).

    Returns:
        which epoch is the best, and the command that comes next.

    Raises:
        ValueError: an option out of its range, or that others rule out.
        FileNotFoundError: no such checkpoint, or no data.
    """
    in_range("seed", seed, 0, 2**32 - 1)
    for name, number in (("save_steps", save_steps), ("patience", patience)):
        if number is not None:
            in_range(name, number, 1)
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"`ema` (={ema}) must lie in (0, 1)")
    if ckpt_path not in (None, "last") and not Path(str(ckpt_path)).is_file():
        raise FileNotFoundError(f"no checkpoint {ckpt_path}; name one with --ckpt_path, or last")
    out = out or default_out()
    config = {
        "model": model.plain(), "data": data.plain(), "trainer": trainer.plain(),
        "checkpoint": checkpoint.plain(), "seed": seed, "out": str(out), "ckpt_path": ckpt_path,
        "save_steps": save_steps, "patience": patience, "ema": ema,
    }  # fmt: skip
    L.seed_everything(seed, workers=True, verbose=False)
    module = SpikingDataModule(data, seed)
    _check_batch(module)
    network = SpikingClassifier(module.in_shape, module.num_classes, model, seed)
    runner = _trainer(trainer, out)
    # The moving average and the patience come before the checkpoints, which so hold what these two
    # know of the step. `save_last` of the best checkpoint's callback would skip epochs that are not
    # the best.
    folder: dict[str, Any] = {"dirpath": out / "checkpoints", "enable_version_counter": False}
    best = _Best(**folder, filename="best", monitor=checkpoint.monitor, mode=checkpoint.mode)
    chooses = module.has_validation or not checkpoint.monitor.startswith("val")
    if patience is not None and not module.has_validation:
        raise ValueError(f"`patience` (={patience}) needs validation data; set data.validation")
    if not module.has_validation:
        runner.limit_val_batches = 0
    begun: list[object] = []
    runner.callbacks += [
        *([] if ema is None else [EMAWeightAveraging(decay=ema)]),
        *([] if patience is None else [_Patience("val_accuracy", patience=patience, mode="max")]),
        *([best] if chooses else []),
        ModelCheckpoint(**folder, filename="last", save_on_train_epoch_end=True),
        *(
            []
            if save_steps is None
            else [_WithinEpoch(**folder, filename="last", every_n_train_steps=save_steps)]
        ),
        LambdaCallback(
            on_train_start=lambda *_: begun.append(1),
            on_train_batch_start=lambda *_: raise_if_asked(),
        ),
    ]
    made = [path for path in (out, *out.parents) if not path.exists()]
    if ckpt_path == "last":  # there is none yet if the run was stopped before it was written
        last = out / "checkpoints" / "last.ckpt"
        ckpt_path = str(last) if last.exists() else None
    try:
        check_writable(out / "checkpoints")
        with advising(lambda: _how_to_go_on(runner, out)), _writing(runner, out, made, config):
            runner.fit(network, module, ckpt_path=ckpt_path)
            _warn(runner, network, module)
    except Exception as error:
        if ckpt_path is not None and not begun:
            raise ValueError(f"can't go on from the checkpoint {ckpt_path}: {error}") from error
        raise
    if not chooses:
        kept = shlex.quote(str(out / "checkpoints" / "last.ckpt"))
        return f"no validation: last.ckpt is of the last epoch\nnext: htaf-snn test {kept}"
    return _which_is_best(best, model) if runner.is_global_zero else ""


def _warn(trainer: Any, network: SpikingClassifier, data: SpikingDataModule) -> None:
    """Says once what is wrong with the network that the training ended with."""
    if trainer.fast_dev_run or not sum(trainer.num_val_batches):
        return
    train_accuracy = trainer.callback_metrics.get("train_accuracy")
    trainer.loggers = []  # these are no metrics of the training
    if trainer.progress_bar_callback is not None:
        trainer.progress_bar_callback.disable()
    (found,) = trainer.test(network, data.val_dataloader(), verbose=False)
    said = concerns(found, None if train_accuracy is None else float(train_accuracy))
    if said and trainer.is_global_zero:
        _logger.warning("what to look at in this network:\n  %s", "\n  ".join(said))


def _check_batch(module: SpikingDataModule) -> None:
    config = module.config
    batch = 4 * config.T * config.batch_size * math.prod(module.in_shape)
    if 16 * batch > physical():
        raise ValueError(
            f"`data.T` (={config.T}) and `data.batch_size` (={config.batch_size}): a batch has "
            f"{batch / 2**30:.1f} GiB, too much for this machine's memory; lower one"
        )


def _trainer(config: TrainerConfig, out: Path) -> Any:
    options = config.plain()
    if isinstance(config.devices, tuple):
        options["devices"] = list(config.devices)
    bar = config.enable_progress_bar
    options["enable_progress_bar"] = sys.stderr.isatty() if bar is None else bar
    if config.enable_model_summary is None:
        options["enable_model_summary"] = options["enable_progress_bar"]
    plugins: list[Any] = [WholeCheckpointIO()]
    if config.sync_batchnorm:
        options["sync_batchnorm"] = False
        plugins.append(MultiStepSyncBatchNorm())
    try:
        trainer: Any = L.Trainer(
            **options,
            default_root_dir=out,
            # A resumed run adds to the TensorBoard log and writes a CSV log of its own.
            logger=[TensorBoardLogger(out, name="", version=""), CSVLogger(out, name="csv")],
            plugins=plugins,
            callbacks=[] if options["enable_progress_bar"] else [_LineAnEpoch()],
            enable_checkpointing=False,
        )
    except Exception as error:  # of many kinds
        raise ValueError(f"Lightning refuses the options of `trainer`: {error}") from error
    if config.sync_batchnorm and isinstance(trainer.accelerator, CPUAccelerator):
        raise ValueError(
            "`trainer.sync_batchnorm` (=True) needs GPUs: torch's SyncBatchNorm refuses CPU "
            "tensors; leave it out, or train with --trainer.accelerator gpu"
        )
    return trainer


@contextlib.contextmanager
def _writing(trainer: Any, out: Path, made: list[Path], config: dict[str, Any]) -> Iterator[None]:
    """As the only writer; folders that were made for a training without a step are removed."""
    if not trainer.is_global_zero:
        yield
        return
    text = yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False)
    with only_writer(out):
        try:
            write_whole(out / "config.yaml", lambda partial: partial.write_text(text))
            yield
        finally:
            if made and not trainer.global_step:
                shutil.rmtree(out, ignore_errors=True)
                with contextlib.suppress(OSError):  # not empty: another run is there
                    for path in made[1:]:
                        path.rmdir()


def _how_to_go_on(trainer: Any, out: Path) -> str:
    stopped = f"stopped at step {trainer.global_step}; "
    if (out / "checkpoints" / "last.ckpt").exists():
        return f"{stopped}go on with the same options, --out {out} and --ckpt_path last"
    return f"{stopped}no checkpoint was written yet"


def _which_is_best(best: ModelCheckpoint, model: ModelConfig) -> str:
    path = best.best_model_path
    if not path or not Path(path).exists():
        return "no best.ckpt: the training ended before the hardening did; see last.ckpt"
    competed = "; only epochs after the end of the hardening competed"
    return (
        f"best.ckpt is of epoch {read_checkpoint(path)['epoch']}, {best.monitor} "
        f"{best.best_model_score:.4f}{'' if model.hardening is None else competed}\n"
        f"next: htaf-snn test {shlex.quote(path)}"
    )
