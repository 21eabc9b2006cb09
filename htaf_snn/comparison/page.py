"""A comparison written out: one HTML page that needs no network, figures, tables."""

from __future__ import annotations

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
from .contender import Run
from .effects import differences, effects, headline
from .plots import Looks, Picture, drawing, looks
from .results import FILE, read_results
from .statistics import REFERENCE, Summary, summarize
from .tables import COLUMNS, ENERGY_SOURCE, table, to_csv, to_latex


def render(
    summaries: Mapping[str, Sequence[Summary]],
    looks: Looks,
    figures: Mapping[str, Sequence[Picture]],
    functions: Picture,
    findings: Sequence[str],
    found: Sequence[Sequence[str]],
    command: str,
) -> str:
    """The page's text; whatever comes from the runs is escaped.

    Args:
        summaries: the contenders of each data set.
        looks: of each contender.
        figures: of each data set.
        functions: the spike functions.
        findings: sentences about all data sets.
        found: rows of differences, the first their head; or none.
        command: what a reader types to repeat the comparison.
    """
    runs = [run for contenders in summaries.values() for s in contenders for run in s.runs]
    template = importlib.resources.files(__package__).joinpath("page.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        reference=REFERENCE,
        findings=findings,
        found=found,
        concerns=[
            f"{run.spike}, {run.data}, seed {run.seed}: {concern}"
            for run in runs
            for concern in run.concerns
        ],
        columns=COLUMNS,
        summaries=summaries,
        looks=looks,
        figures=figures,
        functions=functions,
        command=command,
        runs=runs,
        settings={
            data: common([(run.spike, run.settings) for run in runs if run.data == data])
            for data in summaries
        },
        versions=common([(f"{r.data}, {r.spike}, seed {r.seed}", r.versions) for r in runs]),
        energy_source=ENERGY_SOURCE,
    )


def common(settings: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Settings of several runs as one table: a value that all share, else who has which.

    Args:
        settings: of each run, behind the name that it goes by; nested dicts become dotted names.
    """
    flat = [(holder, _flatten(own)) for holder, own in settings]
    names = dict.fromkeys(name for _, own in flat for name in own)  # in order, each once
    table = {}
    for name in names:
        holders: dict[str, dict[str, None]] = {}
        for holder, own in flat:
            holders.setdefault(own.get(name, "not set"), {})[holder] = None
        if len(holders) == 1:
            (table[name],) = holders
        else:
            table[name] = "; ".join(f"{value} ({', '.join(own)})" for value, own in holders.items())
    return table


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def write_report(runs: Sequence[Run], out: Path, command: str) -> None:
    """Writes the comparison into ``out`` as a page, figures and tables.

    ``report.html`` is one file that needs no network; ``figures/`` has each of its figures as PNG
    and PDF; ``table.csv``, ``table.tex`` (booktabs) and ``table.txt`` have its table.

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
    found = differences(effects(summaries))
    folder = out / "figures"
    with drawing():
        shown = looks(list(dict.fromkeys(run.spike for run in runs)))
        figures = {
            data: list(plots.of_data_set(data, contenders, shown))
            for data, contenders in summaries.items()
        }
        functions = plots.of_functions(shown)
        folder.mkdir(parents=True, exist_ok=True)
        for picture in (*(p for own in figures.values() for p in own), functions):
            picture.save(folder)
        page = render(summaries, shown, figures, functions, findings, found, command)
    for name, text in (
        ("table.txt", "\n\n".join([table(runs), *(fill(text, 100) for text in findings)]) + "\n"),
        ("table.csv", to_csv(summaries)),
        ("table.tex", to_latex(summaries)),
        ("report.html", page),
    ):
        write_whole(out / name, partial(_write, text=text))


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


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
