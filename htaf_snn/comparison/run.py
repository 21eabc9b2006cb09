"""One run of a comparison, and what is measured in it."""

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from spikingjelly.activation_based import functional, monitor, neuron
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from ..checkpoint_io import WholeCheckpointIO
from ..data import DataConfig, SpikingDataModule, data_set
from ..data.splits import frames_first
from ..energy import operations
from ..models import default_model
from ..surrogates import spike_function
from ..training import ModelConfig, SpikingClassifier
from ..training.progress import concerns, progress
from ..transfer import calibrate, firing_as_trained
from .contender import Contender
from .results import GO_ON, Epoch, Key, Run

OUTPUT_BINS = 50
_PACKAGES = ("htaf-snn", "torch", "spikingjelly", "lightning", "tonic", "numpy")
_MEASURED = 128  # samples of the validation split, for outputs and operations
_TESTED = ("hard_accuracy", "soft_accuracy", "trained_accuracy", "gap_pp", "hard_loss", "soft_loss",
           "firing_rate")  # fmt: skip


@dataclass(frozen=True)
class Task:
    """Everything that decides a run."""

    title: str  # of the data, in reports
    data: DataConfig
    model: ModelConfig  # what all contenders share; a contender's own options come on top
    contender: str  # a label; see `Contender`
    seed: int  # of the initial weights and the data order, the same for every contender
    epochs: int  # budget, >= 1

    @property
    def key(self) -> Key:
        """The same as that of the task's `Run`."""
        return Key(self.title, self.contender, self.seed)

    @property
    def config(self) -> ModelConfig:
        contender = Contender(self.contender)
        name = self.model.model or default_model(data_set(self.data.name).shape)
        try:
            return replace(self.model, model=name, spike=contender.spike, **contender.options)
        except ValueError as error:
            raise ValueError(f"{self.contender}: {error}") from error

    def settings(self) -> dict[str, Any]:
        """All that decides the run, defaults included, in types that JSON has."""
        contender = Contender(self.contender)
        settings = {
            "spike": repr(spike_function(contender.spike)),
            "epochs": self.epochs,
            "seed": self.seed,
            "calibrate": contender.calibrate,
            "data": self.data.plain(),
            "model": self.config.plain() | {"spike": self.model.spike},
        }
        return dict(json.loads(json.dumps(settings)))

    @property
    def name(self) -> str:
        """A file's name, without suffix, that only this task has, wherever the data are."""
        settings = self.settings()
        del settings["data"]["root"]
        text = json.dumps([self.title, self.contender, settings], sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=5).hexdigest()
        title, label = (re.sub(r"[^\w.=-]+", "_", t) for t in (self.title, self.contender))
        return f"{title}-{label}-seed{self.seed}-{digest}"

    def build(self) -> tuple[SpikingDataModule, SpikingClassifier]:
        """The data and the network, before any training.

        Raises:
            ValueError: an argument out of its range or of the wrong type.
        """
        L.seed_everything(self.seed, verbose=False)
        data = SpikingDataModule(self.data, self.seed)
        try:
            model = SpikingClassifier(
                data.in_shape, data.num_classes, self.config, self.seed, self.data.T
            )
        except ValueError as error:
            raise ValueError(f"{self.contender}: {error}") from error
        return data, model


class _History(L.Callback):
    """The epochs of a training: losses, accuracies, and gradient norms by layer of weights."""

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []
        self._norms: dict[str, list[Tensor]] = {}

    def on_before_optimizer_step(self, _trainer: L.Trainer, module: Any, _optimizer: Any) -> None:
        for name, layer in module.net.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.grad is not None:
                self._norms.setdefault(name, []).append(layer.weight.grad.norm())

    def on_train_epoch_end(self, trainer: L.Trainer, _module: L.LightningModule) -> None:
        epoch: Any = {"epoch": trainer.current_epoch + 1}
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            epoch[name] = float(trainer.callback_metrics[name])
        norms = {name: float(torch.stack(steps).mean()) for name, steps in self._norms.items()}
        self._norms.clear()
        self.epochs.append(epoch | {"gradient_norms": norms})


def train(task: Task, show: bool = True) -> tuple[Any, list[Epoch]]:
    """Trains the task's network through all its epochs, without the test split.

    The trainer that it returns beside the epochs holds the network and the data.
    """
    data, model = task.build()
    history = _History()
    quiet: dict[str, Any] = {"enable_progress_bar": False, "callbacks": []}
    options = progress(None, str(task.key)) if show else quiet
    options["callbacks"].append(history)
    trainer = L.Trainer(
        max_epochs=task.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[WholeCheckpointIO(GO_ON)],
        **options,
    )
    data.setup()
    trainer.fit(model, data)
    if batches := Contender(task.contender).calibrate:
        calibrate(model.net, data.train_dataloader(), batches)
    return trainer, history.epochs


def validate(trainer: Any) -> float:
    """Returns the exact network's accuracy on validation, with the weights as they are now."""
    (metrics,) = trainer.validate(trainer.lightning_module, trainer.datamodule, verbose=False)
    return float(metrics["val_accuracy"])


def run(task: Task, checkpoints: Path | None = None, show: bool = True) -> Run:
    """Trains, then reads the test split once, with the weights of the last epoch.

    The network is saved to the folder ``checkpoints``, if it is given.
    """
    start = time.monotonic()
    trainer, history = train(task, show)
    val_accuracy = validate(trainer)
    model, data = trainer.lightning_module, trainer.datamodule
    (metrics,) = trainer.test(model, data, verbose=False)
    if checkpoints is not None:
        trainer.save_checkpoint(checkpoints / f"{task.name}.ckpt")
    net = model.net.eval()
    batches = _spread(data)
    synaptic_operations, energy_nj = operations(net, batches[0])
    return Run(
        data=task.title,
        spike=task.contender,
        seed=task.seed,
        val_accuracy=val_accuracy,
        firing_rate_by_layer={n.partition("/")[2]: v for n, v in metrics.items() if "/" in n},
        outputs=output_shares(net, batches),
        synaptic_operations=synaptic_operations,
        energy_nj=energy_nj,
        seconds=time.monotonic() - start,
        history=history,
        settings=task.settings(),
        versions=versions(),
        concerns=concerns(metrics, history[-1]["train_accuracy"]),
        **{name: float(metrics[name]) for name in _TESTED},
    )


def _spread(data: SpikingDataModule) -> list[Tensor]:
    """Frames of samples spread evenly over the validation split, which lies class by class."""
    validation = data.splits.validation
    samples = len(validation)  # type: ignore[arg-type]
    chosen = Subset(validation, range(0, samples, -(-samples // _MEASURED)))
    loader = DataLoader(chosen, batch_size=_MEASURED, collate_fn=frames_first)
    return [x_seq for x_seq, _ in loader]


def output_shares(net: nn.Module, batches: Iterable[Tensor]) -> list[float]:
    """Shares of the neurons' outputs in equal bins of [0, 1], the network firing as trained.

    ``net`` is in ``eval()``; ``batches`` are frames [T, N, C, H, W], at least one.
    """

    def binned(outputs: Tensor) -> Tensor:
        return outputs.float().histc(OUTPUT_BINS, 0, 1).double()

    counted: Any = monitor.OutputMonitor(net, neuron.BaseNode, binned)
    with torch.no_grad(), firing_as_trained(net), counted:
        for x_seq in batches:
            functional.reset_net(net)
            net(x_seq)
    total = torch.stack(counted.records).sum(0)
    return [float(share) for share in total / total.sum()]


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide a run."""
    found = {"python": platform.python_version()} | dict.fromkeys(_PACKAGES, "not installed")
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
