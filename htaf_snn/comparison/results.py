"""The runs of a comparison, and the one file of them, which is whole at any time."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from ..files import write_whole
from ..surrogates import spike_function, trains_smooth
from ..training.config import migrate
from .study import Contender

FILE = "results.json"
GO_ON = "free space; the runs in results.json are saved, and the same command goes on after them"


class Epoch(TypedDict):
    """An epoch of training, counted from 1."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float  # as the accuracy, of the network that fires with the exact step
    val_accuracy: float
    gradient_norms: dict[str, float]  # L2, by layer of weights, means over the epoch's steps


@dataclass(frozen=True)
class Run:
    """One contender trained with one seed on one data set, tested once.

    Hard is the network that fires with the exact step, soft the same with the functions as they
    were trained, trained the same with batch norm as it was trained. For a surrogate gradient hard
    and soft are the same. Accuracies lie in [0, 1].

    Attributes:
        data: the data set's name.
        spike: the contender's label; see `Contender`.
        seed: of the initial weights and the data order.
        hard_accuracy, soft_accuracy, hard_loss, soft_loss: on the test split.
        gap_pp: soft minus hard accuracy, in percentage points.
        val_accuracy: hard, on the validation split, of the weights that were tested.
        firing_rate: spikes a neuron and time step, hard.
        firing_rate_by_layer: the same for each layer of neurons, in the network's order.
        outputs: share of the neurons' outputs, as in the last training step, in 50 equal bins
            of [0, 1].
        synaptic_operations: a sample, hard.
        energy_nj: nJ a sample, hard, at 45 nm; see `htaf_snn.energy.operations`.
        seconds: that the run took, from which the time left is estimated; no measure of a
            contender's cost.
        history: the epochs, in order.
        settings: what the run was made with, in types that JSON has.
        versions: packages by name.
        trained_accuracy: on the test split; None in records of earlier versions.
        concerns: what is wrong with the network, a sentence each.
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
    history: list[Epoch]
    settings: dict[str, Any]
    versions: dict[str, str]
    trained_accuracy: float | None = None
    concerns: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The data set, contender and seed, of which a comparison has one run."""
        return f"{self.data}, {self.spike}, seed {self.seed}"

    @property
    def statistics_gap_pp(self) -> float:
        """Trained minus soft accuracy, in percentage points; NaN where it was not measured."""
        if self.trained_accuracy is None:
            return math.nan
        return 100 * (self.trained_accuracy - self.soft_accuracy)

    @property
    def treatment(self) -> str:
        """The training's kind: "hardened", "surrogate", "surrogate-free" or "smooth".

        A surrogate has the exact step from the start. Smooth is, without an end by the exact step
        or a sharper function, to the end.
        """
        model = migrate(self.settings["model"])
        exact = model["recipe"] == "surrogate" or model["hardening"] == [0.0, 0.0]
        if exact or not trains_smooth(spike_function(Contender(self.spike).spike)):
            return "surrogate"
        if model["recipe"] == "surrogate_free":
            return "surrogate-free"
        return "smooth" if model["hardening"] is None else "hardened"


def from_json(record: Mapping[str, Any]) -> Run:
    """Reads a run that was written as a dict of its fields, by this version or an earlier one."""
    label = " ".join(str(record.get(key, f"no {key}")) for key in ("data", "spike", "seed"))
    added = {"trained_accuracy": None, "concerns": []} | dict(record)
    added.pop("peak_memory_mib", None)  # of earlier versions
    _check_fields(added, (f.name for f in dataclasses.fields(Run)), f"the record of {label}")
    for number, epoch in enumerate(added["history"]):
        _check_fields(epoch, Epoch.__annotations__, f"`history[{number}]` of {label}")
    return Run(**added)


def _check_fields(record: Mapping[str, Any], names: Iterable[str], what: str) -> None:
    known = set(names)
    if missing := sorted(known - record.keys()):
        raise ValueError(f"{what} lacks {', '.join(missing)}; make the run anew")
    if unknown := sorted(record.keys() - known):
        raise ValueError(
            f"{what} has the unknown {', '.join(unknown)}; read it with the version that wrote it"
        )


class Trial(TypedDict):
    """A learning rate that was tried on the first seed."""

    data: str
    spike: str
    learning_rate: float
    val_accuracy: float | None  # of the exact network; None where training diverged


@dataclass
class Results:
    """The runs and the trials of a folder's ``results.json``, by the names of their tasks."""

    command: str = ""  # what a reader types to repeat the comparison
    runs: dict[str, Run] = field(default_factory=dict)
    trials: dict[str, Trial] = field(default_factory=dict)

    def add(self, name: str, run: Run, order: Iterable[str] = ()) -> None:
        """Adds a run, in place of one of the same data set, contender and seed.

        Those named in ``order`` come first, then the others.
        """
        runs = {n: r for n, r in self.runs.items() if r.key != run.key} | {name: run}
        self.runs = {n: runs[n] for n in order if n in runs} | runs

    def write(self, folder: Path) -> None:
        """Writes ``results.json``, a line a run and a trial."""
        parts: dict[str, dict[str, Any]] = {
            "runs": {name: dataclasses.asdict(run) for name, run in self.runs.items()},
            "trials": dict(sorted(self.trials.items())),
        }
        text = f'{{"command": {json.dumps(self.command)}'
        for key, entries in parts.items():
            lines = ",\n".join(f"{json.dumps(n)}: {json.dumps(e)}" for n, e in entries.items())
            text += f',\n"{key}": {{\n{lines}\n}}'
        write_whole(folder / FILE, lambda partial: partial.write_text(f"{text}}}\n"), GO_ON)


def read_results(folder: Path) -> Results:
    """Reads what `Results.write` wrote; empty if there is no file.

    Raises:
        ValueError: the file can't be read as such.
    """
    path = folder / FILE
    if not path.exists():
        return Results()
    try:
        content = json.loads(path.read_text())
        runs = {name: from_json(record) for name, record in content["runs"].items()}
        return Results(content["command"], runs, content["trials"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no record of htaf-snn compare: {error}") from error
