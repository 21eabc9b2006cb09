"""Labels of recordings by a checkpoint alone: framing and class names stand in it."""

import csv
import io
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..checkpoint_io import checkpoint_errors, read_checkpoint
from ..data import SpikingDataModule
from ..data.framing import Framing
from ..data.recordings import files_at, recordings_in
from ..files import write_figure, write_whole
from ..transfer import firing_hard
from .module import SpikingClassifier
from .use import model_in

_MOST_DRAWN = 20  # recordings
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """One recording's label, or that of one of its windows, or why there is none.

    Args:
        path: of the recording.
        label: -1 where there is none.
        name: of the class.
        confidence: softmax probability of the label.
        probabilities: of all classes.
        start: microseconds from the first event that is labelled to the window's first.
        events: how many there are.
        windowed: whether it is of a window.
        error: what is wrong with the recording; empty otherwise.
    """

    path: Path
    label: int = -1
    name: str = ""
    confidence: float = float("nan")
    probabilities: tuple[float, ...] = ()
    start: int = 0
    events: int = 0
    windowed: bool = False
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return self.error
        at = f"  at {self.start / 1e6:.3f} s" if self.windowed else ""
        return f"{self.path}{at}  {self.name}  confidence {self.confidence:.4f}"


def predict(
    checkpoint: Path,
    recordings: Path,
    window: int | None = None,
    csv: Path | None = None,
    json: Path | None = None,
    plot: Path | None = None,
    allow: str | None = None,
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
        allow: module that the checkpoint's spike function and neuron may be imported from.

    Raises:
        FileNotFoundError: no such file, or no recording in the folder.
        ValueError: the model was trained on static images, or a number out of its range.
    """
    content = read_checkpoint(checkpoint)
    framing, classes = framing_in(content, checkpoint)
    if window is not None:
        framing = replace(framing, window=window)
    model = model_in(content, checkpoint, allow)
    files = [path for file in files_at(recordings) for path in recordings_in(file)]
    made = []
    for found in _labels(model, framing, classes, files):
        made.append(found)
        yield found
    for path, write in ((csv, write_csv), (json, write_json), (plot, _draw)):
        if path is not None:
            write(path, made, classes)


def framing_in(content: dict[str, Any], checkpoint: Path) -> tuple[Framing, list[str]]:
    """Returns a checkpoint's framing and the names of its classes."""
    state = content.get(SpikingDataModule.__name__)
    if not isinstance(state, dict) or "framing" not in state:
        name = content.get("datamodule_hyper_parameters", {}).get("name", "other data")
        raise ValueError(
            f"{checkpoint} was trained on {name}, not on events, or by an earlier version; predict "
            "takes event recordings, so train on event data"
        )
    with checkpoint_errors(checkpoint):
        settings: dict[str, Any] = dict(state["framing"])
        if "by" in settings:  # an earlier version's
            settings["frames_by"] = settings.pop("by")
        framing = Framing.of(settings, "setting of framing")
        return framing, [str(name) for name in state["classes"]]


def _labels(
    model: SpikingClassifier, framing: Framing, classes: Sequence[str], files: Sequence[Path]
) -> Iterator[Prediction]:
    """Labels of recordings, window by window, by the hard network; a bad one doesn't end it."""
    for path in files:
        try:
            windows = framing.windows(path)
        except (ValueError, OSError) as error:
            yield Prediction(path, error=str(error))
            continue
        first = int(windows[0]["t"][0])
        for events in windows:
            frames = torch.from_numpy(framing.frames(events)).float()
            with torch.inference_mode(), firing_hard(model):
                probabilities = model(frames[:, None]).softmax(-1)[0]
            label = int(probabilities.argmax())
            yield Prediction(
                path,
                label,
                classes[label] if label < len(classes) else str(label),
                float(probabilities.max()),
                tuple(probabilities.tolist()),
                int(events["t"][0]) - first,
                len(events),
                framing.window is not None,
            )


def write_csv(path: Path, predictions: Sequence[Prediction], classes: Sequence[str]) -> None:
    """A line a prediction: what and where it is, its label, and a column a class."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["path", "start_us", "events", "label", "name", "confidence", "error", *classes])
    for p in predictions:
        numbers = ("", "", "") if p.error else (p.label, p.name, p.confidence)
        table.writerow([p.path, p.start, p.events, *numbers, p.error, *p.probabilities])
    write_whole(path, lambda partial: partial.write_text(text.getvalue(), "utf-8", newline=""))


def write_json(path: Path, predictions: Sequence[Prediction], classes: Sequence[str]) -> None:
    """A list of objects, with the probabilities by class name, or with an error."""
    rows: list[dict[str, Any]] = [
        {"path": str(p.path), "error": p.error}
        if p.error
        else {
            "path": str(p.path), "start_us": p.start, "events": p.events, "label": p.label,
            "name": p.name, "confidence": p.confidence,
            "probabilities": dict(zip(classes, p.probabilities, strict=False)),
        }
        for p in predictions
    ]  # fmt: skip
    text = json.dumps(rows, indent=1) + "\n"
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _draw(path: Path, predictions: Sequence[Prediction], classes: Sequence[str]) -> None:
    """A picture of each recording's windows: events a window, and the classes' probabilities."""
    from matplotlib.figure import Figure

    good = [p for p in predictions if not p.error]
    if not good:
        raise ValueError("no recording has a label: there is nothing to draw")
    of = [(path, list(windows)) for path, windows in groupby(good, lambda p: p.path)]
    if len(of) > _MOST_DRAWN:
        drawn = f"the first {_MOST_DRAWN} of {len(of)} recordings"
        _logger.info("%s: %s; --csv and --json have all", path, drawn)
        of = of[:_MOST_DRAWN]
    figure = Figure((8, 2.4 * len(of)), layout="constrained")
    axes = figure.subplots(len(of), 1, squeeze=False)[:, 0]
    for axis, (recording, windows) in zip(axes, of, strict=True):
        seconds = [p.start / 1e6 for p in windows]
        last = seconds[-1] - seconds[-2] if len(windows) > 1 else 1
        edges = [*seconds, seconds[-1] + last]
        counts = np.array([p.events for p in windows])
        axis.stairs(counts / counts.max(), edges, fill=True, color="0.9", label="events")
        for number, name in enumerate(classes):
            axis.stairs([p.probabilities[number] for p in windows], edges, label=name)
        axis.set(title=recording.name, xlabel="time (s)", ylabel="probability", ylim=(0, 1.05))
    if len(classes) <= 12:
        axes[0].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    write_figure(figure, path, dpi=120)
