"""The options of ``htaf-snn fit`` in groups: ``--model.*``, ``--trainer.*``, ``--checkpoint.*``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch.callbacks import Timer
from lightning.pytorch.strategies import StrategyRegistry

from ..arguments import Options, in_range, one_of, quoted
from ..models.parts import Norm
from ..models.registry import check_depths
from ..neurons import Backend
from ..neurons.registry import neuron_options
from ..surrogates import spike_function, trains_smooth
from ..transfer import Shape

Recipe = Literal["hardened", "surrogate_free", "surrogate"]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Options):
    """Options of a network; in a comparison the same for all, but for the spike function.

    Args:
        spike: a spike function, ``name`` or ``name:parameter=value``; see
            `htaf_snn.spike_function`.
        neuron: "if", "lif" or "plif", or the import path of a neuron class, one's own or
            SpikingJelly's: "my_module.MyNeuron".
        neuron_options: further arguments of every neuron, such as ``tau`` (``init_tau`` of
            "plif"), ``v_threshold`` or ``detach_reset``.
        model: the network's name, as ``htaf-snn models`` lists them; None for vgg_small, or mlp
            where frames are too small for it.
        width: factor on the network's channel counts, > 0.
        widths: channels of each block of "vgg_small", neurons of each layer of "mlp"; None for
            its own.
        depths: blocks of a spiking transformer, or of each of its three stages; None for its own.
        norm: "bn", or "tdbn" for threshold-dependent batch norm.
        backend: of the neurons; "auto", "torch", "cpu" or "cupy".
        compile: whether `torch.compile` compiles the network.

    Raises:
        ValueError: an unknown spike function or neuron, or an option that it has not.
    """

    spike: str = "htaf"
    neuron: str = "lif"
    neuron_options: dict[str, bool | float | None] | None = None
    model: str | None = None
    width: float = 1.0
    widths: tuple[int | tuple[int, ...], ...] | None = None
    depths: int | tuple[int, int, int] | None = None
    norm: Norm = "bn"
    backend: Backend = "auto"
    compile: bool = False

    def check(self) -> None:
        spike_function(self.spike)
        neuron_options(self.neuron, self.neuron_options or {})
        if self.widths is not None and self.model not in (None, "vgg_small", "mlp"):
            raise ValueError(
                f"`widths` (={self.widths}) are those of vgg_small and mlp; {self.model} has a "
                "`width`"
            )
        if self.depths is not None:
            check_depths(self.model, self.depths)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Options):
    """Options of training; a contender's label may change them.

    Args:
        dropout: probability that an input of the read-out is zero, in [0, 1).
        loss: "mean", the cross-entropy of the mean logits, or "tet", the mean of the
            cross-entropies of every time step.
        label_smoothing: share of the target spread evenly over the classes, in [0, 1).
        optimizer: "adamw", or "sgd" with momentum 0.9.
        learning_rate: the highest, > 0; a cosine schedule ends it at 0.
        weight_decay: >= 0.
        warmup_epochs: epochs over which the learning rate rises from 0, >= 0.
        tbptt_steps: time steps after which the potentials are detached (truncated BPTT); the
            network runs through so many at a time, batch norm included. None for full BPTT.
        sharpness: start and end of parameters of the spike functions, such as
            ``{"alpha0": (0.5, 2.0)}``; see `SharpnessSchedule`.
        sharpness_shape: of the way from start to end: "linear", "cosine" or "geometric".
        recipe: "hardened" begins smooth with the true gradient, and hands over to the exact step
            by ``hardening``, with the smooth derivative; "surrogate_free" does so up to a hardness
            of 0.98, with the derivative of the output itself, and with settings of AdamW for the
            small gradients that this gives; "surrogate" takes the exact step, with the smooth
            derivative, from the start.
        hardening: shares of the training between which the exact step takes the place of the
            smooth output, so that what is trained is what fires; (0, 0) from the start, None
            never. Not for the recipe "surrogate".
        freeze_norm: share of the training after which batch norms, calibrated once more, use their
            running statistics, as at inference; see `freeze_norms`. None never.
        initialise: share of the potentials that reach the threshold before the first step, the
            weights before each layer of neurons without a norm being scaled for it, in (0, 1); see
            `htaf_snn.initialise`. None leaves torch's initialisation.
        checkpoint_activations: whether the backward pass computes each block's activations
            again instead of keeping them.
        cuda_graph: whether a GPU replays the network's passes as CUDA graphs, so that it does not
            wait for Python in small batches; elsewhere the training goes on without, and says so.

    Raises:
        ValueError: a number out of its range.
    """

    dropout: float = 0.0
    loss: Literal["mean", "tet"] = "mean"
    label_smoothing: float = 0.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    warmup_epochs: float = 0.0
    tbptt_steps: int | None = None
    sharpness: dict[str, tuple[float, float]] | None = None
    sharpness_shape: Shape = "geometric"
    recipe: Recipe = "hardened"
    hardening: tuple[float, float] | None = (0.0, 0.8)
    freeze_norm: float | None = 0.9
    initialise: float | None = None
    checkpoint_activations: bool = False
    cuda_graph: bool = False

    def check(self) -> None:
        if self.initialise is not None and not 0 < self.initialise < 1:
            raise ValueError(f"`initialise` (={self.initialise}) must lie in (0, 1)")
        in_range("learning_rate", self.learning_rate, 0, 1e6, open_=True)
        in_range("weight_decay", self.weight_decay, 0, 1e6)
        in_range("warmup_epochs", self.warmup_epochs, 0)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"`label_smoothing` (={self.label_smoothing}) must lie in [0, 1)")
        if self.tbptt_steps is not None:
            in_range("tbptt_steps", self.tbptt_steps, 1)
        if self.freeze_norm is not None:
            in_range("freeze_norm", self.freeze_norm, 0, 1)
        if self.recipe == "surrogate" and self.hardening != TrainingConfig.hardening:
            raise ValueError(
                f"`hardening` (={self.hardening}) is not of the recipe surrogate; leave one out"
            )
        if self.recipe == "surrogate_free" and self.optimizer != "adamw":
            raise ValueError(
                f"`recipe` (=surrogate_free) has gradients that get small, too small for "
                f"`optimizer` (={self.optimizer}); take adamw"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(NetworkConfig, TrainingConfig):
    """A network and its training: the fields of `NetworkConfig` and `TrainingConfig`."""

    def schedule(self) -> dict[str, Any]:
        """The arguments of `SharpnessSchedule` that the recipe stands for."""
        return {
            "shape": self.sharpness_shape,
            "hardening": (0.0, 0.0) if self.recipe == "surrogate" else self.hardening,
            "true_gradient": self.recipe == "surrogate_free",
            **(self.sharpness or {}),
        }

    def check(self) -> None:
        NetworkConfig.check(self)
        TrainingConfig.check(self)
        if self.recipe != "hardened" and not trains_smooth(spike_function(self.spike)):
            raise ValueError(
                f"`recipe` (={self.recipe}) needs a spike function that can train smooth, not "
                f"{self.spike}; a built-in takes it as {self.spike.partition(':')[0]}:mode=auto"
            )
        for name in ("compile", "checkpoint_activations", "tbptt_steps"):
            if self.cuda_graph and getattr(self, name):
                raise ValueError(
                    f"`cuda_graph` with `{name}` (={getattr(self, name)}): leave one out"
                )
        if self.compile and self.sharpness:
            raise ValueError(
                f"`sharpness` (of {', '.join(self.sharpness)}) with `compile`: every step would be "
                "compiled anew; leave one of them out"
            )


def migrate(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Completes the settings of an earlier version by the options that it had not."""
    return {"freeze_norm": None, "initialise": None, "recipe": "hardened", **settings}


# (least, most) of the trainer's numbers, where there are any.
_RANGES: dict[str, tuple[float, float]] = {
    "max_epochs": (1, 1e9), "min_epochs": (0, 1e9), "max_steps": (1, 1e12), "min_steps": (0, 1e12),
    "num_nodes": (1, 1e5), "accumulate_grad_batches": (1, 1e6), "gradient_clip_val": (0, 1e12),
    "check_val_every_n_epoch": (1, 1e9), "num_sanity_val_steps": (0, 1e9),
    "log_every_n_steps": (0, 1e9), "fast_dev_run": (0, 1e6), "overfit_batches": (0, 1e9),
}  # fmt: skip
_POSITIVE = ("limit_train_batches", "limit_val_batches", "val_check_interval")
_MINUS_ONE = ("max_epochs", "max_steps", "num_sanity_val_steps")  # means: no limit


@dataclass(frozen=True, kw_only=True)
class TrainerConfig(Options):
    """Arguments of Lightning's `Trainer` that are of use on a command line.

    Loggers, callbacks and plugins of one's own are given to a `Trainer` in Python.

    Args:
        max_epochs: passes over the training samples.
        max_steps: steps of the optimizer at most; -1 for no limit.
        max_time: DD:HH:MM:SS at most.
        min_epochs: passes at least, where something would stop earlier.
        min_steps: likewise, in steps.
        accelerator: "auto", "cpu", "gpu" or another of Lightning's.
        devices: how many, as 2, or which, as [0, 1], or "auto".
        num_nodes: machines.
        strategy: of several devices, such as "ddp".
        precision: such as "bf16-mixed"; None for 32 bits.
        sync_batchnorm: whether batch norm has its statistics from all devices; GPUs only.
        accumulate_grad_batches: batches a step of the optimizer.
        gradient_clip_val: largest norm, or value, of the gradient; None for any.
        gradient_clip_algorithm: "norm" or "value"; None is "norm".
        val_check_interval: validations within an epoch: batches, or share of the epoch.
        check_val_every_n_epoch: epochs a validation.
        num_sanity_val_steps: validation batches before the training.
        limit_train_batches: batches, or share of them, of each epoch.
        limit_val_batches: likewise, of each validation.
        overfit_batches: batches, or share of them, that are trained on again and again.
        fast_dev_run: whether a batch of everything is all, or how many are.
        log_every_n_steps: steps a line of the logs.
        enable_progress_bar: None for where standard error is a terminal; elsewhere a line an epoch.
        enable_model_summary: whether the network's parts are listed; None for with the bar.
        deterministic: whether torch takes deterministic algorithms alone.
        benchmark: whether cuDNN tries which algorithm is fastest.
        detect_anomaly: whether autograd looks for what is not finite.
        profiler: "simple", "advanced" or "pytorch".

    Raises:
        ValueError: a value that can't be.
    """

    max_epochs: int = 12
    max_steps: int = -1
    max_time: str | None = None
    min_epochs: int | None = None
    min_steps: int | None = None
    accelerator: str = "auto"
    devices: int | str | tuple[int, ...] = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str | None = None
    sync_batchnorm: bool = False
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    val_check_interval: int | float | None = None
    check_val_every_n_epoch: int = 1
    num_sanity_val_steps: int | None = None
    limit_train_batches: int | float | None = None
    limit_val_batches: int | float | None = None
    overfit_batches: int | float = 0.0
    fast_dev_run: bool | int = False
    log_every_n_steps: int = 10
    enable_progress_bar: bool | None = None
    enable_model_summary: bool | None = None
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    detect_anomaly: bool = False
    profiler: Literal["simple", "advanced", "pytorch"] | None = None

    def check(self) -> None:
        for name, value in self.plain().items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if name in _RANGES and number and not (value == -1 and name in _MINUS_ONE):
                in_range(f"trainer.{name}", value, *_RANGES[name])
            if name in _POSITIVE and number:
                in_range(f"trainer.{name}", value, 0, 1e9, open_=True)
        if self.strategy != "auto":
            others = ("spawn", "fork", "notebook", "xla")  # of another kind of process
            known = StrategyRegistry.available_strategies()
            one_of(
                "trainer.strategy",
                self.strategy,
                [name for name in known if not any(word in name for word in others)],
            )
        many, which = r"-1|[1-9]\d?", r"[\[(]\d+(, ?\d+)*,?[\])]|\d+,[\d,]*"
        if self.devices != "auto" and not re.fullmatch(f"{many}|{which}", str(self.devices)):
            raise ValueError(
                f"`trainer.devices` (={quoted(self.devices)}) must be how many, as 1, or which, as "
                "[0, 1], or auto"
            )
        if self.max_time is not None:
            try:
                limit = Timer(self.max_time).time_remaining()
            except Exception as error:  # of many kinds
                raise ValueError(
                    f"`trainer.max_time` (={self.max_time}) must read DD:HH:MM:SS: {error}"
                ) from error
            in_range("trainer.max_time", limit or 0, 0, open_=True)
        if 0 < self.max_epochs < self.check_val_every_n_epoch:
            raise ValueError(
                f"`trainer.check_val_every_n_epoch` (={self.check_val_every_n_epoch}) must not be "
                f"above trainer.max_epochs (={self.max_epochs}), or no network is validated"
            )


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Options):
    """Options that choose the epoch of ``best.ckpt``.

    Args:
        monitor: the metric.
        mode: whether its greatest or its least value is best.
    """

    monitor: Literal["val_accuracy", "val_loss", "train_accuracy", "train_loss"] = "val_accuracy"
    mode: Literal["max", "min"] = "max"
