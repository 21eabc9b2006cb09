"""The report's figures: which there are, their captions, and their files."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from ..drawing import save_figure
from .figures import (
    Looks,
    accuracies,
    accuracy_against_gap,
    firing_rates,
    learning_curves,
    output_shares,
)
from .maps import gradient_norms, sensitivity
from .record import Run
from .spike_figure import spike_functions
from .statistics import Summary


@dataclass(frozen=True)
class Picture:
    """A figure with the name of its files, and what it shows."""

    name: str
    title: str
    caption: str
    figure: Figure

    def save(self, folder: Path) -> None:
        """Writes ``<name>.png`` and ``<name>.pdf`` into ``folder``."""
        save_figure(self.figure, folder, self.name)

    def data_uri(self) -> str:
        """The figure as an SVG within a ``data:`` address."""
        file = io.BytesIO()
        self.figure.savefig(file, format="svg", metadata={"Date": None})
        return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"


def of_data_set(data: str, summaries: Sequence[Summary], looks: Looks) -> Iterator[Picture]:
    """The figures of one data set."""
    prefix = file_name(data)
    yield Picture(
        f"{prefix}-accuracy",
        "Test accuracy",
        "Mean and 95 % t-interval over seeds of the network that fires with the exact step; a tick "
        "is a seed; an open diamond is the mean of the network as it was trained, smooth.",
        accuracies(summaries, looks),
    )
    yield Picture(
        f"{prefix}-gap",
        "Accuracy against gap",
        "Mean with 95 % t-intervals over seeds, and each seed as a dot. Without a gap, what was "
        "trained is what fires; a surrogate gradient has none by definition.",
        accuracy_against_gap(summaries, looks),
    )
    yield Picture(
        f"{prefix}-learning",
        "Learning curves",
        "Validation error (1 - accuracy) of the network that fires with the exact step, and "
        "training loss. Line: mean over seeds; band: from the least to the greatest seed.",
        learning_curves(summaries, looks),
    )
    yield Picture(
        f"{prefix}-rates",
        "Firing rates by layer",
        "Spikes a neuron and time step on the test split, exact step, mean over seeds.",
        firing_rates(summaries, looks),
    )
    yield Picture(
        f"{prefix}-outputs",
        "Distribution of outputs",
        "Share of the neurons' outputs in 50 equal bins, in the last training step, mean over "
        "seeds. What lies between the ends is not yet a spike or none; a surrogate gradient has "
        "the two ends only.",
        output_shares(summaries, looks),
    )
    yield Picture(
        f"{prefix}-gradients",
        "Gradient norms by layer and epoch",
        "L2 norm of the gradient of each layer's weights, mean over the steps of an epoch, "
        "geometric mean over seeds; one colour scale for all contenders.",
        gradient_norms(summaries),
    )


def of_functions(looks: Looks) -> Picture:
    """The spike functions and their derivatives."""
    return Picture(
        "functions",
        "Spike functions and derivatives",
        "Above, what a neuron outputs in training: smooth functions as curves, all others are the "
        "exact step. Below, the derivative that training uses.",
        spike_functions(looks),
    )


def of_sensitivity(runs: Sequence[Run]) -> Iterator[Picture]:
    """A map over (alpha0, alpha1) for each data set."""
    for data in dict.fromkeys(run.data for run in runs):
        yield Picture(
            f"{file_name(data)}-sensitivity",
            f"Sensitivity on {data}",
            "HTAF's hard test accuracy and gap over the inner sharpness alpha0 and the outer "
            "saturation alpha1, mean over seeds.",
            sensitivity([run for run in runs if run.data == data]),
        )


def file_name(data: str) -> str:
    """The data set's name with nothing in it that a path could stumble over."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", data).strip(".")
