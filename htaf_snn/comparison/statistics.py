"""Means, intervals and paired tests over seeds, and what may be concluded of them.

A difference that the seeds cannot tell from zero is called that, never an equality.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

from .. import surrogates
from .contender import Run

REFERENCE = "htaf"  # the label of HTAF's default, which every contender is tested against
LEVEL = 0.05  # of a test; an interval's confidence is 1 - LEVEL
_SAME = 1e-9  # accuracies closer than this are the same count of samples


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and half the width of its 95 % t-interval (None of one seed).

    Formatted as a number it reads ``0.951 ± 0.006``, or the mean alone of one seed, and ``-``
    where the mean is NaN.
    """

    mean: float
    half_width: float | None

    def __format__(self, form: str) -> str:
        if math.isnan(self.mean):
            return "-"
        spread = "" if self.half_width is None else f" ± {self.half_width:{form.lstrip('+')}}"
        return f"{self.mean:{form}}{spread}"

    @property
    def low(self) -> float:
        return self.mean - (self.half_width or 0.0)

    @property
    def high(self) -> float:
        return self.mean + (self.half_width or 0.0)


@dataclass(frozen=True)
class Difference:
    """A contender's hard accuracy minus HTAF's, over the seeds that both have.

    Attributes:
        points: the mean difference in percentage points and its interval, which is not
            corrected for the number of contenders.
        seeds: how many seeds both have, >= 1.
        p: of the paired t-test, two-sided, after Holm's correction over the contenders of the
            data set. None where no test exists: one seed, or the same difference on every seed.
    """

    points: Estimate
    seeds: int
    p: float | None

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < LEVEL


@dataclass(frozen=True)
class Summary:
    """A contender's runs on one data set.

    ``difference`` is None of HTAF's default itself, and where no seed is common to both.
    """

    data: str
    spike: str
    runs: tuple[Run, ...]
    difference: Difference | None

    def estimate(self, field: str) -> Estimate:
        """The mean of a field of `Run` and its interval."""
        return estimate([getattr(run, field) for run in self.runs])


def estimate(values: Sequence[float]) -> Estimate:
    """The mean and its 95 % interval by Student's t, with ``len(values) - 1`` degrees of freedom.

    Args:
        values: one a seed, at least one.
    """
    count = len(values)
    mean = float(np.mean(values))
    if count < 2:
        return Estimate(mean, None)
    quantile = float(stats.t.ppf(1 - LEVEL / 2, count - 1))
    return Estimate(mean, quantile * float(np.std(values, ddof=1)) / math.sqrt(count))


def paired_p(first: Sequence[float], second: Sequence[float]) -> float | None:
    """The two-sided p of the paired t-test; None if the differences do not vary, or of one pair."""
    differences = np.subtract(first, second)
    if len(differences) < 2 or np.ptp(differences) < _SAME:
        return None
    return float(stats.ttest_rel(first, second).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given.

    Source:
        S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal
        of Statistics 6 (1979).
    """
    return [float(p) for p in multipletests(p_values, method="holm")[1]] if p_values else []


def summarize(runs: Sequence[Run]) -> dict[str, list[Summary]]:
    """The contenders of each data set, in the order of their first run.

    Raises:
        ValueError: no runs, or two of the same data set, spike function and seed.
    """
    if not runs:
        raise ValueError("`runs` is empty; a summary needs at least one run")
    data_sets: dict[str, dict[str, dict[int, Run]]] = {}
    for run in runs:
        by_seed = data_sets.setdefault(run.data, {}).setdefault(run.spike, {})
        if run.seed in by_seed:
            raise ValueError(
                f"two runs of {run.spike} on {run.data} with seed {run.seed}; keep one of them"
            )
        by_seed[run.seed] = run
    return {data: _summarize_one(data, spikes) for data, spikes in data_sets.items()}


def _summarize_one(data: str, spikes: dict[str, dict[int, Run]]) -> list[Summary]:
    reference = spikes.get(REFERENCE, {})
    pairs: dict[str, tuple[list[float], list[float]]] = {}  # accuracies of the common seeds
    for spike, by_seed in spikes.items():
        common = sorted(by_seed.keys() & reference.keys())
        if common and spike != REFERENCE:
            pairs[spike] = (
                [by_seed[seed].hard_accuracy for seed in common],
                [reference[seed].hard_accuracy for seed in common],
            )
    tested = {spike: p for spike, pair in pairs.items() if (p := paired_p(*pair)) is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return [
        Summary(
            data,
            spike,
            tuple(by_seed[seed] for seed in sorted(by_seed)),
            _difference(*pairs[spike], corrected.get(spike)) if spike in pairs else None,
        )
        for spike, by_seed in spikes.items()
    ]


def _difference(own: list[float], reference: list[float], p: float | None) -> Difference:
    points = [100 * (a - b) for a, b in zip(own, reference, strict=True)]
    return Difference(estimate(points), len(points), p)


def is_built_in(label: str) -> bool:
    """Whether the label is of one of SpikingJelly's own surrogates as it comes, not hardened."""
    spec, *options = label.split("@")
    hardened = ":mode=" in spec or any(option.startswith("hardening=[") for option in options)
    return surrogates.is_built_in(spec) and not hardened


def best_built_in(summaries: Sequence[Summary]) -> Summary | None:
    """The built-in with the greatest mean hard accuracy, None if there is none.

    Among those with most seeds: a mean over fewer is easier to be lucky in.
    """
    built_in = [summary for summary in summaries if is_built_in(summary.spike)]
    return max(
        built_in,
        key=lambda s: (len(s.runs), s.estimate("hard_accuracy").mean),
        default=None,
    )


def conclude(summaries: Sequence[Summary]) -> str:
    """What the runs on one data set say about HTAF's default.

    Args:
        summaries: all contenders of the data set, at least one.
    """
    data = summaries[0].data
    own = next((s for s in summaries if s.spike == REFERENCE), None)
    if own is None:
        return f"On {data} there is no run of {REFERENCE}: nothing is compared."
    text = (
        f"On {data} ({_seeds(len(own.runs))}) {REFERENCE} reaches "
        f"{own.estimate('hard_accuracy'):.3f} at the exact step"
    )
    best = best_built_in(summaries)
    if best is None:
        text += "; no built-in surrogate was run"
    else:
        text += (
            f"; the best built-in, {best.spike}, {best.estimate('hard_accuracy'):.3f}"
            f": {_verdict(own, best)}"
        )
    gap = own.estimate("gap_pp")
    return f"{text}; mean gap {gap.mean:+z.1f} pp.{_luckier(summaries, best)}{_others(summaries)}"


def conclude_all(summaries: Mapping[str, Sequence[Summary]]) -> str:
    """What the data sets say together: where HTAF's default leads, where it trails, its gap."""
    gaps = {
        data: summary.estimate("gap_pp").mean
        for data, contenders in summaries.items()
        for summary in contenders
        if summary.spike == REFERENCE
    }
    if not gaps:
        return f"No run of {REFERENCE}: nothing is compared."
    widest = max(gaps, key=lambda data: abs(gaps[data]))
    return (
        f"{_standing(summaries)} "
        f"The mean gap of {REFERENCE} farthest from zero is {gaps[widest]:+z.1f} pp, on {widest}."
    )


def _standing(summaries: Mapping[str, Sequence[Summary]]) -> str:
    """On which data sets HTAF's default leads the best built-in, and where the seeds prove it."""
    bests = {data: best_built_in(contenders) for data, contenders in summaries.items()}
    differences = {data: best.difference for data, best in bests.items() if best is not None}
    ahead = {data: -d.points.mean for data, d in differences.items() if d is not None}
    if not ahead:
        return f"No built-in surrogate was run on the seeds of {REFERENCE}: no conclusion."
    above = [f"{data} {points:+z.1f} pp" for data, points in ahead.items() if points > 0]
    others = [f"{data} {points:+z.1f} pp" for data, points in ahead.items() if points <= 0]
    text = (
        f"The mean hard accuracy of {REFERENCE} is above the best built-in's on {len(above)} of "
        f"{counted(len(ahead), 'data set')}: {listed(above)}"
    )
    text += f"; it is not on {listed(others)}." if others else "."
    tested = {data: d for data, d in differences.items() if d is not None and d.p is not None}
    told = [data for data, d in tested.items() if d.significant]
    if told:
        text += (
            " After Holm's correction these seeds tell the difference from zero in favour of "
            f"{REFERENCE} on {listed([data for data in told if ahead[data] > 0])}, against it on "
            f"{listed([data for data in told if ahead[data] < 0])}."
        )
    elif tested:
        text += " After Holm's correction these seeds cannot tell any such difference from zero."
    if untested := [data for data in ahead if data not in tested]:
        text += f" No test is possible on {listed(untested)}: no conclusion there."
    return text


def _verdict(own: Summary, other: Summary) -> str:
    difference = other.difference
    if difference is None:
        return "no seed in common, no conclusion"
    ahead = -difference.points.mean  # of HTAF, in pp
    by = f"a difference of {ahead:+z.1f} pp"
    if difference.seeds < len(own.runs):
        by += f" on the {_seeds(difference.seeds)} that both have"
    if difference.seeds == 1:
        return f"{by}; one seed: no conclusion"
    if difference.p is None:
        return f"{by} on every seed, which no t-test can judge: no conclusion"
    p = p_value(difference.p)
    after = f"p {p if p.startswith('<') else f'= {p}'} after Holm's correction"
    by += f" (95 % interval {_reversed(difference)} pp)"
    if not difference.significant:
        return f"{by} that these seeds cannot tell from zero ({after})"
    return f"{by}, in favour of {REFERENCE if ahead > 0 else other.spike} ({after})"


def p_value(p: float) -> str:
    """Two digits that matter, and no more zeros than a reader wants: ``0.31``, ``< 0.0001``."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2f}" if p >= 0.095 else f"{p:.2g}"


def _reversed(difference: Difference) -> str:
    """The interval of HTAF minus the contender."""
    return f"{-difference.points.high:+z.1f} to {-difference.points.low:+z.1f}"


def _luckier(summaries: Sequence[Summary], best: Summary | None) -> str:
    """Built-ins with fewer seeds and a greater mean than the best one's."""
    if best is None:
        return ""
    bar = best.estimate("hard_accuracy").mean
    found = [
        f"{s.spike} {s.estimate('hard_accuracy').mean:.3f} ({_seeds(len(s.runs))})"
        for s in summaries
        if is_built_in(s.spike) and s.estimate("hard_accuracy").mean > bar
    ]
    return f" With fewer seeds: {', '.join(found)}." if found else ""


def _others(summaries: Sequence[Summary]) -> str:
    """All contenders that the tests separate from HTAF's default."""
    told = [s for s in summaries if s.difference is not None and s.difference.significant]
    better = [s.spike for s in told if s.difference and s.difference.points.mean > 0]
    worse = [s.spike for s in told if s.difference and s.difference.points.mean < 0]
    if not told:
        return ""
    return (
        f" Of all contenders, after Holm's correction, above {REFERENCE}: {listed(better)}; "
        f"below it: {listed(worse)}."
    )


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else counted(count, "seed")


def counted(count: int, what: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def listed(items: Sequence[str]) -> str:
    """The items between commas, or "none"."""
    return ", ".join(items) if items else "none"
