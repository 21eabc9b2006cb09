"""Contenders: a spike function and how it is trained, in one label."""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from ..arguments import in_range, load_yaml, one_of, quoted, typed
from ..surrogates import is_built_in, spike_function, trains_smooth
from ..training.config import ModelConfig, TrainingConfig

_LABEL = re.compile(r"[\w.:=@+\-,\[\]{} ]{1,200}")
_OPTIONS = ["neuron_options", *(f.name for f in dataclasses.fields(TrainingConfig)), "calibrate"]
_TREATMENT = ("recipe=", "hardening=", "learning_rate=")


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
    spike: str = field(init=False)  # as `spike_function` reads it
    function: str = field(init=False)  # the same, whatever its mode
    options: dict[str, Any] = field(init=False, compare=False)  # of `ModelConfig`, by name
    calibrate: int = field(init=False)  # batches
    others: frozenset[str] = field(init=False)  # assignments, but treatment and learning rate

    def __post_init__(self) -> None:
        if not _LABEL.fullmatch(self.label):
            raise ValueError(
                f"{quoted(self.label)} must have letters, digits and . _ : = @ + - , [ ] {{ }} "
                "and blanks alone, as figures, tables and files are named after it"
            )
        spike, *assignments = self.label.split("@")
        spike_function(spike)
        for assignment in assignments:
            name, equals, _ = assignment.partition("=")
            if not equals:
                raise ValueError(f"{assignment!r} in {self.label!r} must read option=value")
            one_of("option", name, _OPTIONS)
        function = ":".join(part for part in spike.split(":") if not part.startswith("mode="))
        others = frozenset(a for a in assignments if not a.startswith(_TREATMENT))
        try:
            options = {n: load_yaml(text) for n, text in (a.split("=", 1) for a in assignments)}
            calibrate = typed("calibrate", options.pop("calibrate", 0), int)
            in_range("calibrate", calibrate, 0)
            ModelConfig.of(options, "option")
            if options.get("hardening") is not None or "recipe" in options:
                if is_built_in(spike) and ":mode=" not in spike:
                    spike += ":mode=auto"
                if not trains_smooth(spike_function(spike)):
                    raise ValueError("`hardening` and `recipe` have no effect in mode hard")
        except (ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{self.label!r}: {reason}") from error
        values = (spike, function, options, calibrate, others)
        for one, value in zip(dataclasses.fields(self)[1:], values, strict=True):
            object.__setattr__(self, one.name, value)


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
