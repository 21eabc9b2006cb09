"""What may be concluded from a comparison, in plain sentences.

A difference that the seeds cannot tell from zero is called that, never an equality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .statistics import REFERENCE, Difference, Summary

_NOT_BUILT_IN = (REFERENCE, "scaled_sigmoid", "straight_through")


def is_built_in(spike: str) -> bool:
    """Whether the label is of one of SpikingJelly's own surrogates, not of an imported class."""
    name = spike.partition("@")[0].partition(":")[0]
    return "." not in name and not name.startswith(_NOT_BUILT_IN)


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
        f"{_counted(len(ahead), 'data set')}: {_listed(above)}"
    )
    text += f"; it is not on {_listed(others)}." if others else "."
    tested = {data: d for data, d in differences.items() if d is not None and d.p is not None}
    told = [data for data, d in tested.items() if d.significant]
    if told:
        text += (
            " After Holm's correction these seeds tell the difference from zero in favour of "
            f"{REFERENCE} on {_listed([data for data in told if ahead[data] > 0])}, against it on "
            f"{_listed([data for data in told if ahead[data] < 0])}."
        )
    elif tested:
        text += " After Holm's correction these seeds cannot tell any such difference from zero."
    if untested := [data for data in ahead if data not in tested]:
        text += f" No test is possible on {_listed(untested)}: no conclusion there."
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
        f" Of all contenders, after Holm's correction, above {REFERENCE}: {_listed(better)}; "
        f"below it: {_listed(worse)}."
    )


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else _counted(count, "seed")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items) if items else "none"
