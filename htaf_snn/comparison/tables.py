"""The comparison's table as text, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Literal

from .contender import Run
from .statistics import REFERENCE, Summary, p_value, summarize

_HEAD = 10  # characters of a line of a column's head
_NOT_IN_TEXT = ("seeds", "firing rate", "MSOP", "energy (nJ)")  # so that it fits a terminal
ENERGY_SOURCE = (
    "energy a sample at 45 nm: 4.6 pJ a multiply-accumulate, 0.9 pJ an accumulate "
    "(Horowitz, ISSCC 2014, doi.org/10.1109/ISSCC.2014.6757323)"
)


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        title: its head, with the unit.
        value: what it is sorted by; None where there is none.
        text: what is read.
    """

    title: str
    value: Callable[[Summary], float | None]
    text: Callable[[Summary], str]


def _mean(title: str, field: str, form: str, scale: float = 1.0) -> Column:
    def value(summary: Summary) -> float | None:
        mean = summary.estimate(field).mean
        return None if math.isnan(mean) else scale * mean

    def text(summary: Summary) -> str:
        mean = value(summary)
        return "" if mean is None else format(mean, form)

    return Column(title, value, text)


def _p(summary: Summary) -> float | None:
    return summary.difference.p if summary.difference else None


def _p_text(summary: Summary) -> str:
    p = _p(summary)
    return "" if p is None else p_value(p)


COLUMNS = (
    Column("treatment", lambda _: None, lambda s: s.treatment),
    Column("seeds", lambda s: len(s.runs), lambda s: str(len(s.runs))),
    Column(
        "hard accuracy",
        lambda s: s.estimate("hard_accuracy").mean,
        lambda s: f"{s.estimate('hard_accuracy'):.4f}",
    ),
    _mean("statistics gap (pp)", "statistics_gap_pp", "+z.2f"),
    _mean("transfer gap (pp)", "gap_pp", "+z.2f"),
    Column(
        f"vs {REFERENCE} treated alike (pp)",
        lambda s: s.difference.points.mean if s.difference else None,
        lambda s: f"{s.difference.points.mean:+z.2f}" if s.difference else "",
    ),
    Column("p (Holm)", _p, _p_text),
    _mean("firing rate", "firing_rate", ".4f"),
    _mean("MSOP", "synaptic_operations", ".3f", 1e-6),
    _mean("energy (nJ)", "energy_nj", ".1f"),
)

_FIELDS = (
    "hard_accuracy", "soft_accuracy", "gap_pp", "statistics_gap_pp", "hard_loss", "soft_loss",
    "val_accuracy", "firing_rate", "synaptic_operations", "energy_nj",
)  # fmt: skip


def overview(runs: Sequence[Run]) -> str:
    """Mean hard accuracy, and of how many seeds: contenders by data sets, the more as lines."""
    summaries = summarize(runs)
    spikes = list(dict.fromkeys(run.spike for run in runs))
    cells = {
        (s.spike, data): f"{s.estimate('hard_accuracy').mean:.4f} ({len(s.runs)})"
        for data, contenders in summaries.items()
        for s in contenders
    }
    rows = [["hard accuracy (seeds)", *summaries]]
    rows += [[spike, *(cells.get((spike, data), "") for data in summaries)] for spike in spikes]
    return aligned(rows if len(spikes) >= len(summaries) else list(zip(*rows, strict=True)))


def table(runs: Sequence[Run]) -> str:
    """A block a data set, a line a contender: means over seeds, interval and p.

    ``±`` is half the 95 % t-interval over seeds, p that of the paired t-test against HTAF treated
    alike, after Holm's correction.

    Raises:
        ValueError: no runs, or a run twice.
    """
    return "\n\n".join(_block(data, contenders) for data, contenders in summarize(runs).items())


def _block(data: str, summaries: Sequence[Summary]) -> str:
    columns = [column for column in COLUMNS if column.title not in _NOT_IN_TEXT]
    heads = [wrap(column.title, _HEAD) for column in columns]
    lines = max(map(len, heads))
    heads = [[""] * (lines - len(head)) + head for head in heads]
    counts = sorted({len(summary.runs) for summary in summaries})
    title = f"{data}, {' to '.join(map(str, counts))} seed{'s' if counts[-1] > 1 else ''}"
    rows = [[title if i == lines - 1 else "", *(h[i] for h in heads)] for i in range(lines)]
    rows += [[s.spike, *(column.text(s) for column in columns)] for s in summaries]
    return aligned(rows, ">")


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


def to_csv(summaries: Mapping[str, Sequence[Summary]]) -> str:
    """One row a data set and contender: every measure's mean and half interval, in full digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["data", "spike", "seeds"]
        + [name for field in _FIELDS for name in (field, f"{field}_ci95")]
        + ["difference_pp", "difference_pp_ci95", "common_seeds", "p_holm"]
    )
    for summary in (s for contenders in summaries.values() for s in contenders):
        estimates = [summary.estimate(field) for field in _FIELDS]
        d = summary.difference
        writer.writerow(
            [summary.data, summary.spike, len(summary.runs)]
            + [value for e in estimates for value in (e.mean, e.half_width)]
            + ([d.points.mean, d.points.half_width, d.seeds, d.p] if d else [None] * 4)
        )
    return text.getvalue()


def to_latex(summaries: Mapping[str, Sequence[Summary]]) -> str:
    """A table for a paper, by booktabs; ``\\input`` it."""
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{3.5pt}",
        "\\caption{Means over seeds; $\\pm$ half the 95\\,\\% t-interval; statistics gap: accuracy "
        f"as trained minus that with running statistics; transfer gap: the latter minus hard "
        f"accuracy; p: paired t-test against {escape_latex(REFERENCE)} treated alike, after "
        "Holm's correction over the contenders of a data set; MSOP: millions of synaptic "
        f"operations a sample; {escape_latex(ENERGY_SOURCE)}.}}",
        f"\\begin{{tabular}}{{l{'r' * len(COLUMNS)}}}",
        "\\toprule",
        " & ".join(["spike function", *(_latex_head(column.title) for column in COLUMNS)])
        + " \\\\",
    ]
    for data, contenders in summaries.items():
        head = f"\\multicolumn{{{len(COLUMNS) + 1}}}{{l}}{{\\textit{{{escape_latex(data)}}}}}"
        lines += ["\\midrule", f"{head} \\\\"]
        lines += [_latex_row([s.spike, *(c.text(s) for c in COLUMNS)]) for s in contenders]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex_cell, cells)) + " \\\\"


def _latex_head(title: str) -> str:
    lines = r" \\ ".join(map(escape_latex, wrap(title, _HEAD)))
    return f"\\shortstack[r]{{{lines}}}"


def _latex_cell(text: str) -> str:
    signed = text.startswith(("+", "-"))  # a hyphen in text mode is no minus
    return f"${text}$" if signed else escape_latex(text)


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
