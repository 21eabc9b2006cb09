"""A run's record: what was measured, and its form on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict


class Epoch(TypedDict):
    """An epoch of training.

    ``val_loss`` and ``val_accuracy`` are of the network that fires with the exact step;
    ``gradient_norms`` are L2 norms by layer of weights, means over the epoch's steps.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    gradient_norms: dict[str, float]


@dataclass(frozen=True)
class Run:
    """One contender trained with one seed on one data set, tested once.

    Hard is the network that fires with the exact step, soft the network as it was trained; for a
    surrogate gradient they are the same. Accuracies lie in [0, 1].

    Attributes:
        data: the data set's name.
        spike: the contender's label: a spike function as `spike_function` reads it, and after an
            ``@`` how it was trained, for example ``"htaf@hardening=null"``.
        seed: of the initial weights and the data order.
        hard_accuracy: on the test split.
        soft_accuracy: on the test split.
        gap_pp: soft minus hard accuracy, in percentage points.
        hard_loss: on the test split.
        soft_loss: on the test split.
        val_accuracy: hard, on the validation split, of the weights that were tested.
        firing_rate: spikes a neuron and time step, hard.
        firing_rate_by_layer: the same for each layer of neurons, in the network's order.
        outputs: share of the neurons' outputs, as in the last training step, in 50 equal bins
            of [0, 1].
        synaptic_operations: a sample, hard.
        energy_nj: nJ a sample, hard, at 45 nm: 4.6 pJ a multiply-accumulate, 0.9 pJ an
            accumulate (Horowitz, ISSCC 2014, doi.org/10.1109/ISSCC.2014.6757323).
        seconds: CPU seconds of the training.
        peak_memory_mib: of the training, in MiB.
        history: the epochs, in order.
        settings: what the run was made with, in types that JSON has.
        versions: packages by name.
    """

    data: str
    spike: str
    seed: int
    hard_accuracy: float
    soft_accuracy: float
    gap_pp: float
    hard_loss: float
    soft_loss: float
    val_accuracy: float
    firing_rate: float
    firing_rate_by_layer: dict[str, float]
    outputs: list[float]
    synaptic_operations: float
    energy_nj: float
    seconds: float
    peak_memory_mib: float
    history: list[Epoch]
    settings: dict[str, Any]
    versions: dict[str, str]


def to_json(run: Run) -> dict[str, Any]:
    """The run as a dict of types that JSON has."""
    return dataclasses.asdict(run)


def from_json(record: Mapping[str, Any]) -> Run:
    """The run that `to_json` wrote.

    Raises:
        ValueError: a field is missing or unknown, in the record or in one of its epochs.
    """
    label = " ".join(str(record.get(key, f"no {key}")) for key in ("data", "spike", "seed"))
    _check_fields(record, (f.name for f in dataclasses.fields(Run)), f"the record of {label}")
    for number, epoch in enumerate(record["history"]):
        _check_fields(epoch, Epoch.__annotations__, f"`history[{number}]` of {label}")
    return Run(**record)


def _check_fields(record: Mapping[str, Any], names: Iterable[str], what: str) -> None:
    known = set(names)
    if missing := sorted(known - record.keys()):
        raise ValueError(f"{what} lacks {', '.join(missing)}; make the run anew")
    if unknown := sorted(record.keys() - known):
        raise ValueError(
            f"{what} has the unknown {', '.join(unknown)}; read it with the version that wrote it"
        )
