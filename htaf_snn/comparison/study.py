"""Studies: data sets, their networks, and the contenders on each."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..arguments import in_range, load_yaml
from ..data import DataConfig, SpikingDataModule
from ..training import ModelConfig
from .contender import Contender
from .run import Task


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


_CHANGED = ("contenders", "seeds", "trials")  # by a preset that is like another one


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
    changes = {key: described[key] for key in _CHANGED if key in described}
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
