"""What hardening adds and what HTAF adds, apart, in the records of a comparison.

    python examples/paper/effects.py docs/results/fair

It compares the mean of some contenders with that of others, paired by seed, on each data set of
``results.json`` in that folder, with Holm's correction over the data sets, and says how many seeds
would tell a difference of `POINTS`. docs/results.md has its tables.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import stats

from htaf_snn.comparison import Contender, aligned, read_results
from htaf_snn.comparison.seed_statistics import (
    LEVEL,
    REFERENCE,
    SAME,
    Estimate,
    Summaries,
    Summary,
    estimate,
    holm,
    p_value,
    paired_p,
    summarize,
)

POINTS = 0.3  # percentage points whose detection the power is of
POWER = 0.8
GAP = 0.2  # percentage points that a transfer gap may have, either way
_FREE = ", surrogate-free minus hardened"
Kind = Literal["function", "hardening", "recipe"]


@dataclass(frozen=True)
class Effect:
    """A difference of means of contenders on one data set, paired by seed.

    Attributes:
        what: is compared.
        kind: "function", of spike functions treated alike; "hardening", hardened minus as a
            surrogate; or "recipe", surrogate-free minus hardened.
        data: the data set.
        points: percentage points of hard accuracy, and the interval of one such difference.
        seeds: that all contenders of both sides have, >= 1.
        p: of the paired t-test, two-sided, after Holm's correction over the data sets; None where
            no test exists.
        seeds_needed: so many tell a true difference of `POINTS` from zero at the level of 5 % with
            a probability of `POWER`, at the spread that was measured; None of two seeds or fewer.
    """

    what: str
    kind: Kind
    data: str
    points: Estimate
    seeds: int
    p: float | None
    seeds_needed: int | None


def effects(summaries: Summaries) -> list[Effect]:
    """Each comparison that the contenders allow, on each data set."""
    found = []
    for what, (kind, *sides) in _contrasts(list(summaries.values())).items():
        differences = {
            data: points
            for data, contenders in summaries.items()
            if (points := _differences(contenders, *sides))
        }
        corrected = holm(
            {data: paired_p(own, [0.0] * len(own)) for data, own in differences.items()}
        )
        found += [
            Effect(
                what, kind, data, estimate(own), len(own), corrected.get(data),
                seeds_needed(own),
            )
            for data, own in differences.items()
        ]  # fmt: skip
    return found


_ALIKE = {"hardened": "hardened", "surrogate": "as surrogates", "smooth": "smooth to the end",
          "surrogate-free": "surrogate-free"}  # fmt: skip


def _contrasts(
    data_sets: Sequence[Sequence[Summary]],
) -> dict[str, tuple[Kind, list[str], list[str]]]:
    """Maps a comparison's words to its kind and both sides' labels."""
    labels: dict[tuple[str, str, frozenset[str]], str] = {}  # by treatment, function and the rest
    for summary in (s for contenders in data_sets for s in contenders):
        parsed = Contender(summary.spike)
        labels.setdefault((summary.treatment, parsed.function, parsed.others), summary.spike)
    contrasts: dict[str, tuple[Kind, list[str], list[str]]] = {}
    for treatment, words in _ALIKE.items():
        alike = {f: label for (t, f, rest), label in labels.items() if t == treatment and not rest}
        own = alike.pop(REFERENCE, None)
        others = {f: label for f, label in alike.items() if not f.startswith(f"{REFERENCE}:")}
        sigmoids = [f for f in others if f.startswith(("sigmoid", "scaled_sigmoid"))]
        if own is None or not others:
            continue
        for function in [f for f in others if len(others) == 1 or f in sigmoids]:
            what = f"{REFERENCE} minus {function}, both {words}"
            contrasts[what] = ("function", [own], [others[function]])
        if len(others) > 1:
            what = f"{REFERENCE} minus {len(others)} other functions, all {words}"
            contrasts[what] = ("function", [own], list(others.values()))
    twins = [
        (label, labels["surrogate", function, rest])
        for (treatment, function, rest), label in labels.items()
        if treatment == "hardened" and ("surrogate", function, rest) in labels
    ]
    if twins:
        hardened, surrogates = map(list, zip(*twins, strict=True))
        what = f"hardened minus as a surrogate, mean of {_counted(len(twins), 'function')}"
        contrasts[what] = ("hardening", hardened, surrogates)
    for (treatment, function, rest), label in labels.items():
        hard = labels.get(("hardened", function, rest))
        if treatment == "surrogate-free" and hard is not None:
            contrasts[function + _FREE] = ("recipe", [label], [hard])
    return contrasts


def _differences(
    contenders: Sequence[Summary], plus: Sequence[str], minus: Sequence[str]
) -> list[float]:
    """The mean of some minus that of others in pp, a seed that all have; none if one is absent."""
    by_seed = {s.spike: {run.seed: run.hard_accuracy for run in s.runs} for s in contenders}
    if any(label not in by_seed for label in (*plus, *minus)):
        return []
    seeds = set.intersection(*(set(by_seed[label]) for label in (*plus, *minus)))

    def mean(labels: Sequence[str], seed: int) -> float:
        return float(np.mean([by_seed[label][seed] for label in labels]))

    return [100 * (mean(plus, seed) - mean(minus, seed)) for seed in sorted(seeds)]


def seeds_needed(differences: Sequence[float]) -> int | None:
    """Returns the number of seeds that would tell `POINTS` from zero at this spread.

    None where the spread is too small, or too large, to say.
    """
    if len(differences) < 3 or float(np.ptp(differences)) < 100 * SAME:
        return None
    size = POINTS / float(np.std(differences, ddof=1))
    if not 0.01 < size < 10:
        return None  # thousands of seeds, or fewer than two
    # The normal approximation is below the t-test's number by two or three.
    z = stats.norm.ppf(1 - LEVEL / 2) + stats.norm.ppf(POWER)
    return next(n for n in itertools.count(max(2, int((z / size) ** 2))) if _power(size, n) > POWER)


def _power(size: float, seeds: int) -> float:
    """Returns the power of a paired two-sided t-test of a difference of ``size`` deviations."""
    least = stats.t.ppf(1 - LEVEL / 2, seeds - 1)
    return float(stats.nct.sf(least, seeds - 1, size * math.sqrt(seeds)))


def without_surrogate(summaries: Summaries) -> list[str]:
    """Says of each function whether it was trained without a surrogate as well as hardened.

    As well is: a mean transfer gap of at most `GAP` pp, and a mean accuracy at most `POINTS` pp
    below the hardened recipe's, each on three data sets of four.
    """
    found = [e for e in effects(summaries) if e.kind == "recipe"]
    sentences = []
    for what in dict.fromkeys(e.what for e in found):
        function = what.removesuffix(_FREE)
        sets = {e.data: e.points.mean >= -POINTS for e in found if e.what == what}
        gaps = [
            abs(s.estimate("gap_pp").mean) <= GAP
            for data in sets
            for s in summaries[data]
            if s.treatment == "surrogate-free" and Contender(s.spike).function == function
        ]
        met = [4 * sum(own) >= 3 * len(sets) for own in (gaps, sets.values())]
        sentences.append(
            f"{'Yes' if all(met) else 'No'}: without a surrogate to the end, {function} has a mean "
            f"gap of at most {GAP} pp on {sum(gaps)} of {_counted(len(sets), 'data set')}, and "
            f"fires at most {POINTS} pp worse than hardened on {sum(sets.values())}."
        )
    return sentences


def conclusions(found: Sequence[Effect]) -> list[str]:
    """Concludes in sentences: of functions treated alike, and of hardening."""
    return [
        _verdict(
            [e for e in found if e.kind == "function"],
            f"Treated alike, {REFERENCE} and the other spike functions",
            "No two spike functions were treated alike: nothing is concluded of them.",
        ),
        _verdict(
            [e for e in found if e.kind == "hardening"],
            "The same functions hardened and as surrogates",
            "No function was both hardened and a surrogate: nothing is concluded of hardening.",
        ),
    ]


def _verdict(found: Sequence[Effect], subject: str, nothing: str) -> str:
    if not found:
        return nothing
    tested = [e for e in found if e.p is not None]
    told = [e for e in tested if e.p is not None and e.p < LEVEL]
    if not tested:
        return f"{subject} can't be told apart: that takes two seeds or more, which differ."
    if not told:
        return f"{subject} are not told apart by these seeds."
    cases = {
        what: ", ".join(f"{e.data} {e.points.mean:+z.2f} pp" for e in told if e.what == what)
        for what in dict.fromkeys(e.what for e in told)
    }
    listed = "; ".join(f"{what}: {where}" for what, where in cases.items())
    return (
        f"{subject} are told apart by these seeds in {_counted(len(told), 'case')} of "
        f"{len(tested)}. {listed}."
    )


def differences(found: Sequence[Effect]) -> list[list[str]]:
    """A row a comparison, a column a data set, and the seeds that would tell `POINTS`."""
    data = list(dict.fromkeys(effect.data for effect in found))
    rows = [["difference (pp)", *data, f"seeds that tell {POINTS} pp"]]
    for what in dict.fromkeys(effect.what for effect in found):
        own = {effect.data: effect for effect in found if effect.what == what}
        needed = [str(e.seeds_needed or "-") for e in own.values()]
        cells = [_said(own[one]) if one in own else "" for one in data]
        rows.append([what, *cells, ", ".join(needed)])
    return rows if found else []


def _said(effect: Effect) -> str:
    """The difference, and whether the seeds tell it from zero: ``+0.42 ± 0.30, p = 0.011``."""
    after = "" if effect.p is None else f", p {equals_p(effect.p)}"
    return f"{effect.points:+z.2f}{after}"


def equals_p(p: float) -> str:
    """Returns ``= 0.011``, or ``< 0.001`` where it is less."""
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def main(folder: Path) -> str:
    """Returns the table and the conclusions of the comparison in a folder."""
    summaries = summarize(list(read_results(folder).runs.values()))
    found = effects(summaries)
    rows = differences(found)
    table = [aligned(rows)] if rows else []
    return "\n".join([*without_surrogate(summaries), *table, *conclusions(found)])


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
