"""Means, intervals and paired tests over seeds, and what may be concluded of them.

A difference that the seeds cannot tell from zero is called that, never an equality.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .results import Run
from .study import Contender

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

    ``p`` is of the paired t-test, two-sided, after Holm's correction over the contenders of the
    data set. None where no test exists: one seed, or the same difference on every seed.
    """

    points: Estimate  # in percentage points, not corrected for the number of contenders
    seeds: int  # how many seeds both have, >= 1
    p: float | None


@dataclass(frozen=True)
class Summary:
    """A contender's runs on one data set, in the order of their seeds."""

    data: str
    spike: str
    runs: tuple[Run, ...]
    difference: Difference | None  # None of HTAF, and where it was not treated so on a common seed

    @property
    def treatment(self) -> str:
        """The runs' kind of training, see `Run.treatment`."""
        return self.runs[0].treatment

    def estimate(self, field: str) -> Estimate:
        """The mean of a field of `Run` and its interval."""
        return estimate([getattr(run, field) for run in self.runs])


Summaries = Mapping[str, Sequence[Summary]]  # the contenders of each data set


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of one value a seed or more, and its 95 % interval by Student's t."""
    mean, count = float(np.mean(values)), len(values)
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


def holm(p_values: Mapping[str, float | None]) -> dict[str, float]:
    """Holm's step-down correction of those that are there, by name (Scand. J. Stat. 6, 1979)."""
    ascending = sorted((p, name) for name, p in p_values.items() if p is not None)
    factors = range(len(ascending), 0, -1)
    corrected = np.maximum.accumulate([n * p for n, (p, _) in zip(factors, ascending, strict=True)])
    return {name: min(float(p), 1.0) for p, (_, name) in zip(corrected, ascending, strict=True)}


def summarize(runs: Sequence[Run]) -> dict[str, list[Summary]]:
    """The contenders of each data set, in the order of their first run."""
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
    return {data: _summarize_one(data, contenders) for data, contenders in data_sets.items()}


def _summarize_one(data: str, contenders: dict[str, dict[int, Run]]) -> list[Summary]:
    treated, references = {}, dict[object, dict[int, Run]]()
    for spike, by_seed in contenders.items():
        parsed = Contender(spike)
        treated[spike] = next(iter(by_seed.values())).treatment, parsed.others
        if parsed.function == REFERENCE:
            references.setdefault(treated[spike], by_seed)
    points, p_values = {}, {}
    for spike, by_seed in contenders.items():
        reference = references.get(treated[spike], by_seed)
        common = sorted(by_seed.keys() & reference.keys())
        if common and by_seed is not reference:
            own, theirs = (
                [runs[seed].hard_accuracy for seed in common] for runs in (by_seed, reference)
            )
            points[spike] = [100 * (a - b) for a, b in zip(own, theirs, strict=True)]
            p_values[spike] = paired_p(own, theirs)
    corrected = holm(p_values)
    differences = {
        spike: Difference(estimate(found), len(found), corrected.get(spike))
        for spike, found in points.items()
    }
    return [
        Summary(data, spike, tuple(run for _, run in sorted(runs.items())), differences.get(spike))
        for spike, runs in contenders.items()
    ]


def headline(summaries: Summaries) -> list[str]:
    """Concludes in sentences: of functions that were treated alike, and of the widest gaps."""
    contenders = [summary for own in summaries.values() for summary in own]
    pairs = [(s, s.difference) for s in contenders if s.difference is not None]
    tested = [(s, d, d.p) for s, d in pairs if d.p is not None]
    told = [(s, d) for s, d, p in tested if p < LEVEL]
    subject = f"Treated alike, {REFERENCE} and the others"
    if not pairs:
        first = f"Nothing was treated as {REFERENCE}: nothing is concluded of spike functions."
    elif not tested:
        first = f"{subject} can't be told apart: that takes two seeds or more, which differ."
    elif not told:
        first = f"{subject} are not told apart by these seeds."
    else:
        cases = "; ".join(f"{s.spike}, {s.data}: {d.points.mean:+z.2f} pp" for s, d in told)
        first = (
            f"{subject} are told apart by these seeds in {len(told)} of {len(tested)} cases, by "
            f"accuracy minus {REFERENCE}'s. {cases}."
        )
    return [first, _gaps(contenders)]


def _gaps(contenders: Sequence[Summary]) -> str:
    """The widest mean gaps, or that there is none."""
    said = []
    for field, name in (("statistics_gap_pp", "statistics gap"), ("gap_pp", "transfer gap")):
        means = [(s.estimate(field).mean, f"{s.spike}, {s.data}") for s in contenders]
        known = [found for found in means if not math.isnan(found[0])]
        if known:
            widest, whose = max(known, key=lambda found: abs(found[0]))
            whose = f" ({whose})" if round(widest, 2) else ""
            said.append(f"the widest mean {name} is {widest:+z.2f} pp{whose}")
    return f"{'; '.join(said)}.".capitalize()


def p_value(p: float) -> str:
    """Two digits that matter, and no more zeros than a reader wants: ``0.31``, ``< 0.0001``."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2f}" if p >= 0.095 else f"{p:.2g}"
