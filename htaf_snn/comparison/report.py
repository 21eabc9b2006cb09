"""A comparison written out: page, figures, tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..files import write_whole
from . import pictures
from .page import render
from .record import Run
from .statistics import summarize
from .style import drawing, looks
from .tables import table, to_csv, to_latex


def write_report(
    runs: Sequence[Run], out: Path, command: str, sensitivity: Sequence[Run] = ()
) -> None:
    """Writes the comparison into ``out`` as a page, figures and tables.

    ``report.html`` is one file that needs no network; ``figures/`` has each of its figures as PNG
    and PDF; ``table.csv``, ``table.tex`` (booktabs) and ``table.txt`` have its table.

    Args:
        runs: each (data set, spike function, seed) once; at least one.
        out: a folder, made if need be; files of an earlier report are replaced.
        command: what a reader types to repeat the comparison.
        sensitivity: runs over a grid of HTAF's parameters, labelled ``htaf:alpha0=A:alpha1=B``.

    Raises:
        ValueError: no runs, a run twice, a label that `spike_function` can't build, or one of
            another form in ``sensitivity``.
        OSError: a file can't be written.
    """
    summaries = summarize(runs)
    folder = out / "figures"
    with drawing():
        shown = looks(list(dict.fromkeys(run.spike for run in runs)))
        figures = {
            data: list(pictures.of_data_set(data, contenders, shown))
            for data, contenders in summaries.items()
        }
        functions = pictures.of_functions(shown)
        maps = list(pictures.of_sensitivity(sensitivity))
        folder.mkdir(parents=True, exist_ok=True)
        for picture in (*(p for own in figures.values() for p in own), functions, *maps):
            picture.save(folder)
        page = render(summaries, shown, figures, functions, maps, command)
    for name, text in (
        ("table.txt", f"{table(runs)}\n"),
        ("table.csv", to_csv(summaries)),
        ("table.tex", to_latex(summaries)),
        ("report.html", page),
    ):
        write_whole(out / name, partial(_write, text=text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
