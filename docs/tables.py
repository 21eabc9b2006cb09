"""Writes the tables of README and docs anew from the records in ``docs/results``.

    python docs/tables.py [--check]

A table stands between ``<!-- table NAME FOLDER -->`` and ``<!-- end -->``; nothing there is written
by hand. With ``--check`` nothing is written, and the exit code is 1 where a table would change.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from htaf_snn.comparison import Run, read_results
from htaf_snn.comparison.seed_statistics import estimate, summarize

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "examples"))
import between_recipes  # noqa: E402  # the studies' own
import sensitivity  # noqa: E402
from paper import effects  # noqa: E402

PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]
_TABLE = re.compile(r"(<!-- table (\w+) (\w+)((?: \S+)*) -->\n).*?(<!-- end -->)", re.DOTALL)


def accuracies(runs: Sequence[Run], *only: str) -> list[list[str]]:
    """Mean hard accuracy, contenders by data sets; ``only`` these contenders."""
    data = list(dict.fromkeys(run.data for run in runs))
    rows = [["contender", "treatment", *data]]
    for spike in only or dict.fromkeys(run.spike for run in runs):
        own = [run for run in runs if run.spike == spike]
        means = [estimate([r.hard_accuracy for r in own if r.data == one]).mean for one in data]
        rows.append([f"`{spike}`", own[0].treatment, *(f"{mean:.4f}" for mean in means)])
    return rows


def forms(runs: Sequence[Run], *only: str) -> list[list[str]]:
    """The three accuracies and two gaps of each contender, with intervals over seeds."""
    rows = [
        ["data", "contender", "treatment", "hard accuracy", "statistics gap, pp",
         "transfer gap, pp", "firing rate"]
    ]  # fmt: skip
    for data, contenders in summarize(runs).items():
        for one in contenders:
            if only and one.spike not in only:
                continue
            numbers = [
                format(one.estimate(field), form)
                for field, form in (("hard_accuracy", ".4f"), ("statistics_gap_pp", "+z.2f"),
                                    ("gap_pp", "+z.2f"))
            ]  # fmt: skip
            rate = f"{one.estimate('firing_rate').mean:.3f}"
            rows.append([data, f"`{one.spike}`", one.treatment, *numbers, rate])
    return rows


def recipes(runs: Sequence[Run]) -> list[list[str]]:
    """Seeds, mean hard accuracy in % and transfer gap in pp, contenders by data sets."""
    data = list(dict.fromkeys(run.data for run in runs))
    rows = [["contender", "seeds", *data]]
    for spike in dict.fromkeys(run.spike for run in runs):
        own = [run for run in runs if run.spike == spike]
        cells = []
        for one in data:
            here = [run for run in own if run.data == one]
            hard, gap = (estimate([getattr(run, field) for run in here]).mean
                         for field in ("hard_accuracy", "gap_pp"))  # fmt: skip
            cells.append(f"{100 * hard:.2f} ({gap:+z.1f})")
        seeds = len({run.seed for run in own})
        rows.append([f"`{spike}`", str(seeds), *cells])
    return rows


def differences(runs: Sequence[Run]) -> list[list[str]]:
    """Differences between contenders treated alike, and of treatments, by data set."""
    return effects.differences(effects.effects(summarize(runs)))


def answer(runs: Sequence[Run]) -> str:
    """Whether functions were trained without a surrogate as well as hardened, in sentences."""
    return f"\n{' '.join(effects.without_surrogate(summarize(runs)))}\n\n"


def tail(runs: Sequence[Run]) -> str:
    """At how many pairs of HTAF's parameters it is better than the best sigmoid, in a sentence."""
    return f"\n{sensitivity.verdict(runs)}\n\n"


def between(runs: Sequence[Run]) -> list[list[str]]:
    """What lies between the surrogate-free recipe and the hardened one."""
    return between_recipes.rows(runs)


def directions(_runs: Sequence[Run]) -> str:
    """The true gradient's angle to the surrogate's, in a sentence."""
    found = between_recipes.angles(DOCS / "results" / "between")
    return f"\n{between_recipes.directions(found)}\n\n"


def depth(runs: Sequence[Run]) -> list[list[str]]:
    """Hard accuracy by network, contender and number of time steps, of titles ``net, T = N``."""
    cells = {(*run.data.split(", T = "), run.spike): f"{run.hard_accuracy:.3f}" for run in runs}
    steps = sorted({int(T) for _, T, _ in cells})
    rows = [["network", "contender", *(f"T = {T}" for T in steps)]]
    for net in dict.fromkeys(net for net, _, _ in cells):
        for spike in dict.fromkeys(s for n, _, s in cells if n == net):
            values = [cells.get((net, str(T), spike), "-") for T in steps]
            rows.append([net, f"`{spike}`", *values])
    return rows


TABLES: dict[str, Callable[..., list[list[str]] | str]] = {
    "accuracies": accuracies, "forms": forms, "recipes": recipes, "differences": differences,
    "answer": answer, "tail": tail, "between": between, "directions": directions,
    "depth": depth,
}  # fmt: skip


def markdown(rows: Sequence[Sequence[str]] | str) -> str:
    """The rows as a table, the first its head; a text as it is."""
    if isinstance(rows, str):
        return rows
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n"


def filled(text: str) -> str:
    """A page's text with its tables as the records have them now."""

    def fill(found: re.Match[str]) -> str:
        begin, name, folder, only, end = found.groups()
        runs = list(read_results(DOCS / "results" / folder).runs.values())
        return begin + markdown(TABLES[name](runs, *only.split())) + end

    return _TABLE.sub(fill, text)


def main() -> None:
    """Writes the pages, or says which are not as the records have them."""
    stale = {page: text for page in PAGES if (text := filled(page.read_text())) != page.read_text()}
    for page, text in stale.items():
        print(page)
        if "--check" not in sys.argv:
            page.write_text(text)
    sys.exit(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    main()
