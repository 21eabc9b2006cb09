"""Training the same network with every contender, under the same conditions."""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace
from tqdm import tqdm

from ..arguments import arguments_of, in_range, one_of
from ..data import SpikingDataModule, data_set
from ..extras import need
from ..files import only_writer, write_whole
from ..models import default_model
from ..training import SpikingClassifier
from ..training.checkpoint_io import check_writable
from ..training.finite import DivergedError
from ..training.fit import default_out
from .contender import Contender, Run, from_json, split_labels, to_json
from .run import Task, run
from .work import tune, work

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """One data set with one network, and all who compete on it.

    Args:
        contenders: labels; see `Contender`.
        seeds: one run each for every contender; a seed sets the initial weights and the data
            order.
        epochs: budget of a run, >= 1.
        data: arguments of `SpikingDataModule` but the seed.
        model: arguments of `SpikingClassifier` but shape, classes, spike and seed.
        resplit: whether each seed also draws its own split of a data set that has no test split
            of its own.
        title: of the data, in reports; None for the data set's name.

    Raises:
        ValueError: an unknown contender, a repeated one or seed, or a number out of its range.
    """

    contenders: Sequence[str]
    seeds: Sequence[int]
    epochs: int
    data: dict[str, Any]
    model: dict[str, Any]
    resplit: bool = False
    title: str | None = None

    def __post_init__(self) -> None:
        for name in ("contenders", "seeds"):
            values = list(getattr(self, name))
            if not values or len(set(values)) < len(values):
                raise ValueError(f"`{name}` (={values}) must name at least one, and each once")
        for label in self.contenders:
            Contender(label)
        in_range("epochs", self.epochs, 1)
        arguments_of(SpikingDataModule, self.data, "option of data")
        arguments_of(SpikingClassifier, self.model, "option of model")
        SpikingDataModule(**self.data)  # checks its arguments
        same: dict[str, str] = {}
        for task in self.tasks()[: len(self.contenders)]:
            settings = json.dumps(task.settings(), sort_keys=True)
            if settings in same:
                raise ValueError(
                    f"`contenders`: {task.contender} is the same as {same[settings]}; leave one out"
                )
            same[settings] = task.contender

    def tasks(self) -> list[Task]:
        """The runs to be made, seed by seed."""
        data = dict(self.data)
        if data.get("root") is not None:
            data["root"] = str(Path(data["root"]).resolve())  # for processes elsewhere
        return [
            Task(
                self.title or data["name"],
                data | ({"split_seed": seed} if self.resplit else {}),
                self.model, contender, seed, self.epochs,
            )
            for seed in self.seeds
            for contender in self.contenders
        ]  # fmt: skip


def preset(name: str, folder: Path) -> list[Study]:
    """The studies of a preset, a YAML file in ``presets``.

    Args:
        name: "standard", "all" or "ablation".
        folder: where the data are, each set in a folder or archive as the preset names it.

    Raises:
        ValueError: an unknown preset.
        FileNotFoundError: a data set is not in the folder.
    """
    described = _read_preset(name)
    changes = {key: described[key] for key in ("contenders", "seeds") if key in described}
    base = _read_preset(described["like"]) if "like" in described else described
    studies = []
    only = described.get("only", [entry["title"] for entry in base["studies"]])
    for entry in (one for one in base["studies"] if one["title"] in only):
        root = folder / entry["data"]["root"]
        if not root.exists():
            raise FileNotFoundError(
                f"no {root}: the preset {name!r} reads {entry['title']} there; "
                "name the folder of the data with --data_folder"
            )
        studies.append(Study(**entry | changes | {"data": entry["data"] | {"root": str(root)}}))
    return studies


def _read_preset(name: str) -> dict[str, Any]:
    presets = resources.files(__package__) / "presets"
    known = sorted(path.name.removesuffix(".yaml") for path in presets.iterdir())
    one_of("preset", name, known)
    described: dict[str, Any] = yaml.safe_load((presets / f"{name}.yaml").read_text())
    return described


def sensitivity(study: Study) -> Study:
    """The same data and network with HTAF over a grid of (alpha0, alpha1), on the first seed."""
    grid = [
        f"htaf:alpha0={alpha0}:alpha1={alpha1}"
        for alpha0 in (0.33, 0.67, 1.0, 1.5, 2.0, 3.0)
        for alpha1 in (3.0, 6.0, 11.0)
    ]
    return replace(study, contenders=grid, seeds=study.seeds[:1])


def compare(
    studies: Sequence[Study],
    out: Path,
    trials: int = 0,
    workers: int = 1,
    ray_address: str | None = None,
) -> list[Run]:
    """Makes all runs of the studies that are not made yet.

    A run is a file in ``out/runs``, written when it is done, so a comparison that was interrupted
    goes on where it stopped; its network is in ``out/checkpoints``. A run that diverges is told
    of, leaves no file, and is tried again the next time.

    Args:
        studies: what to compare.
        out: folder of the results.
        trials: tuning budget of each contender, on the validation split; 0 leaves the options
            as they are.
        workers: runs at a time on this machine, by Ray if more than 1.
        ray_address: of a Ray cluster that shares ``out`` and the data.

    Returns:
        the runs in the studies' order, but those that diverged.

    Raises:
        ValueError: a number out of its range, two studies of one title, or a contender's option
            that the network refuses; before anything is trained.
        ImportError: tuning without Optuna, several workers without Ray; likewise.
    """
    in_range("tune", trials, 0, 1e6)
    in_range("workers", workers, 1, 1e4)
    if trials:
        need("tune")
    if workers > 1 or ray_address is not None:
        need("ray")
    titles = [study.title or study.data["name"] for study in studies]
    if len(set(titles)) < len(titles):
        raise ValueError(f"two studies have one title (={titles}); give each its own")
    for study in studies:
        SpikingDataModule(**study.data).prepare_data()
        for task in study.tasks()[: len(study.contenders)]:
            task.build()
    for folder in ("runs", "checkpoints"):
        check_writable(out / folder)
    with only_writer(out):
        return _compare(studies, out, trials, workers, ray_address)


def _compare(
    studies: Sequence[Study], out: Path, trials: int, workers: int, ray_address: str | None
) -> list[Run]:
    parallel = workers > 1 or ray_address is not None
    tasks = [task for study in studies for task in study.tasks()]
    if trials:
        tuning = functools.partial(
            tune, trials=trials, folder=out.resolve() / "tuning", progress=not parallel
        )
        tasks = _tuned(tasks, tuning, workers, ray_address)
    missing = [task for task in tasks if not _file(out, task).exists()]
    if len(missing) < len(tasks):
        _logger.info("%d of %d runs are in %s already", len(tasks) - len(missing), len(tasks), out)
    make = functools.partial(_make, out=out.resolve(), progress=not parallel)
    finished = work(make, missing, workers, ray_address)
    for failure in tqdm(finished, "runs", len(missing), unit="run", disable=not missing):
        if failure is not None:
            _logger.error("%s", failure)
    made = [path for task in tasks if (path := _file(out, task)).exists()]
    return [from_json(json.loads(path.read_text())) for path in made]


def _tuned(tasks: list[Task], tuning: Any, workers: int, ray_address: str | None) -> list[Task]:
    """The tasks with their options tuned, once for all seeds that share a split."""
    first: dict[str, Task] = {}
    for task in tasks:
        first.setdefault(_untuned(task), task)
    found = {_untuned(task): task for task in first.values()}
    tuned = work(functools.partial(_tune, tuning), list(found.items()), workers, ray_address)
    options = dict(tqdm(tuned, "tuning", len(found), unit="contender"))
    return [replace(task, model=options[_untuned(task)]) for task in tasks]


def _tune(tuning: Any, item: tuple[str, Task]) -> tuple[str, dict[str, Any]]:
    key, task = item
    return key, tuning(task).model


def _untuned(task: Task) -> str:
    return json.dumps([task.title, task.data, task.model, task.contender, task.epochs], default=str)


def _file(out: Path, task: Task) -> Path:
    return out / "runs" / f"{task.name}.json"


def _make(task: Task, out: Path, progress: bool) -> str | None:
    """Makes a run and writes its file; if it diverges, says so instead."""
    try:
        done = run(task, out / "checkpoints", progress)
    except DivergedError as error:
        return f"{task.title}, {task.contender}, seed {task.seed} is left out: {error}"
    text = json.dumps(to_json(done), indent=1) + "\n"
    write_whole(_file(out, task), lambda partial: partial.write_text(text))
    return None


_DEFAULTS: dict[str, Any] = {"contenders": ["htaf", "atan", "sigmoid"], "seeds": [0], "epochs": 12}


def _parser(description: str | None) -> ArgumentParser:
    parser = ArgumentParser(
        prog="htaf-snn compare", usage="htaf-snn compare [options]", description=description
    )
    parser.add_argument("--config", action="config", help="a YAML file of these options")
    parser.add_argument(
        "--preset",
        help="several data sets, each with its network and budget: standard, all or ablation; "
        "instead of the options of data and model",
    )
    parser.add_argument(
        "--data_folder",
        type=Path,
        help="where a preset's data are (default: $HTAF_SNN_DATA)",
    )
    parser.add_argument(
        "--spikes",
        help="contenders, separated by commas: name[:parameter=value][@option=value], the option "
        "one of model's, or calibrate (default: htaf,atan,sigmoid, or the preset's)",
    )
    parser.add_argument(
        "--seeds", help="separated by commas; one run each (default: 0, or the preset's)"
    )
    parser.add_argument("--epochs", type=int, help="budget of a run (default: 12, or the preset's)")
    parser.add_argument(
        "--tune", type=int, default=0, help="trials of each contender, on the validation split"
    )
    parser.add_argument(
        "--sensitivity",
        action="store_true",
        help="also run HTAF over a grid of alpha0 and alpha1, untuned, one seed each",
    )
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, by Ray")
    parser.add_argument("--ray_address", help="of a Ray cluster that does the runs")
    parser.add_argument(
        "--out", type=Path, default=default_out(),
        help="folder of the results; a comparison that is there goes on",
    )  # fmt: skip
    parser.add_class_arguments(SpikingDataModule, "data", skip={"seed"})
    parser.add_class_arguments(
        SpikingClassifier, "model", skip={"in_shape", "num_classes", "spike", "seed"}
    )
    return parser


def options(args: Sequence[str], description: str | None = None) -> Namespace:
    """What the command line asks for.

    Raises:
        ValueError: a preset beside options of data or model.
    """
    parser = _parser(description)
    options = parser.parse_args(list(args))
    parser.set_defaults({"model.model": default_model(data_set(options.data.name).shape)})
    options = parser.parse_args(list(args))
    if options.preset is None and options.data_folder is not None:
        raise ValueError(
            f"`data_folder` (={options.data_folder}) is where a preset's data are; without "
            "--preset, name the folder with --data.root"
        )
    if options.preset is not None:
        known = parser.get_defaults()
        if options.data != known.data or options.model != known.model:
            raise ValueError(
                f"`preset` (={options.preset}) brings its own data and model; leave their "
                "options out, or the preset"
            )
    return options


def studies(options: Namespace) -> list[Study]:
    """The studies asked for, of a preset or of one data set.

    Raises:
        ValueError: seeds that are no integers, a preset without the folder of its data, or what
            `Study` refuses.
    """
    changes: dict[str, Any] = {}
    if options.spikes is not None:
        spikes = options.spikes
        changes["contenders"] = spikes if isinstance(spikes, list) else split_labels(str(spikes))
    if options.seeds is not None:
        changes["seeds"] = _seeds(options.seeds)
    if options.epochs is not None:
        changes["epochs"] = options.epochs
    if options.preset is None:
        described = {"data": options.data.as_dict(), "model": options.model.as_dict()}
        return [Study(**_DEFAULTS | described | changes)]
    folder = options.data_folder or os.environ.get("HTAF_SNN_DATA")
    if folder is None:
        raise ValueError(
            f"`preset` (={options.preset}) needs the folder of its data: --data_folder"
        )
    return [replace(study, **changes) for study in preset(options.preset, Path(folder))]


def _seeds(given: Any) -> list[int]:
    try:
        return [int(seed) for seed in (given if isinstance(given, list) else str(given).split(","))]
    except ValueError:
        raise ValueError(f"`seeds` (={given}) must be integers between commas") from None
