"""The options of `htaf-snn compare`, and the studies that they ask for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from ..data import SpikingDataModule, data_set
from ..models import default_model
from ..training import SpikingClassifier
from ..training.fit import default_out
from .compare import Study, preset
from .contender import split_labels

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
