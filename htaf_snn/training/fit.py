"""`htaf-snn fit`: a training, with logs and checkpoints."""

import contextlib
import json
import logging
import math
import shlex
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch import callbacks
from lightning.pytorch.accelerators import CPUAccelerator

from ..arguments import in_range
from ..checkpoint_io import WholeCheckpointIO, check_writable, read_checkpoint
from ..data import DataConfig, SpikingDataModule
from ..files import explained, only_writer, refuse_existing, write_whole
from ..process import advising, physical, raise_if_asked
from .config import CheckpointConfig, ModelConfig, TrainerConfig
from .gpu import MultiStepSyncBatchNorm
from .module import SpikingClassifier
from .progress import CsvLog, FirstEpochTime, TensorBoardLog, concerns, progress

_logger = logging.getLogger(__name__)


class _OnceHandedOver(L.Callback):
    """Looks at those epochs alone in which the exact step is in place, which is what fires."""

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        if module.has_handed_over:
            super().on_validation_end(trainer, module)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if module.has_handed_over:
            super().on_train_epoch_end(trainer, module)


class _Best(_OnceHandedOver, callbacks.ModelCheckpoint):
    """``best.ckpt``; of epochs that are equally good the last, whose norms are frozen."""

    def check_monitor_top_k(self, trainer: Any, current: Any = None) -> bool:
        equal = current is not None and current == self.best_model_score
        return equal or super().check_monitor_top_k(trainer, current)


class _Patience(_OnceHandedOver, callbacks.EarlyStopping):
    """Ends a training that gets no better."""


class _WithinEpoch(callbacks.ModelCheckpoint):
    """Saves once ``steps`` were taken since it last did, where a run can go on to the bit.

    That is after whole steps of the optimizer, with no gradient half summed, and after the
    validation that follows one. An epoch's last step is left to the checkpoint of its end.
    """

    def __init__(self, steps: int, **options: Any) -> None:
        super().__init__(**options)
        self._steps, self._whole = steps, False

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        batches = arguments[-1] + 1  # of this epoch
        whole = batches % trainer.accumulate_grad_batches == 0
        self._whole = whole and not trainer.is_last_batch
        if batches % trainer.val_check_batch or not trainer.enable_validation:
            self._save(trainer)

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        self._save(trainer)

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        self._last_global_step_saved = trainer.global_step  # by the checkpoint of its end

    def _save(self, trainer: Any) -> None:
        taken = trainer.global_step - self._last_global_step_saved
        whole = self._whole and not self._should_skip_saving_checkpoint(trainer)
        if whole and taken >= self._steps:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


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
    overwrite: bool = False,
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
        ckpt_path: a checkpoint to go on from; last is the one in --out.
        save_steps: steps after which last.ckpt is written within an epoch too; >= 1.
        patience: epochs without a better validation accuracy after which training ends, counted
            once the hardening has ended; >= 1.
        ema: decay of an exponential moving average of the weights, which is validated and kept; in
            (0, 1).
        overwrite: whether the checkpoints of another training in --out are replaced.

    Returns:
        which epoch is the best, and the command that comes next.

    Raises:
        ValueError: an option out of its range, or that others rule out.
        FileNotFoundError: no such checkpoint, or no data.
        FileExistsError: --out holds the checkpoints of another training.
    """
    in_range("seed", seed, 0, 2**32 - 1)
    for name, number in (("save_steps", save_steps), ("patience", patience)):
        if number is not None:
            in_range(name, number, 1)
    if ema is not None:
        in_range("ema", ema, 0, 1, open_=True, below=True)
    if model.recipe == "surrogate_free" and trainer.precision in ("16", "16-mixed", "16-true"):
        raise ValueError(
            f"`trainer.precision` (={trainer.precision}) has no numbers as small as the gradients "
            "of the recipe surrogate_free; take bf16-mixed, or 32 bits"
        )
    out = out or default_out()
    config = {
        "model": model.plain(), "data": data.plain(), "trainer": trainer.plain(),
        "checkpoint": checkpoint.plain(), "seed": seed, "out": str(out), "ckpt_path": ckpt_path,
        "save_steps": save_steps, "patience": patience, "ema": ema,
    }  # fmt: skip
    ckpt_path, replaced = _to_go_on_from(ckpt_path, out, overwrite)
    L.seed_everything(seed, workers=True, verbose=False)
    module = SpikingDataModule(data, seed)
    _check_batch(module)
    network = SpikingClassifier(module.in_shape, module.num_classes, model, seed, data.T)
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
        *([] if ema is None else [callbacks.EMAWeightAveraging(decay=ema)]),
        *([] if patience is None else [_Patience("val_accuracy", patience=patience, mode="max")]),
        *([best] if chooses else []),
        callbacks.ModelCheckpoint(**folder, filename="last", save_on_train_epoch_end=True),
        *([] if save_steps is None else [_WithinEpoch(save_steps, **folder, filename="last")]),
        FirstEpochTime(_to_take_less(module)),
        callbacks.LambdaCallback(
            on_train_start=lambda *_: begun.append(1),
            on_train_batch_start=lambda *_: raise_if_asked(),
        ),
    ]
    made = [path for path in (out, *out.parents) if not path.exists()]
    try:
        check_writable(out / "checkpoints")
        with (
            advising(lambda: _how_to_go_on(runner, out)),
            explained(out, "free space, then go on with --ckpt_path=last"),
            _writing(runner, out, made, config),
        ):
            for path in replaced:
                path.unlink(missing_ok=True)
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


def _to_go_on_from(
    ckpt_path: str | None, out: Path, overwrite: bool
) -> tuple[str | None, list[Path]]:
    """The checkpoint's path, and the files of another training that the first step removes."""
    folder = out / "checkpoints"
    if ckpt_path == "last":
        ckpt_path = str(folder / "last.ckpt")
    if ckpt_path is not None and not Path(ckpt_path).is_file():
        raise FileNotFoundError(
            f"no checkpoint {ckpt_path}; name one with --ckpt_path, or the folder of the training "
            "to go on with by --out and --ckpt_path last, or leave it out to begin anew"
        )
    if ckpt_path is not None and Path(ckpt_path).resolve().parent == folder.resolve():
        return ckpt_path, []
    theirs = [folder / "best.ckpt", folder / "last.ckpt"]
    refuse_existing(theirs, overwrite)
    return ckpt_path, theirs


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


def _to_take_less(data: SpikingDataModule) -> str:
    """Returns advice that makes an epoch shorter; the time is proportional to the pixels."""
    longer = max(data.in_shape[1:])
    if data.data_set.kind == "events" and longer >= 64:
        return f"; --data.downsample {longer // 2} takes about a quarter of it"
    return "; a lower --model.width or --data.T takes less"


def _trainer(config: TrainerConfig, out: Path) -> Any:
    options = config.plain()
    if isinstance(config.devices, tuple):
        options["devices"] = list(config.devices)
    options |= progress(config.enable_progress_bar)
    if share := config.overfit_batches:  # Lightning's own takes the first samples, of one class
        options |= {"limit_train_batches": share, "limit_val_batches": share, "overfit_batches": 0}
        repeat = callbacks.LambdaCallback(
            on_train_epoch_start=lambda t, _: t.train_dataloader.sampler.set_epoch(0)
        )
        options["callbacks"].append(repeat)
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
            logger=[TensorBoardLog(out, name="", version=""), CsvLog(out, name="csv")],
            plugins=plugins,
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
    """Locks the folder; removes folders made for a training that took no step."""
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
    return f"{stopped}no checkpoint was written yet: the same command begins anew"


def _which_is_best(best: callbacks.ModelCheckpoint, model: ModelConfig) -> str:
    path = best.best_model_path
    if not path or not Path(path).exists():
        return "no best.ckpt: the training ended before the hardening did; see last.ckpt"
    competed = "; only epochs after the end of the hardening competed"
    return (
        f"best.ckpt is of epoch {read_checkpoint(path)['epoch'] + 1}, {best.monitor} "
        f"{best.best_model_score:.4f}{'' if model.hardening is None else competed}\n"
        f"next: htaf-snn test {shlex.quote(path)}"
    )
