"""Ranks of the contenders of a comparison over its data sets and seeds, with their tests.

    python examples/ranks.py docs/results/fair

It prints Friedman's and Nemenyi's conclusions of ``results.json`` in that folder, and draws the
critical-difference diagram into its ``figures/``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import scikit_posthocs
from matplotlib.figure import Figure
from paper.effects import equals_p
from scipy import stats

from htaf_snn.comparison import plots, read_results
from htaf_snn.comparison.seed_statistics import LEVEL, REFERENCE, Summaries, summarize
from htaf_snn.files import save_figure


@dataclass(frozen=True)
class Ranks:
    """The contenders' ranks by hard accuracy, 1 the best, within each data set and seed.

    Attributes:
        mean: by label, best first.
        blocks: pairs of a data set and a seed that all contenders have, >= 2.
        p: of Friedman's test that all contenders are alike.
        pairs: p of Nemenyi's test for each pair of labels.

    Source:
        J. Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006).
        His blocks are data sets; seeds of one data set say nothing of other data sets.
    """

    mean: dict[str, float]
    blocks: int
    p: float
    pairs: Any


def ranks(summaries: Summaries) -> Ranks | None:
    """The ranks, over the contenders of all data sets; None of fewer than 3, or than 2 blocks."""
    runs = [run for contenders in summaries.values() for s in contenders for run in s.runs]
    records = pd.DataFrame([(r.data, r.seed, r.spike, r.hard_accuracy) for r in runs])
    accuracies = records.pivot(index=[0, 1], columns=2, values=3).dropna()
    if accuracies.shape[0] < 2 or accuracies.shape[1] < 3:
        return None
    mean = accuracies.rank(axis=1, ascending=False).mean().sort_values()
    p = float(stats.friedmanchisquare(*accuracies.to_numpy().T).pvalue)
    pairs = scikit_posthocs.posthoc_nemenyi_friedman(accuracies.reset_index(drop=True))
    return Ranks({str(k): float(v) for k, v in mean.items()}, len(accuracies), p, pairs)


def conclude_ranks(found: Ranks) -> str:
    """Friedman's p, and whom Nemenyi's test tells from HTAF's default."""
    order = ", ".join(f"{label} {rank:.2f}" for label, rank in found.mean.items())
    text = (
        f"Mean ranks over {found.blocks} pairs of a data set and a seed: {order}. Friedman's test "
        f"that all are alike: p {equals_p(found.p)}."
    )
    if REFERENCE not in found.mean:
        return text
    own = found.mean[REFERENCE]
    told = [
        label
        for label in found.mean
        if label != REFERENCE and float(found.pairs.loc[REFERENCE, label]) < LEVEL
    ]
    below = ", ".join(label for label in told if found.mean[label] > own) or "none"
    above = ", ".join(label for label in told if found.mean[label] < own) or "none"
    return f"{text} Nemenyi's test tells from {REFERENCE}, above it: {above}; below it: {below}."


def critical_difference(found: Ranks) -> Figure:
    """Mean ranks on a line; bars join contenders that are not told apart."""
    longest = max(len(f"{label} (0.00)") for label in found.mean)
    figure = plots.new_figure(
        0.5 + 0.16 * len(found.mean), max(plots.COLUMN, 1.6 + 0.055 * longest)
    )
    axes = figure.subplots()
    axes.grid(visible=False)
    scikit_posthocs.critical_difference_diagram(
        found.mean,
        found.pairs,
        ax=axes,
        alpha=LEVEL,
        left_only=True,
        label_fmt_left="{label} ({rank:.2f})",
        label_props={"fontsize": 6.5},
        color_palette=dict.fromkeys(found.mean, "#444444"),
    )
    return figure


def main(folder: Path) -> str:
    """Draws the diagram of the comparison in a folder; returns what the ranks say."""
    found = ranks(summarize(list(read_results(folder).runs.values())))
    if found is None:
        raise SystemExit(f"{folder}: ranks take 3 contenders, and 2 pairs of a data set and a seed")
    (folder / "figures").mkdir(exist_ok=True)
    with plots.drawing():
        save_figure(critical_difference(found), folder / "figures", "ranks")
    return f"{conclude_ranks(found)}\n{folder / 'figures' / 'ranks.png'}"


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
