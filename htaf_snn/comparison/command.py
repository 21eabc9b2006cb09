"""`htaf-snn compare`: the studies that a command line asks for, compared and reported."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data import DataConfig
from ..process import advising
from ..training import ModelConfig
from ..training.fit import default_out
from .compare import compare as compare_studies
from .contender import split_labels
from .page import report
from .study import Study
from .study import preset as studies_of

_DEFAULTS: dict[str, Any] = {
    # HTAF and the scaled sigmoid, each hardened and as a surrogate, and the field's usual choice.
    "contenders": ["htaf", "sigmoid@hardening=[0,0.8]", "htaf:mode=hard", "sigmoid", "atan"],
    "seeds": [0],
    "epochs": 12,
}


def compare(
    data: DataConfig = DataConfig(),
    model: ModelConfig = ModelConfig(),
    preset: Path | None = None,
    data_folder: Path | None = None,
    spikes: str | list[str] | None = None,
    seeds: str | int | list[int] | None = None,
    epochs: int | None = None,
    tune: int | None = None,
    workers: int = 1,
    ray_address: str | None = None,
    out: Path | None = None,
) -> str:
    """Trains the same network with several spike functions and compares them.

    Args:
        data: what is trained on.
        model: the network and its training, the same for all.
        preset: a YAML file of several data sets, each with its network and budget, as those in
            examples/presets; instead of the options of data and model.
        data_folder: where a preset's data are; $HTAF_SNN_DATA unless given.
        spikes: contenders, separated by commas: name[:parameter=value][@option=value], the option
            one of model's, or calibrate; htaf,atan,sigmoid, or the preset's, unless given.
        seeds: separated by commas, one run each; 0, or the preset's, unless given.
        epochs: budget of a run; 12, or the preset's, unless given.
        tune: learning rates tried for each contender, on the validation split; 0, or the preset's,
            unless given.
        workers: runs at a time, one core each.
        ray_address: of a Ray cluster that does the runs.
        out: folder of the results, where a comparison that is there goes on; runs/<time> unless
            given.

    Returns:
        the table, and where the rest is.

    Raises:
        ValueError: a preset beside options of data or model, or without the folder of its data; or
            what `Study` refuses.
    """
    if model.spike != ModelConfig().spike:
        raise ValueError(f"`model.spike` (={model.spike}): name the contenders with --spikes")
    asked = {
        "contenders": split_labels(spikes) if isinstance(spikes, str) else spikes,
        "seeds": None if seeds is None else _integers(seeds),
        "epochs": epochs,
        "trials": tune,
    }
    changes: dict[str, Any] = {n: value for n, value in asked.items() if value is not None}
    if preset is None:
        if data_folder is not None:
            raise ValueError(
                f"`data_folder` (={data_folder}) is where a preset's data are; without --preset, "
                "name the folder with --data.root"
            )
        studies = [Study(**_DEFAULTS | {"data": data, "model": model} | changes)]
    elif preset.is_file() and (data, model) != (DataConfig(), ModelConfig()):
        raise ValueError(
            f"`preset` (={preset}) brings its own data and model; leave their options out, or the "
            "preset"
        )
    else:
        studies = [replace(study, **changes) for study in studies_of(preset, data_folder)]
    out = out or default_out()
    command = shlex.join(["htaf-snn", *sys.argv[1:]])
    with advising(lambda: f"stopped; the same command goes on, with --out {out}"):
        compare_studies(studies, out, workers, ray_address, command)
    page = report(out)
    parts = "report.html, figures/, table.csv, table.tex, results.json, checkpoints/"
    return f"{(out / 'table.txt').read_text()}{out}/: {parts}\nnext: open {page}"


def _integers(seeds: str | int | list[int]) -> list[int]:
    try:
        return [int(one) for one in (seeds if isinstance(seeds, list) else str(seeds).split(","))]
    except ValueError:
        raise ValueError(f"`seeds` (={seeds}) must be integers between commas") from None
