"""What hardening adds and what HTAF adds, apart; and the contenders' ranks over everything."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scikit_posthocs
from scipy import stats
from statsmodels.stats.power import TTestPower

from .statistics import (
    LEVEL,
    REFERENCE,
    Estimate,
    Summary,
    counted,
    estimate,
    holm,
    is_built_in,
    listed,
    p_value,
    paired_p,
)

POINTS = 0.3  # percentage points whose detection the power is of
POWER = 0.8

Summaries = Mapping[str, Sequence[Summary]]


def unhardened(label: str) -> str | None:
    """The contender that differs from ``label`` in having the exact step from the start.

    None of a label that is not hardened, or is another's variant.
    """
    if label in (REFERENCE, "scaled_sigmoid"):
        return f"{label}:mode=hard"
    rest, count = re.subn(r"@hardening=\[[^\]]*\]", "", label)
    return rest if count == 1 and is_built_in(rest) else None


@dataclass(frozen=True)
class Effect:
    """A difference of means of contenders on one data set, paired by seed.

    Attributes:
        what: is compared.
        data: the data set.
        points: percentage points of hard accuracy, and the interval of one such difference.
        seeds: that all contenders of both sides have, >= 1.
        p: of the paired t-test, two-sided, after Holm's correction over the data sets; None where
            no test exists.
        seeds_needed: so many tell a true difference of `POINTS` from zero at the level of 5 % with
            a probability of `POWER`, at the spread that was measured; None of two seeds or fewer.
    """

    what: str
    data: str
    points: Estimate
    seeds: int
    p: float | None
    seeds_needed: int | None


def effects(summaries: Summaries) -> list[Effect]:
    """Each comparison that the contenders allow, on each data set."""
    found = []
    for what, sides in _contrasts(list(summaries.values())).items():
        differences = {
            data: points
            for data, contenders in summaries.items()
            if (points := _differences(contenders, *sides))
        }
        raw = {data: paired_p(own, [0.0] * len(own)) for data, own in differences.items()}
        tested = {data: p for data, p in raw.items() if p is not None}
        corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
        found += [
            Effect(what, data, estimate(own), len(own), corrected.get(data), seeds_needed(own))
            for data, own in differences.items()
        ]
    return found


def _contrasts(data_sets: Sequence[Sequence[Summary]]) -> dict[str, tuple[list[str], list[str]]]:
    """The labels on both sides of each comparison, by what it says."""
    labels = dict.fromkeys(summary.spike for contenders in data_sets for summary in contenders)
    hardened = [label for label in labels if unhardened(label) in labels]
    others = [label for label in hardened if label != REFERENCE]
    surrogates = [str(unhardened(label)) for label in hardened]
    contrasts = {f"hardening, mean of {len(hardened)} functions": (hardened, surrogates)}
    if REFERENCE in hardened and others:
        own = str(unhardened(REFERENCE))
        rest = [label for label in surrogates if label != own]
        sigmoids = [label for label in others if label.startswith(("sigmoid", "scaled_sigmoid"))]
        contrasts |= {
            f"{REFERENCE} against the sigmoid, both hardened": ([REFERENCE], sigmoids),
            f"{REFERENCE} against {len(others)} other functions, all hardened": (
                [REFERENCE],
                others,
            ),
            f"{REFERENCE} against {len(others)} other functions, all as surrogates": ([own], rest),
        }
    return {what: sides for what, sides in contrasts.items() if all(sides)}


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
    """How many seeds tell `POINTS` from zero at the spread of these differences, in pp."""
    if len(differences) < 3 or not np.ptp(differences):
        return None
    size = POINTS / float(np.std(differences, ddof=1))
    needed = TTestPower().solve_power(effect_size=size, alpha=LEVEL, power=POWER)
    return math.ceil(float(np.squeeze(needed)))


def say(effect: Effect) -> str:
    """The difference, and whether the seeds tell it from zero: ``+0.42 ± 0.30, p = 0.011``."""
    after = "" if effect.p is None else f", p {_equals(effect.p)}"
    return f"{effect.points:+z.2f}{after}"


def conclude_effects(found: Sequence[Effect]) -> list[str]:
    """A sentence a comparison: where the difference is told from zero, and what that would take."""
    sentences = []
    for what in dict.fromkeys(effect.what for effect in found):
        own = [effect for effect in found if effect.what == what]
        told = [e for e in own if e.p is not None and e.p < LEVEL]
        better = listed([e.data for e in told if e.points.mean > 0])
        worse = listed([e.data for e in told if e.points.mean < 0])
        text = (
            f"In pp, {what}: "
            + "; ".join(f"{e.data} {say(e)} ({counted(e.seeds, 'seed')})" for e in own)
            + f". Told from zero, above it: {better}; below it: {worse}."
        )
        needed = [f"{e.data} {e.seeds_needed}" for e in own if e.seeds_needed is not None]
        if needed:
            text += f" Seeds that would tell {POINTS} pp: {', '.join(needed)}."
        sentences.append(text)
    return sentences


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
        f"that all are alike: p {_equals(found.p)}."
    )
    if REFERENCE not in found.mean:
        return text
    own = found.mean[REFERENCE]
    told = [
        label
        for label in found.mean
        if label != REFERENCE and float(found.pairs.loc[REFERENCE, label]) < LEVEL
    ]
    below = listed([label for label in told if found.mean[label] > own])
    above = listed([label for label in told if found.mean[label] < own])
    return f"{text} Nemenyi's test tells from {REFERENCE}, above it: {above}; below it: {below}."


def _equals(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"
