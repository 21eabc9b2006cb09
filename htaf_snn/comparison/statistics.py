"""Means, intervals and paired tests over the seeds of a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .record import Run

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

    The i-th smallest of m, from 0, is multiplied by m - i; none falls below the one before it,
    nor rises above 1.

    Source:
        S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal
        of Statistics 6 (1979).
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    rising = np.maximum.accumulate(np.asarray(p_values, float)[order] * factors)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(rising, 1)
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
