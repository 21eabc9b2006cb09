"""Means, intervals and paired tests over seeds, and what may be concluded of them.

A difference that the seeds cannot tell from zero is called that, never an equality.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .contender import Contender, Run

REFERENCE = "htaf"  # the function that every other is tested against, treated alike
LEVEL = 0.05  # of a test; an interval's confidence is 1 - LEVEL
SAME = 1e-9  # accuracies closer than this are the same count of samples


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
    """A contender's hard accuracy minus that of HTAF, treated alike, over the seeds of both.

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


@dataclass(frozen=True)
class Summary:
    """A contender's runs on one data set.

    ``difference`` is None of HTAF itself, and where HTAF was not treated so on a common seed.
    """

    data: str
    spike: str
    runs: tuple[Run, ...]
    difference: Difference | None

    @property
    def treatment(self) -> str:
        """The runs' kind of training, see `Run.treatment`."""
        return self.runs[0].treatment

    @property
    def function(self) -> str:
        """The contender's function, see `Contender.function`."""
        return Contender(self.spike).function

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
    if len(differences) < 2 or np.ptp(differences) < SAME:
        return None
    return float(stats.ttest_rel(first, second).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given.

    Source:
        S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal
        of Statistics 6 (1979).
    """
    order = np.argsort(p_values)
    ascending = np.arange(len(order), 0, -1) * np.asarray(p_values, float)[order]
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(ascending), 1)
    return [float(p) for p in corrected]


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
    alike = {
        spike: (next(iter(by_seed.values())).treatment, Contender(spike).others)
        for spike, by_seed in spikes.items()
    }
    references = {alike[s]: s for s in reversed(spikes) if Contender(s).function == REFERENCE}
    pairs: dict[str, tuple[list[float], list[float]]] = {}  # accuracies of the common seeds
    for spike, by_seed in spikes.items():
        reference = references.get(alike[spike], spike)
        common = sorted(by_seed.keys() & spikes[reference].keys())
        if common and spike != reference:
            pairs[spike] = (
                [by_seed[seed].hard_accuracy for seed in common],
                [spikes[reference][seed].hard_accuracy for seed in common],
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


def p_value(p: float) -> str:
    """Two digits that matter, and no more zeros than a reader wants: ``0.31``, ``< 0.0001``."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2f}" if p >= 0.095 else f"{p:.2g}"


def counted(count: int, what: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def listed(items: Sequence[str]) -> str:
    """The items between commas, or "none"."""
    return ", ".join(items) if items else "none"
