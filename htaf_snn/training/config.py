"""The options of ``htaf-snn fit`` in groups: ``--model.*``, ``--trainer.*``, ``--checkpoint.*``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lightning.pytorch.strategies import StrategyRegistry

from ..arguments import Options, one_of, quoted, within
from ..models.parts import Norm
from ..models.registry import check_depths
from ..neurons import Backend
from ..neurons.registry import neuron_options
from ..surrogates import spike_function, trains_smooth
from ..transfer import Shape

Recipe = Literal["hardened", "surrogate_free", "surrogate"]


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
            of 0.98, with the derivative of the output itself, and scales the small gradients that
            this gives to length 1, each parameter's; "surrogate" takes the exact step, with the
            smooth derivative, from the start.
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
    label_smoothing: float = within(0.0, 0, 1, below=True)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = within(3e-3, 0, 1e6, open_=True)
    weight_decay: float = within(1e-2, 0, 1e6)
    warmup_epochs: float = within(0.0, 0)
    tbptt_steps: int | None = within(None, 1)
    sharpness: dict[str, tuple[float, float]] | None = None
    sharpness_shape: Shape = "geometric"
    recipe: Recipe = "hardened"
    hardening: tuple[float, float] | None = (0.0, 0.8)
    freeze_norm: float | None = within(0.9, 0, 1)
    initialise: float | None = within(None, 0, 1, open_=True, below=True)
    checkpoint_activations: bool = False
    cuda_graph: bool = False

    def check(self) -> None:
        super().check()
        if self.recipe == "surrogate" and self.hardening != TrainingConfig.hardening:
            raise ValueError(
                f"`hardening` (={self.hardening}) is not of the recipe surrogate; leave one out"
            )
        if self.recipe == "surrogate_free" and self.optimizer != "adamw":
            raise ValueError(
                "`recipe` (=surrogate_free) gives gradients of length 1, which say nothing about "
                f"the size of a step of `optimizer` (={self.optimizer}); take adamw"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig(TrainingConfig):
    """Options of a network, and those of its training: the fields of `TrainingConfig`.

    In a comparison the network is the same for all, but for the spike function.

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
        ValueError: an unknown spike function or neuron, an option that it has not, or options that
            do not go together.
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

    def schedule(self) -> dict[str, Any]:
        """The arguments of `SharpnessSchedule` that the recipe stands for."""
        return {
            "shape": self.sharpness_shape,
            "hardening": (0.0, 0.0) if self.recipe == "surrogate" else self.hardening,
            "true_gradient": self.recipe == "surrogate_free",
            **(self.sharpness or {}),
        }

    def check(self) -> None:
        super().check()
        spike_function(self.spike)
        neuron_options(self.neuron, self.neuron_options or {})
        if self.widths is not None and self.model not in (None, "vgg_small", "mlp"):
            raise ValueError(
                f"`widths` (={self.widths}) are those of vgg_small and mlp; {self.model} has a "
                "`width`"
            )
        if self.depths is not None:
            check_depths(self.model, self.depths)
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
    added = {"cuda_graph": False, "depths": None, "freeze_norm": None, "initialise": None}
    return {"recipe": "hardened", **added, **settings}


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

    prefix: ClassVar[str] = "trainer."

    max_epochs: int = within(12, -1, 1e9)
    max_steps: int = within(-1, -1, 1e12)
    max_time: str | None = None
    min_epochs: int | None = within(None, 0, 1e9)
    min_steps: int | None = within(None, 0, 1e12)
    accelerator: str = "auto"
    devices: int | str | tuple[int, ...] = "auto"
    num_nodes: int = within(1, 1, 1e5)
    strategy: str = "auto"
    precision: str | None = None
    sync_batchnorm: bool = False
    accumulate_grad_batches: int = within(1, 1, 1e6)
    gradient_clip_val: float | None = within(None, 0, 1e12)
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    val_check_interval: int | float | None = within(None, 0, 1e9, open_=True)
    check_val_every_n_epoch: int = within(1, 1, 1e9)
    num_sanity_val_steps: int | None = within(None, -1, 1e9)
    limit_train_batches: int | float | None = within(None, 0, 1e9, open_=True)
    limit_val_batches: int | float | None = within(None, 0, 1e9, open_=True)
    overfit_batches: int | float = within(0.0, 0, 1e9)
    fast_dev_run: bool | int = within(False, 0, 1e6)
    log_every_n_steps: int = within(10, 0, 1e9)
    enable_progress_bar: bool | None = None
    enable_model_summary: bool | None = None
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    detect_anomaly: bool = False
    profiler: Literal["simple", "advanced", "pytorch"] | None = None

    def check(self) -> None:
        super().check()
        for name in ("max_epochs", "max_steps"):
            if not getattr(self, name):
                raise ValueError(f"`trainer.{name}` (=0) must be at least 1, or -1 for no limit")
        if self.strategy != "auto":
            others = re.compile("spawn|fork|notebook|xla")  # of another kind of process
            known = [s for s in StrategyRegistry.available_strategies() if not others.search(s)]
            one_of("trainer.strategy", self.strategy, known)
        many, which = r"-1|[1-9]\d?", r"[\[(]\d+(, ?\d+)*,?[\])]|\d+,[\d,]*"
        if self.devices != "auto" and not re.fullmatch(f"{many}|{which}", str(self.devices)):
            raise ValueError(
                f"`trainer.devices` (={quoted(self.devices)}) must be how many, as 1, or which, as "
                "[0, 1], or auto"
            )
        if self.max_time is not None and not re.fullmatch(
            r"(?=.*[1-9])\d{1,6}(:\d\d){3}", self.max_time.strip()
        ):
            raise ValueError(
                f"`trainer.max_time` (={self.max_time}) must read DD:HH:MM:SS, and be above 0"
            )
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
