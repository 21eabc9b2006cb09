"""A comparison written out: one HTML page that needs no network, figures, tables."""

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..files import write_whole
from . import plots
from .results import FILE, Run, read_results
from .seed_statistics import REFERENCE, headline, summarize
from .tables import ENERGY_SOURCE, cells, table, to_csv, to_latex


def write_report(runs: Sequence[Run], out: Path, command: str) -> None:
    """Writes the comparison into ``out``: ``report.html``, one file that needs no network.

    ``figures/`` has each of its figures as PNG and PDF; ``table.csv``, ``table.tex`` (booktabs)
    and ``table.txt`` have its table.

    Args:
        runs: each (data set, spike function, seed) once; at least one.
        out: a folder, made if need be; files of an earlier report are replaced.
        command: what a reader types to repeat the comparison.

    Raises:
        ValueError: no runs, a run twice, or a label that `spike_function` can't build.
        OSError: a file can't be written.
    """
    summaries = summarize(runs)
    findings = headline(summaries)
    in_order = {data: [run for s in own for run in s.runs] for data, own in summaries.items()}
    runs_in_order = [run for own in in_order.values() for run in own]
    template = importlib.resources.files(__package__).joinpath("page.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    with plots.drawing():
        looks = plots.looks(list(dict.fromkeys(run.spike for run in runs)))
        figures = {data: plots.of_data_set(data, own, looks) for data, own in summaries.items()}
        functions = plots.of_functions(looks)
        folder = out / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        for picture in (*(p for own in figures.values() for p in own), functions):
            picture.save(folder)
        settings = {
            data: common([(run.spike, run.settings) for run in own])
            for data, own in in_order.items()
        }
        page = environment.from_string(template).render(
            reference=REFERENCE, energy_source=ENERGY_SOURCE, findings=findings, cells=cells,
            summaries=summaries, looks=looks, figures=figures, functions=functions,
            command=command, runs=runs_in_order, settings=settings,
            versions=common([(str(run.key), run.versions) for run in runs_in_order]),
        )  # fmt: skip
    for name, text in (
        ("table.txt", "\n\n".join([table(runs), *(fill(text, 100) for text in findings)]) + "\n"),
        ("table.csv", to_csv(summaries)),
        ("table.tex", to_latex(summaries)),
        ("report.html", page),
    ):
        write_whole(out / name, partial(Path.write_text, data=text, encoding="utf-8"))


def report(folder: Path, out: Path | None = None) -> Path:
    """Writes the report of what ``results.json`` in a folder holds, finished or not.

    Args:
        folder: the ``--out`` of `htaf-snn compare`, or a copy of its ``results.json`` in one.
        out: where the report goes; the folder itself unless it is given.

    Returns:
        the page.

    Raises:
        FileNotFoundError: no ``results.json``, or no run in it.
        ValueError: the file can't be read as such.
    """
    results = read_results(folder)
    if not results.runs:
        raise FileNotFoundError(f"no runs in {folder / FILE}; htaf-snn compare makes them")
    write_report(list(results.runs.values()), out or folder, results.command)
    return (out or folder) / "report.html"


def common(settings: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Settings of runs, behind their names, as one table: a value all share, else who has which."""
    flat = [(holder, _flatten(own)) for holder, own in settings]
    table = {}
    for name in dict.fromkeys(name for _, own in flat for name in own):
        holders: dict[str, dict[str, None]] = {}  # in order, each once
        for holder, own in flat:
            holders.setdefault(own.get(name, "not set"), {})[holder] = None
        table[name] = "; ".join(
            value if len(holders) == 1 else f"{value} ({', '.join(own)})"
            for value, own in holders.items()
        )
    return table


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat
