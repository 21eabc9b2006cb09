"""One run of a comparison, what is measured in it, and runs side by side."""

import contextlib
import importlib.metadata
import multiprocessing
import platform
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from spikingjelly.activation_based import functional, monitor, neuron
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from ..checkpoint_io import WholeCheckpointIO
from ..data import SpikingDataModule
from ..data.cache import end_with_parent
from ..data.splits import frames_first
from ..energy import operations
from ..extras import needed
from ..training.progress import concerns, progress
from ..transfer import calibrate, firing_as_trained
from .results import GO_ON, Epoch, Run
from .study import Contender, Task

T = TypeVar("T")
R = TypeVar("R")
OUTPUT_BINS = 50
_PACKAGES = ("htaf-snn", "torch", "spikingjelly", "lightning", "tonic", "numpy")
_MEASURED = 128  # samples of the validation split, for outputs and operations
_TESTED = ("hard_accuracy", "soft_accuracy", "trained_accuracy", "gap_pp", "hard_loss", "soft_loss",
           "firing_rate")  # fmt: skip


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
    options = progress(None, task.key) if show else quiet
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


def work(
    function: Callable[[T], R], tasks: Sequence[T], workers: int = 1, ray_address: str | None = None
) -> Generator[R, None, None]:
    """Yields ``function`` of each task, as they are finished, begun in their order.

    Several workers are other processes, which see the same files; of a Ray cluster, all cores.

    Raises:
        concurrent.futures.process.BrokenProcessPool: a worker was killed, for memory perhaps.
    """
    if ray_address is not None:
        yield from _by_ray(function, tasks, ray_address)
    elif workers > 1 and tasks:
        yield from _side_by_side(function, tasks, min(workers, len(tasks)))
    else:
        yield from map(function, tasks)


def _side_by_side(function: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[R]:
    others = set(multiprocessing.active_children())
    # Not by joblib, whose workers outlive a parent that is killed. Spawned, as a fork of a process
    # whose threads have run can hang.
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    try:
        for done in as_completed([executor.submit(function, task) for task in tasks]):
            yield done.result()
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.kill()  # Lightning would hear a SIGTERM and go on
        raise
    executor.shutdown()


def _begin() -> None:
    """Makes this process a worker: one thread, quiet, and no longer alive than its parent."""
    from ..cli import configure_logging

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal's Ctrl-C the parent takes care
    torch.set_num_threads(1)
    configure_logging()
    end_with_parent()


def _by_ray(function: Callable[[T], R], tasks: Sequence[T], address: str) -> Iterator[R]:
    ray = needed("ray")
    ray.init(address=address, log_to_driver=False, include_dashboard=False)
    try:
        remote = ray.remote(num_cpus=1)(lambda task: function(task))
        pending = [remote.remote(task) for task in tasks]
        while pending:
            done, pending = ray.wait(pending)
            yield from ray.get(done)
    finally:
        ray.shutdown()
