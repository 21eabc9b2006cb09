"""Studies: data sets, their networks, the contenders on each, and the tasks that this makes."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import lightning as L
import yaml

from ..arguments import in_range, load_yaml, one_of, quoted, typed
from ..data import DataConfig, SpikingDataModule, data_set
from ..models import default_model
from ..surrogates import is_built_in, spike_function, trains_smooth
from ..training import ModelConfig, SpikingClassifier
from ..training.config import TrainingConfig

_LABEL = re.compile(r"[\w.:=@+\-,\[\]{} ]{1,200}")
_OPTIONS = ["neuron_options", *(f.name for f in fields(TrainingConfig)), "calibrate"]
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
        vars(self).update(
            spike=spike, function=function, options=options, calibrate=calibrate, others=others
        )


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


@dataclass(frozen=True)
class Task:
    """Everything that decides a run."""

    title: str  # of the data, in reports
    data: DataConfig
    model: ModelConfig  # what all contenders share; a contender's own options come on top
    contender: str  # a label; see `Contender`
    seed: int  # of the initial weights and the data order, the same for every contender
    epochs: int  # budget, >= 1

    @property
    def key(self) -> str:
        """The same as that of the task's `Run`."""
        return f"{self.title}, {self.contender}, seed {self.seed}"

    @property
    def config(self) -> ModelConfig:
        contender = Contender(self.contender)
        name = self.model.model or default_model(data_set(self.data.name).shape)
        try:
            return replace(self.model, model=name, spike=contender.spike, **contender.options)
        except ValueError as error:
            raise ValueError(f"{self.contender}: {error}") from error

    def settings(self) -> dict[str, Any]:
        """All that decides the run, defaults included, in types that JSON has."""
        contender = Contender(self.contender)
        settings = {
            "spike": repr(spike_function(contender.spike)),
            "epochs": self.epochs,
            "seed": self.seed,
            "calibrate": contender.calibrate,
            "data": self.data.plain(),
            "model": self.config.plain() | {"spike": self.model.spike},
        }
        return dict(json.loads(json.dumps(settings)))

    @property
    def name(self) -> str:
        """A file's name, without suffix, that only this task has, wherever the data are."""
        settings = self.settings()
        del settings["data"]["root"]
        text = json.dumps([self.title, self.contender, settings], sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=5).hexdigest()
        title, label = (re.sub(r"[^\w.=-]+", "_", t) for t in (self.title, self.contender))
        return f"{title}-{label}-seed{self.seed}-{digest}"

    def build(self) -> tuple[SpikingDataModule, SpikingClassifier]:
        """The data and the network, before any training.

        Raises:
            ValueError: an argument out of its range or of the wrong type.
        """
        L.seed_everything(self.seed, verbose=False)
        data = SpikingDataModule(self.data, self.seed)
        try:
            model = SpikingClassifier(
                data.in_shape, data.num_classes, self.config, self.seed, self.data.T
            )
        except ValueError as error:
            raise ValueError(f"{self.contender}: {error}") from error
        return data, model


@dataclass(frozen=True)
class Study:
    """One data set with one network, and all who compete on it.

    Args:
        contenders: labels; see `Contender`.
        seeds: one run each for every contender; a seed sets the initial weights and the data
            order.
        epochs: budget of a run, >= 1.
        data: what is trained on.
        model: what all share, its spike function aside.
        resplit: whether each seed also draws its own split of a data set that has no test split
            of its own.
        trials: learning rates tried for every contender on the validation split of the first
            seed: the model's own, twice, half, four times, a quarter and so on; the best on
            validation is that of all seeds. With 0 none is tried, and the model's own is taken.
        title: of the data, in reports; None for the data set's name.

    Raises:
        ValueError: an unknown contender, a repeated one or seed, or a number out of its range.
    """

    contenders: Sequence[str]
    seeds: Sequence[int]
    epochs: int
    data: DataConfig
    model: ModelConfig
    resplit: bool = False
    trials: int = 0
    title: str | None = None

    def __post_init__(self) -> None:
        for name in ("contenders", "seeds"):
            values = list(getattr(self, name))
            if not values or len(set(values)) < len(values):
                raise ValueError(f"`{name}` (={values}) must name at least one, and each once")
        in_range("epochs", self.epochs, 1)
        in_range("tune", self.trials, 0, 20)
        SpikingDataModule(self.data)  # checks its options
        same: dict[str, str] = {}
        for task in self.first_tasks():
            settings = json.dumps(task.settings(), sort_keys=True)
            if settings in same:
                raise ValueError(
                    f"`contenders`: {task.contender} is the same as {same[settings]}; leave one out"
                )
            same[settings] = task.contender

    @property
    def name(self) -> str:
        """The data's name in reports."""
        return self.title or self.data.name

    def tasks(self) -> list[Task]:
        """The runs to be made, seed by seed."""
        data = self.data
        if data.root is not None:
            data = replace(data, root=data.root.resolve())  # for processes elsewhere
        sets = {
            seed: replace(data, split_seed=seed) if self.resplit else data for seed in self.seeds
        }
        return [
            Task(self.name, own, self.model, contender, seed, self.epochs)
            for seed, own in sets.items()
            for contender in self.contenders
        ]

    def first_tasks(self) -> list[Task]:
        """The runs of the first seed, one a contender."""
        return self.tasks()[: len(self.contenders)]

    def candidates(self, contender: str) -> list[Task]:
        """The first seed with each learning rate that is tried for the contender."""
        if "learning_rate" in Contender(contender).options:
            return []
        first = next(task for task in self.first_tasks() if task.contender == contender)
        own = first.config.learning_rate
        rates = [own * 2.0 ** ((i + 1) // 2 * (-1) ** (i + 1)) for i in range(self.trials)]
        return [replace(first, model=replace(first.model, learning_rate=rate)) for rate in rates]


def preset(file: Path, folder: Path | None = None) -> list[Study]:
    """Reads the studies of a preset.

    Args:
        file: YAML, as those in ``examples/presets``: ``studies``, each with the arguments of
            `Study`, and ``contenders``, ``seeds`` and ``trials`` of all; or ``like``, another file
            beside it whose studies (``only`` those titles) these are for.
        folder: where the data are, each set in a folder or archive as the preset names it;
            ``$HTAF_SNN_DATA`` unless given.

    Raises:
        ValueError: no such file, it is no preset, or no folder.
        FileNotFoundError: a data set is not in the folder.
    """
    described = _read(file)
    given = folder or os.environ.get("HTAF_SNN_DATA")
    if given is None:
        raise ValueError(
            f"`preset` (={file}) needs the folder of its data, which docs/comparing.md describes: "
            "--data_folder DIR"
        )
    shared = ("contenders", "seeds", "trials")
    changes = {key: described[key] for key in shared if key in described}
    base = _read(file.parent / described["like"]) if "like" in described else described
    only = described.get("only", [entry["title"] for entry in base["studies"]])
    studies = []
    for entry in (one for one in base["studies"] if one["title"] in only):
        root = Path(given) / entry["data"]["root"]
        if not root.exists():
            raise FileNotFoundError(
                f"no {root}: the preset {file} reads {entry['title']} there; "
                "name the folder of the data with --data_folder"
            )
        data = DataConfig.of(entry["data"] | {"root": str(root)}, "option of data")
        model = ModelConfig.of(entry["model"], "option of model")
        studies.append(Study(**entry | changes | {"data": data, "model": model}))
    return studies


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ValueError(f"`preset` (={file}) is no file; examples/presets has some")
    described = load_yaml(file.read_text(encoding="utf-8"))
    if not isinstance(described, dict) or not {"studies", "like"} & described.keys():
        raise ValueError(f"`preset` (={file}) has neither `studies` nor `like`")
    return described
