"""What is compared: a spike function and how it is trained, as one label."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

import yaml

from ..arguments import arguments_of, in_range, one_of, quoted, typed
from ..surrogates import spike_function
from ..training import SpikingClassifier
from ..yaml_text import load_yaml

# What all contenders share: the network, and what it runs on.
_SHARED = {
    "in_shape", "num_classes", "spike", "seed", "model", "width", "widths", "norm", "neuron",
    "backend", "compile",
}  # fmt: skip
_LABEL = re.compile(r"[\w.:=@+\-,\[\]{} ]{1,200}")
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
        if not _LABEL.fullmatch(self.label):
            raise ValueError(
                f"{quoted(self.label)} must have letters, digits and . _ : = @ + - , [ ] {{ }} "
                "and blanks alone, as figures, tables and files are named after it"
            )
        spike_function(self.spike)
        for assignment in self._assignments():
            name, equals, _ = assignment.partition("=")
            if not equals:
                raise ValueError(f"{assignment!r} in {self.label!r} must read option=value")
            one_of("option", name, [*_TRAINING, "calibrate"])
        try:
            arguments_of(SpikingClassifier, self.options, "option", skip=_SHARED)
            in_range("calibrate", typed("calibrate", self.calibrate, int), 0)
        except (ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{self.label!r}: {reason}") from error

    def _assignments(self) -> list[str]:
        return self.label.split("@")[1:]

    def _options(self) -> dict[str, Any]:
        pairs = (assignment.split("=", 1) for assignment in self._assignments())
        return {name: load_yaml(text) for name, text in pairs}

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
