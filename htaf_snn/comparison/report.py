"""A comparison written out: its table as text, CSV and LaTeX, and one HTML page with figures."""

import csv
import importlib.resources
import io
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import fill, wrap
from typing import Any, Literal, NamedTuple

from jinja2 import Environment, StrictUndefined

from ..files import write_whole
from . import plots
from .results import FILE, Run, read_results
from .seed_statistics import REFERENCE, Summaries, Summary, headline, p_value, summarize

_HEAD = 10  # characters of a line of a column's head
_NOT_IN_TEXT = ("seeds", "firing rate", "MSOP", "energy (nJ)")  # so that it fits a terminal
ENERGY_SOURCE = (
    "energy a sample at 45 nm: 4.6 pJ a multiply-accumulate, 0.9 pJ an accumulate "
    "(Horowitz, ISSCC 2014, doi.org/10.1109/ISSCC.2014.6757323)"
)


class Cell(NamedTuple):
    """A contender's cell of the table."""

    title: str  # the column's head, with the unit
    value: float | None  # what it is sorted by; None of a word, or where there is none
    text: str


def cells(summary: Summary) -> list[Cell]:
    """The line of a contender."""
    hard, difference = summary.estimate("hard_accuracy"), summary.difference
    points, p = (difference.points.mean, difference.p) if difference else (None, None)

    def mean(title: str, field: str, form: str, scale: float = 1.0) -> Cell:
        value = scale * summary.estimate(field).mean
        return Cell(title, None, "") if math.isnan(value) else Cell(title, value, f"{value:{form}}")

    return [
        Cell("treatment", None, summary.treatment),
        Cell("seeds", len(summary.runs), str(len(summary.runs))),
        Cell("hard accuracy", hard.mean, f"{hard:.4f}"),
        mean("statistics gap (pp)", "statistics_gap_pp", "+z.2f"),
        mean("transfer gap (pp)", "gap_pp", "+z.2f"),
        Cell(
            f"vs {REFERENCE} treated alike (pp)", points,
            "" if points is None else f"{points:+z.2f}",
        ),
        Cell("p (Holm)", p, "" if p is None else p_value(p)),
        mean("firing rate", "firing_rate", ".4f"),
        mean("MSOP", "synaptic_operations", ".3f", 1e-6),
        mean("energy (nJ)", "energy_nj", ".1f"),
    ]  # fmt: skip


_FIELDS = (
    "hard_accuracy", "soft_accuracy", "gap_pp", "statistics_gap_pp", "hard_loss", "soft_loss",
    "val_accuracy", "firing_rate", "synaptic_operations", "energy_nj",
)  # fmt: skip


def table(runs: Sequence[Run]) -> str:
    """A block a data set, a line a contender: means over seeds, interval and p.

    ``±`` is half the 95 % t-interval over seeds, p that of the paired t-test against HTAF treated
    alike, after Holm's correction.

    Raises:
        ValueError: no runs, or a run twice.
    """
    blocks = []
    for data, summaries in summarize(runs).items():
        counts = sorted({len(summary.runs) for summary in summaries})
        title = f"{data}, {' to '.join(map(str, counts))} seed{'s' if counts[-1] > 1 else ''}"
        lines = [[c for c in cells(s) if c.title not in _NOT_IN_TEXT] for s in summaries]
        heads = [[title], *(wrap(cell.title, _HEAD) for cell in lines[0])]
        most = max(map(len, heads))
        rows = list(zip(*([""] * (most - len(head)) + head for head in heads), strict=True))
        for summary, line in zip(summaries, lines, strict=True):
            rows.append((summary.spike, *(cell.text for cell in line)))
        blocks.append(aligned(rows, ">"))
    return "\n\n".join(blocks)


def aligned(rows: Sequence[Sequence[str]], side: Literal["<", ">"] = "<") -> str:
    """Rows of cells as lines of text with a column below the other.

    Args:
        rows: of equal length, at least one.
        side: of the columns behind the first, whose cells are at the left.
    """
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:{side if i else '<'}{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def to_csv(summaries: Summaries) -> str:
    """One row a data set and contender: every measure's mean and half interval, in full digits."""
    rows: list[dict[str, Any]] = []
    for summary in (s for contenders in summaries.values() for s in contenders):
        row = {"data": summary.data, "spike": summary.spike, "seeds": len(summary.runs)}
        d = summary.difference
        estimates = [(field, summary.estimate(field)) for field in _FIELDS]
        for name, found in (*estimates, ("difference_pp", d and d.points)):
            row |= {name: found and found.mean, f"{name}_ci95": found and found.half_width}
        rows.append(row | {"common_seeds": d and d.seeds, "p_holm": d and d.p})
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_latex(summaries: Summaries) -> str:
    """A table for a paper, by booktabs; ``\\input`` it."""
    titles = [cell.title for cell in cells(next(iter(summaries.values()))[0])]
    heads = (r" \\ ".join(map(escape_latex, wrap(title, _HEAD))) for title in titles)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{3.5pt}",
        "\\caption{Means over seeds; $\\pm$ half the 95\\,\\% t-interval; statistics gap: accuracy "
        f"as trained minus that with running statistics; transfer gap: the latter minus hard "
        f"accuracy; p: paired t-test against {escape_latex(REFERENCE)} treated alike, after "
        "Holm's correction over the contenders of a data set; MSOP: millions of synaptic "
        f"operations a sample; {escape_latex(ENERGY_SOURCE)}.}}",
        f"\\begin{{tabular}}{{l{'r' * len(titles)}}}",
        "\\toprule",
        " & ".join(["spike function", *(rf"\shortstack[r]{{{head}}}" for head in heads)]) + r" \\",
    ]
    for data, contenders in summaries.items():
        head = f"\\multicolumn{{{len(titles) + 1}}}{{l}}{{\\textit{{{escape_latex(data)}}}}}"
        lines += ["\\midrule", rf"{head} \\"]
        for summary in contenders:
            texts = [summary.spike, *(cell.text for cell in cells(summary))]
            # A hyphen in text mode is no minus.
            math_mode = (f"${t}$" if t.startswith(("+", "-")) else escape_latex(t) for t in texts)
            lines.append(" & ".join(math_mode) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
    }
)


def escape_latex(text: str) -> str:
    """The text with LaTeX's special characters written out; ± becomes ``$\\pm$``."""
    return text.translate(_LATEX)


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
    runs_in_order = [run for own in summaries.values() for s in own for run in s.runs]
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
            data: common([(run.spike, run.settings) for s in own for run in s.runs])
            for data, own in summaries.items()
        }
        page = environment.from_string(template).render(
            reference=REFERENCE, energy_source=ENERGY_SOURCE, findings=findings, cells=cells,
            summaries=summaries, looks=looks, figures=figures, functions=functions,
            command=command, runs=runs_in_order, settings=settings,
            versions=common([(run.key, run.versions) for run in runs_in_order]),
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
