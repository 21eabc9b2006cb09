"""What is compared: a spike function and how it is trained, as one label."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import yaml

from ..arguments import one_of
from ..surrogates import spike_function
from ..training import SpikingClassifier

# What all contenders share: the network, and what it runs on.
_SHARED = {
    "in_shape", "num_classes", "spike", "seed", "model", "width", "widths", "norm", "neuron",
    "backend", "compile",
}  # fmt: skip
_TRAINING = [n for n in inspect.signature(SpikingClassifier).parameters if n not in _SHARED]


@dataclass(frozen=True)
class Contender:
    """A spike function, and what differs in its training from the others'.

    Args:
        label: both in one, ``spike[@option=value...]``, for example ``"htaf:mode=hard"``,
            ``"htaf@hardening=null"`` or ``"htaf@sharpness={alpha0: [0.5, 2]}@calibrate=20"``.
            ``spike`` is as `spike_function` reads it, an option one of `SpikingClassifier`'s that
            leave the network as it is, its value YAML. The option ``calibrate`` is the number of
            training batches from which batch norm is re-estimated with exact spikes, after the
            training; 0 for none.

    Raises:
        ValueError: an unknown spike function or option.
    """

    label: str

    def __post_init__(self) -> None:
        spike_function(self.spike)
        for assignment in self._assignments():
            name, equals, _ = assignment.partition("=")
            if not equals:
                raise ValueError(f"{assignment!r} in {self.label!r} must read option=value")
            one_of("option", name, [*_TRAINING, "calibrate"])
        if not (isinstance(self.calibrate, int) and self.calibrate >= 0):
            raise ValueError(f"`calibrate` (={self.calibrate!r}) must be a number of batches")

    def _assignments(self) -> list[str]:
        return self.label.split("@")[1:]

    def _options(self) -> dict[str, Any]:
        pairs = (assignment.split("=", 1) for assignment in self._assignments())
        return {name: _value(text) for name, text in pairs}

    @property
    def spike(self) -> str:
        return self.label.split("@")[0]

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `SpikingClassifier`."""
        return {name: value for name, value in self._options().items() if name != "calibrate"}

    @property
    def calibrate(self) -> int:
        value: int = self._options().get("calibrate", 0)
        return value


def _value(text: str) -> Any:
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value  # YAML reads 1e-3 as a string
    except ValueError:
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
