"""Using a trained checkpoint: test, predict, find its gap, calibrate it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lightning as L
import torch

from .. import transfer
from ..data import SpikingDataModule
from ..files import write_whole
from ..transfer import TransferGap, transfer_gap
from . import predict as prediction
from .checkpoint_io import read_checkpoint
from .module import SpikingClassifier
from .predict import Prediction


def load(checkpoint: Path) -> SpikingClassifier:
    """The model of a checkpoint of `fit`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a checkpoint of this library, or is damaged.
    """
    read_checkpoint(checkpoint)
    try:
        model: SpikingClassifier = SpikingClassifier.load_from_checkpoint(
            checkpoint, map_location="cpu", weights_only=True
        )
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{checkpoint} can't be read as a checkpoint of htaf-snn fit: {error}"
        ) from error
    return model.eval()


def _load_data(checkpoint: Path, root: Path | None = None) -> SpikingDataModule:
    moved = {} if root is None else {"root": str(root)}
    data: SpikingDataModule = SpikingDataModule.load_from_checkpoint(
        checkpoint, map_location="cpu", weights_only=True, **moved
    )
    return data


def test(checkpoint: Path, root: Path | None = None) -> dict[str, float]:
    """Measures a checkpoint on the test split of the data that it was trained on.

    Args:
        checkpoint: a file written by `fit`.
        root: folder of the data, if it has moved.

    Returns:
        hard_accuracy, soft_accuracy, gap_pp (soft minus hard, percentage points), firing_rate,
        and firing_rate/<layer> of each.
    """
    model, data = load(checkpoint), _load_data(checkpoint, root)
    trainer = L.Trainer(logger=False, enable_checkpointing=False, enable_model_summary=False)
    (metrics,) = trainer.test(model, data, verbose=False)
    return dict(metrics)


def gap(checkpoint: Path, root: Path | None = None, band: float = 0.1) -> TransferGap:
    """Finds the layers in which a checkpoint loses accuracy at the exact step, on validation data.

    Args:
        checkpoint: a file written by `fit`.
        root: folder of the data, if it has moved.
        band: an output is uncertain if it lies in (band, 1 - band); in (0, 1/2).
    """
    model, data = load(checkpoint), _load_data(checkpoint, root)
    return transfer_gap(model, data.val_dataloader(), band)


def calibrate(
    checkpoint: Path, root: Path | None = None, batches: int = 100, out: Path | None = None
) -> Path:
    """Re-estimates a checkpoint's batch norm with exact spikes, from training data.

    Args:
        checkpoint: a file written by `fit`; it stays as it is.
        root: folder of the data, if it has moved.
        batches: most batches to use, >= 1.
        out: the new checkpoint; ``<checkpoint>-calibrated.ckpt`` beside it unless it is given.

    Returns:
        the new checkpoint's path.
    """
    out = out or checkpoint.with_name(f"{checkpoint.stem}-calibrated.ckpt")
    model, data = load(checkpoint), _load_data(checkpoint, root)
    transfer.calibrate(model.net, data.train_dataloader(), batches)
    content = read_checkpoint(checkpoint) | {"state_dict": model.state_dict()}
    write_whole(out, lambda partial: torch.save(content, partial))
    return out


def predict(
    checkpoint: Path,
    recordings: Path,
    window: int | None = None,
    csv: Path | None = None,
    json: Path | None = None,
    plot: Path | None = None,
) -> Iterator[Prediction]:
    """Labels of event recordings, by the hard network; a bad recording does not end it.

    Nothing but the checkpoint is needed: framing and class names stand in it.

    Args:
        checkpoint: a file written by `fit` on event data.
        recordings: one file, or a folder that is searched for them.
        window: microseconds of the parts of a recording that are labelled each; None labels the
            whole, or parts as long as those trained on.
        csv: a table of all predictions.
        json: the same as JSON.
        plot: a picture (.png, .pdf, .svg) of events and class probabilities over time.

    Raises:
        FileNotFoundError: no such file, or no recording in the folder.
        ValueError: the model was trained on static images, or a number out of its range.
    """
    framing, classes = prediction.framing_in(checkpoint)
    framing, model = prediction.with_window(framing, window), load(checkpoint)
    files = prediction.recordings_at(recordings)
    made = []
    for found in prediction.labels(model, framing, classes, files):
        made.append(found)
        yield found
    for path, write in (
        (csv, prediction.write_csv), (json, prediction.write_json), (plot, prediction.draw),
    ):  # fmt: skip
        if path is not None:
            write(path, made, classes)
