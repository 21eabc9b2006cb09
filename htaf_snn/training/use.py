"""Using a trained checkpoint: test it, find its gap, calibrate and export it."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch

from .. import transfer
from ..arguments import arguments_of, typed
from ..checkpoint_io import check_import, checkpoint_errors, read_checkpoint, settings_in
from ..data import SpikingDataModule
from ..exporting import SUFFIX, Exported, Format, files_of
from ..exporting import export as export_net
from ..files import refuse_existing, write_whole
from ..models.registry import is_network
from ..neurons.host import is_neuron_class
from ..surrogates.registry import is_spike_function
from .config import ModelConfig, migrate
from .module import SpikingClassifier
from .progress import progress

_logger = logging.getLogger(__name__)


def load(checkpoint: Path, allow: str | None = None) -> SpikingClassifier:
    """The model of a checkpoint of `fit`, built from its settings, each checked by its type.

    Args:
        checkpoint: a file written by `fit`.
        allow: module that the checkpoint's spike function and neuron may be imported from.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a checkpoint of this library, is damaged, or names a spike
            function of a module that is neither imported nor allowed.
    """
    return model_in(read_checkpoint(checkpoint), checkpoint, allow)


def model_in(content: dict[str, Any], checkpoint: Path, allow: str | None) -> SpikingClassifier:
    """The model of a checkpoint's content; see `load`."""
    with checkpoint_errors(checkpoint):
        settings = migrate(settings_in(content, "hyper_parameters"))
        check_import("spike function", settings.get("spike"), is_spike_function, allow)
        check_import("neuron", settings.get("neuron"), is_neuron_class, allow)
        check_import("network", settings.get("model"), is_network, allow)
        rest = {key: settings.pop(key, None) for key in ("in_shape", "num_classes", "seed", "T")}
        config = ModelConfig.of(settings, "entry of its hyper_parameters", complete=True)
        given = arguments_of(SpikingClassifier, rest, "entry of its hyper_parameters")
        model = SpikingClassifier(config=config, **given)
        model.on_load_checkpoint(content)
        model.load_state_dict(content["state_dict"])
        epoch = typed("epoch", content.get("epoch", 0), int)
    step = content.get("global_step")
    _logger.info("%s: the weights of epoch %s, step %s", checkpoint, epoch + 1, step)
    return model.eval()


def _load(
    checkpoint: Path, root: Path | None, allow: str | None
) -> tuple[SpikingClassifier, SpikingDataModule]:
    content = read_checkpoint(checkpoint)
    model = model_in(content, checkpoint, allow)
    data = SpikingDataModule.of_checkpoint(content, checkpoint, root, allow)
    if (data.in_shape, data.num_classes) != (model.in_shape, model.num_classes):
        raise ValueError(
            f"{checkpoint} was trained on frames {model.in_shape} of {model.num_classes} classes; "
            f"its data, {data.data_set.name}, have {data.in_shape} and {data.num_classes}"
        )
    return model, data


class TestMetrics(dict[str, float]):
    """Metrics by name; as a string, a line each."""

    def __str__(self) -> str:
        rates = {n.partition("/")[2]: rate for n, rate in self.items() if "/" in n}
        lines = [
            f"trained accuracy  {self['trained_accuracy']:.4f}  batch statistics as in training",
            f"soft accuracy     {self['soft_accuracy']:.4f}  running statistics",
            f"hard accuracy     {self['hard_accuracy']:.4f}  and the exact step: what is used",
            f"statistics gap    {self['statistics_gap_pp']:+.2f} pp",
            f"transfer gap      {self['gap_pp']:+.2f} pp",
            f"firing rate       {self['firing_rate']:.4f}",
            *(f"  {name:15} {rate:.4f}" for name, rate in rates.items()),
        ]
        return "\n".join(lines)


def test(checkpoint: Path, root: Path | None = None, allow: str | None = None) -> TestMetrics:
    """Measures a checkpoint on the test split of the data that it was trained on.

    Args:
        checkpoint: a file written by `fit`.
        root: folder of the data, if it has moved.
        allow: module that the checkpoint's spike function and neuron may be imported from.

    Returns:
        trained_accuracy (batch norm as in training), soft_accuracy (running statistics),
        hard_accuracy (and the exact step: the network that is used); statistics_gap_pp and gap_pp,
        the differences of these in percentage points; firing_rate, and firing_rate/<layer>.
    """
    model, data = _load(checkpoint, root, allow)
    trainer = L.Trainer(
        logger=False, enable_checkpointing=False, enable_model_summary=False, **progress()
    )
    (metrics,) = trainer.test(model, data, verbose=False)
    return TestMetrics(metrics)


def gap(
    checkpoint: Path, root: Path | None = None, band: float = 0.1, allow: str | None = None
) -> transfer.TransferGap:
    """Finds where a checkpoint loses accuracy, at running statistics or the exact step.

    It is measured on validation data.

    Args:
        checkpoint: a file written by `fit`.
        root: folder of the data, if it has moved.
        band: an output is uncertain if it lies in (band, 1 - band); in (0, 1/2).
        allow: module that the checkpoint's spike function and neuron may be imported from.
    """
    model, data = _load(checkpoint, root, allow)
    return transfer.transfer_gap(model, data.val_dataloader(), band)


def calibrate(
    checkpoint: Path,
    root: Path | None = None,
    batches: int = 100,
    out: Path | None = None,
    allow: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Re-estimates a checkpoint's batch norm with exact spikes, from training data.

    Args:
        checkpoint: a file written by `fit`; it stays as it is.
        root: folder of the data, if it has moved.
        batches: most batches to use, >= 1.
        out: the new checkpoint; ``<checkpoint>-calibrated.ckpt`` beside it unless it is given.
        allow: module that the checkpoint's spike function and neuron may be imported from.
        overwrite: whether a file that is there is replaced.
    """
    out = out or checkpoint.with_name(f"{checkpoint.stem}-calibrated.ckpt")
    refuse_existing([out], overwrite)
    model, data = _load(checkpoint, root, allow)
    transfer.calibrate(model.net, data.train_dataloader(), batches)
    content = read_checkpoint(checkpoint) | {"state_dict": model.state_dict()}
    write_whole(out, lambda partial: torch.save(content, partial))
    return out


def export(
    checkpoint: Path,
    format: Format = "nir",
    out: Path | None = None,
    step: bool = False,
    root: Path | None = None,
    allow: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """Writes a checkpoint's hard network for other frameworks, once it agrees on the test split.

    Args:
        checkpoint: a file written by `fit` or `compare`.
        format: nir, onnx or spikingjelly.
        out: the file; unless it is given, beside the checkpoint and of its name, with .nir, .onnx
            or .py, -step.onnx of one step.
        step: whether an ONNX model is of one time step, with states in and out.
        root: folder of the data, if it has moved.
        allow: module that the checkpoint's spike function and neuron may be imported from.
        overwrite: whether files that are there are replaced.
    """
    kind = "-step" if step else ""
    out = out or checkpoint.with_name(f"{checkpoint.stem}{kind}{SUFFIX[format]}")
    refuse_existing(files_of(format, out), overwrite)
    model, data = _load(checkpoint, root, allow)
    data.setup("test")
    return export_net(model.net, data.test_dataloader(), out, format, step=step)
