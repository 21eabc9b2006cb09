"""What is compared, a spike function and how it is trained, and the record of a run."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

import yaml

from ..arguments import in_range, load_yaml, one_of, quoted, typed
from ..surrogates import is_built_in, spike_function, trains_smooth
from ..training.config import ModelConfig, TrainingConfig

_LABEL = re.compile(r"[\w.:=@+\-,\[\]{} ]{1,200}")
_OWN = ["neuron_options", *(option.name for option in dataclasses.fields(TrainingConfig))]


@dataclass(frozen=True)
class Contender:
    """A spike function, and what differs in its training from the others'.

    Args:
        label: both in one, ``spike[@option=value...]``, for example ``"htaf:mode=hard"``,
            ``"htaf@hardening=null"`` or ``"htaf@sharpness={alpha0: [0.5, 2]}@calibrate=20"``.
            ``spike`` is as `spike_function` reads it, an option one of `TrainingConfig`'s, or
            ``neuron_options``, its value YAML. A built-in of SpikingJelly whose label
            names a ``hardening``, ``"atan@hardening=[0,0.8]"``, begins smooth, with its primitive,
            and is hardened as HTAF is. The option ``calibrate`` is the number of training batches
            from which batch norm is re-estimated with exact spikes, after the training; 0 for
            none.

    Raises:
        ValueError: an unknown spike function or option.
    """

    label: str

    def __post_init__(self) -> None:
        if not _LABEL.fullmatch(self.label):
            raise ValueError(
                f"{quoted(self.label)} must have letters, digits and . _ : = @ + - , [ ] {{ }} "
                "and blanks alone, as figures, tables and files are named after it"
            )
        spike_function(self.label.split("@")[0])
        for assignment in self._assignments():
            name, equals, _ = assignment.partition("=")
            if not equals:
                raise ValueError(f"{assignment!r} in {self.label!r} must read option=value")
            one_of("option", name, [*_OWN, "calibrate"])
        try:
            ModelConfig.of(self.options, "option")
            in_range("calibrate", typed("calibrate", self.calibrate, int), 0)
            if self._is_hardened() and not trains_smooth(spike_function(self.spike)):
                raise ValueError("`hardening` and `recipe` have no effect in mode hard")
        except (ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{self.label!r}: {reason}") from error

    def _is_hardened(self) -> bool:
        options = self._options()
        return options.get("hardening") is not None or "recipe" in options

    def _assignments(self) -> list[str]:
        return self.label.split("@")[1:]

    def _options(self) -> dict[str, Any]:
        pairs = (assignment.split("=", 1) for assignment in self._assignments())
        return {name: load_yaml(text) for name, text in pairs}

    @property
    def spike(self) -> str:
        """As `spike_function` reads it."""
        spike = self.label.split("@")[0]
        hardened = is_built_in(spike) and ":mode=" not in spike and self._is_hardened()
        return f"{spike}:mode=auto" if hardened else spike

    @property
    def function(self) -> str:
        """The spike function with its parameters, whatever its mode."""
        parts = self.label.split("@")[0].split(":")
        return ":".join(part for part in parts if not part.startswith("mode="))

    @property
    def others(self) -> frozenset[str]:
        """The assignments but for those of the treatment and the learning rate."""
        own = ("recipe=", "hardening=", "learning_rate=")
        return frozenset(a for a in self._assignments() if not a.startswith(own))

    @property
    def options(self) -> dict[str, Any]:
        """Of `ModelConfig`, by name."""
        return {name: value for name, value in self._options().items() if name != "calibrate"}

    @property
    def calibrate(self) -> int:
        value: int = self._options().get("calibrate", 0)
        return value


def split_labels(text: str) -> list[str]:
    """Labels between commas; commas within brackets belong to a label."""
    labels, depth = [""], 0
    for character in text:
        depth += (character in "[{(") - (character in ")}]")
        if character == "," and not depth:
            labels.append("")
        else:
            labels[-1] += character
    return labels


class Epoch(TypedDict):
    """An epoch of training, counted from 1.

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

    Hard is the network that fires with the exact step, soft the same with the functions as they
    were trained, trained the same with batch norm as it was trained. For a surrogate gradient hard
    and soft are the same. Accuracies lie in [0, 1].

    Attributes:
        data: the data set's name.
        spike: the contender's label: a spike function as `spike_function` reads it, and after an
            ``@`` how it was trained, for example ``"htaf@hardening=null"``.
        seed: of the initial weights and the data order.
        hard_accuracy: on the test split.
        soft_accuracy: on the test split.
        trained_accuracy: on the test split; None in records of earlier versions.
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
        seconds: that the run took, from which the time left is estimated; no measure of a
            contender's cost.
        concerns: what is wrong with the network, a sentence each.
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
    history: list[Epoch]
    settings: dict[str, Any]
    versions: dict[str, str]
    trained_accuracy: float | None = None
    concerns: list[str] = field(default_factory=list)

    @property
    def statistics_gap_pp(self) -> float:
        """Trained minus soft accuracy, in percentage points; NaN where it was not measured."""
        if self.trained_accuracy is None:
            return math.nan
        return 100 * (self.trained_accuracy - self.soft_accuracy)

    @property
    def treatment(self) -> str:
        """How the spike function was trained: "hardened", "surrogate", "surrogate-free", "smooth".

        A surrogate has the exact step from the start. Smooth is, without an end by the exact step
        or a sharper function, to the end.
        """
        model = self.settings["model"]
        recipe = model.get("recipe", "hardened")
        exact = recipe == "surrogate" or model["hardening"] == [0.0, 0.0]
        if exact or not trains_smooth(spike_function(Contender(self.spike).spike)):
            return "surrogate"
        if recipe == "surrogate_free":
            return "surrogate-free"
        return "smooth" if model["hardening"] is None else "hardened"


def to_json(run: Run) -> dict[str, Any]:
    """The run as a dict of types that JSON has."""
    return dataclasses.asdict(run)


# Fields that records of earlier versions lack, and some that they have.
_ADDED: dict[str, Any] = {"trained_accuracy": None, "concerns": []}
_GONE = ("peak_memory_mib",)


def from_json(record: Mapping[str, Any]) -> Run:
    """The run that `to_json` wrote.

    Raises:
        ValueError: a field is missing or unknown, in the record or in one of its epochs.
    """
    label = " ".join(str(record.get(key, f"no {key}")) for key in ("data", "spike", "seed"))
    record = _ADDED | {name: value for name, value in record.items() if name not in _GONE}
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
