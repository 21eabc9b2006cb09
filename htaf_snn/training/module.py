"""Training of a spiking classifier by direct BPTT, as a Lightning module."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from spikingjelly.activation_based import functional, monitor, neuron
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassStatScores

from .. import transfer
from ..arguments import in_range, typed
from ..models import default_model
from ..models import model as build_model
from ..models.parts import SpikingNetwork
from ..models.registry import takes_T
from ..neurons.registry import neuron_class, neuron_options
from ..process import seed_torch
from ..surrogates import SpikeFunction, spike_function, trains_smooth
from .config import ModelConfig
from .gpu import CapturedNetwork
from .losses import LOSSES, DivergedError, first_not_finite

_logger = logging.getLogger(__name__)

CALIBRATION_BATCHES = 32  # of training samples, for the statistics that are frozen
# A network as it is used, exact; as it is used, but smooth if it was trained so; and as it was
# trained, with the statistics of each batch where its norms were not frozen.
FORMS = ("hard", "soft", "trained")
Batch = tuple[Tensor, Tensor]  # frames [T, N, C, H, W], labels [N] or probabilities [N, classes]


class SpikingClassifier(L.LightningModule):
    """A spiking network, trained by direct BPTT.

    Nothing is detached between time steps unless asked for. Validation and test fire with the
    exact step. The test also measures the network with smooth spikes, if it was trained so, and as
    it was trained, batch statistics included: the two gaps are between these three.

    Args:
        in_shape: (C, H, W) of a frame.
        num_classes: number of labels.
        config: what the network is and how it is trained.
        seed: of what is random within a step, such as dropout.
        T: time steps, for a network with weights for each (masnn); None for its own.

    Raises:
        ValueError: an unknown network, or one that does not take such frames, or such steps.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        num_classes: int,
        config: ModelConfig | None = None,
        seed: int = 0,
        T: int | None = None,
    ) -> None:
        super().__init__()
        config = config or ModelConfig()
        config = replace(config, model=config.model or default_model(in_shape))
        in_range("seed", seed, 0, 2**32 - 1)
        given = {"in_shape": in_shape, "num_classes": num_classes, "seed": seed, "T": T}
        self.save_hyperparameters(given | config.plain())
        self.config, self.seed = config, seed
        self.in_shape, self.num_classes = in_shape, num_classes
        self.loss = LOSSES[config.loss]
        assert config.model is not None
        if takes_T(config.model) and config.tbptt_steps is not None:
            raise ValueError(
                f"`tbptt_steps` (={config.tbptt_steps}) must be left out with {config.model}, "
                "which has weights for each time step and takes all of them at once"
            )
        self.net = build_model(
            config.model,
            in_shape,
            num_classes,
            neuron_class(config.neuron),
            config.width,
            config.norm,
            config.dropout,
            **({} if config.widths is None else {"widths": config.widths}),
            **({} if config.depths is None else {"depths": config.depths}),
            **({} if T is None or not takes_T(config.model) else {"T": T}),
            surrogate_function=spike_function(config.spike),
            backend=config.backend,
            **neuron_options(config.neuron, config.neuron_options or {}),
        )
        if config.checkpoint_activations:
            if not isinstance(self.net, SpikingNetwork):
                raise ValueError(f"`checkpoint_activations` is not for {config.model}")
            self.net.checkpoint_activations()
        # How many steps there are is known once the training begins.
        self._schedule = transfer.SharpnessSchedule(self.net, 1, **config.schedule())
        self._frozen = False  # whether the norms are, since their share of the training
        if config.compile:
            self.net.compile()
        self._captured = CapturedNetwork(self.net) if config.cuda_graph else None
        for weight in self.net.parameters():
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)  # as frames
        self.train_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.scores: Any = nn.ModuleDict(
            {form: MulticlassStatScores(num_classes, average=None) for form in FORMS}
        )
        self.losses: Any = nn.ModuleDict(
            {name: MeanMetric() for name in ("val_loss", "hard_loss", "soft_loss")}
        )
        self.firing_rates: Any = nn.ModuleDict(
            {name.replace(".", "_"): MeanMetric() for name in [*self.layer_names(), "network"]}
        )

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # Lightning's options are not for it
        cls, checkpoint_path: Any, **options: Any
    ) -> Any:
        """`htaf_snn.training.use.load`, which checks a file from elsewhere."""
        from .use import load

        return load(Path(checkpoint_path), **options)

    def layer_names(self) -> list[str]:
        """The names of the network's neuron layers, in order."""
        return [n for n, m in self.net.named_modules() if isinstance(m, neuron.BaseNode)]

    def forward(self, x_seq: Tensor) -> Tensor:
        """Logits [N, num_classes], averaged over time, of frames [T, N, C, H, W]."""
        return self.logits_seq(x_seq).mean(0)

    def logits_seq(self, x_seq: Tensor, as_trained: bool | None = None) -> Tensor:
        """Logits [T, N, num_classes] of frames [T, N, C, H, W], from the neurons' first state.

        ``as_trained``: a truncated BPTT's parts go through the network one by one; None is in
        training only.
        """
        functional.reset_net(self.net)
        x_seq = _channels_last(x_seq)
        steps = self.config.tbptt_steps
        truncated = self.training if as_trained is None else as_trained
        if self._captured is not None and self.training and torch.is_grad_enabled():
            return self._captured(x_seq)
        if not truncated or steps is None or steps >= len(x_seq):
            return self.net(x_seq)
        parts = []
        for part in x_seq.split(steps):
            functional.detach_net(self.net)
            parts.append(self.net(part))
        return torch.cat(parts)

    def on_train_start(self) -> None:
        if self._captured is not None:
            self._captured.check(self.trainer.accumulate_grad_batches, self.trainer.world_size)

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        self._seed(batch_index)
        self._schedule.total_steps = self._total_steps()
        self._schedule.set(self.global_step)
        if self.config.initialise and not (self.global_step or batch_index):
            self._initialise(self.config.initialise, batch[0])
            self._seed(batch_index)
        share = self.config.freeze_norm
        due = share is not None and self.global_step >= share * self._schedule.total_steps
        if due != self._frozen and transfer.norms_of(self.net):
            if due:
                self._calibrate(batch_index)
            transfer.freeze_norms(self.net, due)
            self._frozen = due

    def _initialise(self, share: float, x_seq: Tensor) -> None:
        """Scales the weights so that layers without a norm fire; on all devices the same."""
        with self.trainer.precision_plugin.forward_context():
            if not transfer.initialise(self.net, x_seq, share):
                _logger.warning("`initialise` (=%s) is off: each neuron has a norm before", share)
        self.net.load_state_dict(self.trainer.strategy.broadcast(self.net.state_dict()))

    def _calibrate(self, batch_index: int) -> None:
        """Re-estimates batch norm from training samples, with spikes as in training."""
        data = getattr(self.trainer, "datamodule", None)
        loader: Any = self.trainer.train_dataloader if data is None else data.train_dataloader()
        batches = (_channels_last(x_seq.to(self.device)) for x_seq, _ in loader)
        with self.trainer.precision_plugin.forward_context():
            transfer.calibrate(self.net, batches, CALIBRATION_BATCHES, hard=False)
        self._seed(batch_index)  # which the samples' augmentation changed

    def _seed(self, batch_index: int) -> None:
        # A batch's randomness depends on these alone, so that a resumed run repeats it.
        seed_torch(self.seed, self.global_rank, self.current_epoch, batch_index)

    def _total_steps(self) -> int:
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise ValueError(
                "`trainer.max_epochs` (=-1): the schedules of learning rate and sharpness need an "
                "end; set trainer.max_epochs or trainer.max_steps"
            )
        return int(steps)

    @property
    def has_handed_over(self) -> bool:
        """True if the hardening has ended after the steps so far, or there is none."""
        return self._schedule.has_handed_over(self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["sharpness_schedule"] = self._schedule.state_dict()
        checkpoint["norms_frozen"] = self._frozen

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        x_seq, labels = batch
        logits_seq = self.logits_seq(x_seq)
        loss = self.loss(logits_seq.float(), labels, self.config.label_smoothing)
        if not loss.isfinite():
            where = "the input" if not x_seq.isfinite().all() else None
            self._seed(batch_index)
            where = where or first_not_finite(self.net, lambda: self.logits_seq(x_seq))
            raise DivergedError(
                f"the loss is {loss.item()} at step {self.global_step} (epoch "
                f"{self.current_epoch + 1}); the first output that is not finite is that of "
                f"{where or 'the loss itself'}{self._remedy()}"
            )
        indices = labels if labels.ndim == 1 else labels.argmax(1)
        self.train_accuracy(logits_seq.mean(0), indices)
        shown = {"on_epoch": True, "prog_bar": True}
        self._log("train_loss", loss, labels, on_step=True, **shown)
        self._log("train_accuracy", self.train_accuracy, labels, on_step=False, **shown)
        return loss

    def on_before_optimizer_step(self, _optimizer: torch.optim.Optimizer) -> None:
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            return  # float16: the scaler skips steps whose gradients overflow
        gradients = {n: p.grad for n, p in self.net.named_parameters() if p.grad is not None}
        norms = torch.nn.utils.get_total_norm(gradients.values())
        if not norms.isfinite():
            bad = next(name for name, grad in gradients.items() if not grad.isfinite().all())
            raise DivergedError(
                f"the gradient of {bad} is not finite at step {self.global_step} (epoch "
                f"{self.current_epoch + 1}){self._remedy()}"
            )
        if self.config.recipe == "surrogate_free":
            transfer.unit_gradients(self.parameters())

    def _remedy(self) -> str:
        kept: list[Any] = [
            callback.best_model_path
            for callback in self.trainer.checkpoint_callbacks
            if isinstance(callback, ModelCheckpoint) and callback.best_model_path
        ] or [self.trainer.ckpt_path]
        last = next((p for p in kept if p and Path(p).stem == "last"), kept[0])
        where = f"the last good checkpoint is {last}" if last else "no checkpoint was written yet"
        return (
            f"; {where}. Lower model.learning_rate, or clip gradients with "
            "--trainer.gradient_clip_val"
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "sharpness_schedule" in checkpoint:
            self._schedule.load_state_dict(checkpoint["sharpness_schedule"])
            # The state_dict, which is loaded after this, may be that of averaged weights, whose
            # sharpness no schedule has changed.
            for name, module in self.named_modules():
                if isinstance(module, SpikeFunction):
                    for key in set(self.config.sharpness or {}).intersection(
                        module.parameter_names
                    ):
                        sharpness = torch.tensor(getattr(module, key), dtype=torch.float64)
                        checkpoint["state_dict"][f"{name}.{key}"] = sharpness
        self._frozen = typed("norms_frozen", checkpoint.get("norms_frozen", False), bool)
        if transfer.norms_of(self.net):
            transfer.freeze_norms(self.net, self._frozen)
        theirs = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        for key in (
            "model", "in_shape", "num_classes", "width", "widths", "depths", "neuron", "norm"
        ):  # fmt: skip
            saved, own = theirs.get(key), self.hparams[key]
            if key in theirs and _plain(saved) != _plain(own):
                raise ValueError(
                    f"the checkpoint is of another network: its {key} is {saved}, here it is {own}"
                )

    def validation_step(self, batch: Batch, _batch_index: int) -> None:
        x_seq, labels = batch
        with transfer.firing_hard(self.net):
            logits = self(x_seq)
        self.val_accuracy(logits, labels)
        self._log_loss("val_loss", logits, labels, prog_bar=True)
        self._log("val_accuracy", self.val_accuracy, labels, prog_bar=True)

    def test_step(self, batch: Batch, _batch_index: int) -> None:
        x_seq, labels = batch
        with (
            transfer.firing_hard(self.net),
            monitor.OutputMonitor(
                self.net, neuron.BaseNode, lambda spikes: (spikes.mean(), spikes.numel())
            ) as fired,
        ):
            hard = self(x_seq)
        for name in self.layer_names():
            rate, count = fired[name][0]
            own = self.firing_rates[name.replace(".", "_")]
            for metric in (own, self.firing_rates["network"]):
                metric.update(rate, weight=count)
            self._log(f"firing_rate/{name}", own, labels)
        self._log("firing_rate", self.firing_rates["network"], labels)
        soft = hard
        if any(trains_smooth(f) for f in transfer.spike_functions(self.net)):
            with transfer.firing_as_trained(self.net):
                soft = self(x_seq)
        trained = soft
        if len(labels) > 1 and transfer.trains_by_batch(self.net):  # one sample has no statistics
            with transfer.firing_as_trained(self.net), transfer.batch_statistics(self.net):
                trained = self.logits_seq(x_seq, as_trained=True).mean(0)
        for form, logits in zip(FORMS, (hard, soft, trained), strict=True):
            self.scores[form].update(logits, labels)
        self._log_loss("hard_loss", hard, labels)
        self._log_loss("soft_loss", soft, labels)

    def on_test_epoch_end(self) -> None:
        accuracies = {}
        for form, scores in self.scores.items():
            counts = scores.compute().double()  # [classes, (tp, fp, tn, fn, support)]
            scores.reset()
            samples = counts[:, 4].sum()
            accuracies[form] = counts[:, 0].sum() / samples
        found = {
            **{f"{form}_accuracy": accuracy for form, accuracy in accuracies.items()},
            "statistics_gap_pp": 100 * (accuracies["trained"] - accuracies["soft"]),
            "gap_pp": 100 * (accuracies["soft"] - accuracies["hard"]),
            "commonest_class": counts[:, 4].max() / samples,
            "samples": samples,
        }
        self.log_dict(found, sync_dist=True)  # the same on all devices already

    def configure_optimizers(self) -> Any:
        config = self.config
        settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        kind: Any = torch.optim.AdamW
        if config.optimizer == "sgd":
            kind = partial(torch.optim.SGD, momentum=0.9)
        optimizer = kind(self.parameters(), **settings)

        def share(step: int) -> float:
            if step == 0:  # when the data are not set up yet
                return 0.0 if config.warmup_epochs else 1.0
            steps = self._total_steps()
            epoch = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
            rising = int(min(steps - 1, config.warmup_epochs * math.ceil(epoch)))
            if step < rising:
                return step / rising
            return (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def _log_loss(self, name: str, logits: Tensor, labels: Tensor, **options: Any) -> None:
        metric = self.losses[name]  # Lightning's mean over devices rounds their numbers of samples
        metric.update(nn.functional.cross_entropy(logits, labels), weight=len(labels))
        self._log(name, metric, labels, **options)

    def _log(self, name: str, value: Tensor | Metric, labels: Tensor, **options: Any) -> None:
        self.log(name, value, batch_size=len(labels), **options)


def _channels_last(x_seq: Tensor) -> Tensor:
    """Frames in the layout that the CPU's convolutions, norms and poolings take least time with."""
    return x_seq.flatten(0, 1).contiguous(memory_format=torch.channels_last).view_as(x_seq)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
