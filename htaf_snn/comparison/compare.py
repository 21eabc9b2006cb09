"""Training the same network with every spike function, under the same conditions."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data import SpikingDataModule
from ..files import write_whole
from ..surrogates import spike_function
from .report import draw, table
from .run import Run, run

_PACKAGES = ("htaf-snn", "torch", "spikingjelly", "lightning", "tonic", "numpy")

_logger = logging.getLogger(__name__)


def compare(
    spikes: Sequence[str],
    seeds: Sequence[int],
    epochs: int,
    data_settings: dict[str, Any],
    model_settings: dict[str, Any],
    out: Path,
) -> list[Run]:
    """Trains every (spike function, seed) under the same data order and budget.

    After each run ``results.json``, a list with one record a run, is written anew into ``out``;
    at the end the picture ``comparison.png`` and the best checkpoint of each run are there too.

    Args:
        spikes: spike functions, as `spike_function` reads them.
        seeds: one run each; a seed sets the initial weights and the data order.
        epochs: budget of a run, >= 1.
        data_settings: arguments of `SpikingDataModule` but the seed.
        model_settings: arguments of `SpikingClassifier` but shape, classes, spike and seed.
        out: folder of the results.

    Raises:
        ValueError: an unknown spike function, a repeated one or seed, or a number out of its
            range; before anything is trained.
        FileExistsError: ``out`` holds results already.
    """
    for name, values in (("spikes", spikes), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"`{name}` (={list(values)}) must name at least one, and each once")
    for spike in spikes:
        spike_function(spike)
    if epochs < 1:
        raise ValueError(f"`epochs` (={epochs}) must be at least 1")
    results = out / "results.json"
    if results.exists():
        raise FileExistsError(f"{results} exists; choose another folder with --out")
    SpikingDataModule(**data_settings).prepare_data()
    out.mkdir(parents=True, exist_ok=True)

    versions = _versions()
    runs: list[Run] = []
    plan = [(spike, seed) for seed in seeds for spike in spikes]
    for number, (spike, seed) in enumerate(plan, 1):
        _logger.info("run %d of %d: %s, seed %d", number, len(plan), spike, seed)
        runs.append(
            run(spike, seed, epochs, data_settings, model_settings, versions, out / "checkpoints")
        )
        _write_json(results, [dataclasses.asdict(r) for r in runs])
    draw(runs, f"{data_settings['name']}, T = {data_settings['T']}", out / "comparison.png")
    (out / "table.txt").write_text(table(runs) + "\n")
    return runs


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _write_json(path: Path, content: object) -> None:
    text = json.dumps(content, indent=2) + "\n"
    write_whole(path, lambda partial: partial.write_text(text))
