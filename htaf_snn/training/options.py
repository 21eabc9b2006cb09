"""The options of a training that Lightning itself takes too late, or silently as something else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Timer
from lightning.pytorch.strategies import StrategyRegistry

from ..arguments import in_range, one_of, quoted, typed

METRICS = ("val_accuracy", "val_loss", "train_accuracy", "train_loss")

# (least, most) of numbers; None and words are left to the type.
_RANGES: dict[str, tuple[float, float]] = {
    "max_epochs": (1, 1e9), "min_epochs": (0, 1e9), "max_steps": (1, 1e12), "min_steps": (0, 1e12),
    "num_nodes": (1, 1e5), "accumulate_grad_batches": (1, 1e6), "gradient_clip_val": (0, 1e12),
    "check_val_every_n_epoch": (1, 1e9), "num_sanity_val_steps": (0, 1e9),
    "log_every_n_steps": (0, 1e9), "fast_dev_run": (0, 1e6), "overfit_batches": (0, 1e9),
    "reload_dataloaders_every_n_epochs": (0, 1e9),
}  # fmt: skip
_POSITIVE = ("limit_train_batches", "limit_val_batches", "val_check_interval")
_MINUS_ONE = ("max_epochs", "max_steps", "num_sanity_val_steps")  # means: no limit
_WORDS = {
    "profiler": ("simple", "advanced", "pytorch"),
    "gradient_clip_algorithm": ("norm", "value"),
}
# What this program does itself, and how.
_OURS: dict[str, tuple[tuple[Any, ...], str]] = {
    "enable_checkpointing": ((None, True), "best.ckpt and last.ckpt are always written"),
    "barebones": ((False,), "fit writes logs and checkpoints"),
    "default_root_dir": ((None,), "results go into the folder that --out names"),
    "inference_mode": ((True,), "validation is always without gradients"),
    "use_distributed_sampler": ((True,), "the samples are shared out by the data module"),
    "model_registry": ((None,), "checkpoints go into the folder that --out names"),
}


def check_trainer(options: Mapping[str, Any]) -> None:
    """Checks the options of ``trainer`` that have a range that their type does not say.

    Raises:
        ValueError: a value that can't be, or that this program has no use for.
    """
    for name, value in options.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in _OURS and value not in _OURS[name][0]:
            raise ValueError(f"`trainer.{name}` (={value}): {_OURS[name][1]}; leave it out")
        if name in _RANGES and number and not (value == -1 and name in _MINUS_ONE):
            in_range(f"trainer.{name}", value, *_RANGES[name])
        if name in _POSITIVE and number:
            in_range(f"trainer.{name}", value, 0, 1e9, open_=True)
        if name in _WORDS and isinstance(value, str):
            one_of(f"trainer.{name}", value, _WORDS[name])
    strategy = options.get("strategy")
    if isinstance(strategy, str) and strategy != "auto":
        others = ("spawn", "fork", "notebook", "xla")  # of another kind of process
        known = StrategyRegistry.available_strategies()
        one_of(
            "trainer.strategy",
            strategy,
            [name for name in known if not any(word in name for word in others)],
        )
    _check_devices(options.get("devices", "auto"))
    if options.get("max_time") is not None:
        try:
            limit = Timer(options["max_time"])._duration
        except Exception as error:
            raise ValueError(
                f"`trainer.max_time` (={options['max_time']}) must read DD:HH:MM:SS: {error}"
            ) from error
        in_range("trainer.max_time", limit or 0, 0, open_=True)
    every, epochs = options.get("check_val_every_n_epoch"), options.get("max_epochs")
    if every is not None and epochs is not None and 0 < epochs < every:
        raise ValueError(
            f"`trainer.check_val_every_n_epoch` (={every}) must not be above trainer.max_epochs "
            f"(={epochs}), or no network is validated"
        )


def _check_devices(devices: object) -> None:
    many, which = r"-1|[1-9]\d?", r"\[\d+(, \d+)*\]|\d+,[\d,]*"
    if devices != "auto" and not re.fullmatch(f"{many}|{which}", str(devices)):
        raise ValueError(
            f"`trainer.devices` (={quoted(devices)}) must be how many, as 1, or which, as [0, 1], "
            "or auto"
        )


def check_checkpoints(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Checks the options of ``checkpoint``, of which those that choose the best are the user's.

    Raises:
        ValueError: an unknown metric or direction, or another option that is not as it was.
    """
    one_of("checkpoint.monitor", options["monitor"], METRICS)
    one_of("checkpoint.mode", options["mode"], ("max", "min"))
    for name, value in options.items():
        free = name in ("monitor", "mode", "verbose", "dirpath")
        if not free and value != defaults[name]:
            raise ValueError(
                f"`checkpoint.{name}` (={value}): fit keeps best.ckpt and last.ckpt, of each epoch"
                "; leave it out, or see --save_steps"
            )


def check_run(options: Mapping[str, Any]) -> None:
    """Checks the options of `fit` itself.

    Raises:
        ValueError: a number out of its range, or a checkpoint that there is not.
        FileNotFoundError: likewise.
    """
    in_range("seed", typed("seed", options["seed"], int), 0, 2**32 - 1)
    for name in ("save_steps", "patience"):
        if options[name] is not None:
            in_range(name, options[name], 1)
    ema = options["ema"]
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"`ema` (={ema}) must lie in (0, 1)")
    path = options["ckpt_path"]
    if path not in (None, "last") and not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint {path}; name one with --ckpt_path, or last")
