"""Records, statistics and sentences of a comparison."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy import stats

from htaf_snn.comparison.contender import Run, from_json, to_json
from htaf_snn.comparison.statistics import (
    best_built_in,
    conclude,
    conclude_all,
    estimate,
    holm,
    is_built_in,
    paired_p,
    summarize,
)

from .synthetic import make_run, make_runs


def make(accuracies: Mapping[str, Sequence[float | None]], data: str = "nmnist") -> list[Run]:
    """Runs with these hard accuracies, one a seed; None leaves the seed out."""
    return [
        make_run(data=data, spike=spike, seed=seed, hard_accuracy=value, soft_accuracy=value)
        for spike, values in accuracies.items()
        for seed, value in enumerate(values)
        if value is not None
    ]


def test_a_record_comes_back_from_its_file() -> None:
    run = make_runs(seeds=(3,), contenders=("htaf",))[0]
    assert from_json(json.loads(json.dumps(to_json(run)))) == run


def test_a_record_says_what_it_lacks() -> None:
    record = to_json(make_run(spike="atan", seed=7))
    del record["outputs"], record["energy_nj"]
    with pytest.raises(ValueError, match="digits atan 7 lacks energy_nj, outputs"):
        from_json(record)
    record = to_json(make_run())
    del record["history"][1]["gradient_norms"]
    with pytest.raises(ValueError, match=r"`history\[1\]` of digits htaf 0 lacks gradient_norms"):
        from_json(record)
    with pytest.raises(ValueError, match="unknown colour"):
        from_json(to_json(make_run()) | {"colour": "blue"})


def test_interval_by_hand_and_by_scipy() -> None:
    # t(0.975, 2) = 4.302653; standard deviation 0.02, so 4.302653 * 0.02 / sqrt(3).
    of_three = estimate([0.90, 0.92, 0.94])
    assert of_three.mean == pytest.approx(0.92)
    assert of_three.half_width == pytest.approx(0.0496828, abs=1e-6)
    values = np.random.default_rng(0).normal(size=7)
    low, high = stats.t.interval(0.95, 6, values.mean(), stats.sem(values))
    own = estimate(list(values))
    assert [own.low, own.high] == pytest.approx([low, high])
    assert estimate([0.5]).half_width is None


def test_paired_p_by_hand() -> None:
    # Differences 1, 2, 3: t = 2 sqrt(3); with 2 degrees of freedom p = 1 - t / sqrt(2 + t^2).
    t = 2 * math.sqrt(3)
    assert paired_p([2, 4, 6], [1, 2, 3]) == pytest.approx(1 - t / math.sqrt(2 + t**2))
    assert paired_p([0.9], [0.8]) is None
    assert paired_p([0.93, 0.94, 0.95], [0.90, 0.91, 0.92]) is None  # 0.03 but for rounding


def test_holm_by_hand() -> None:
    # Sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1, which may not fall below 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def test_contenders_are_tested_on_common_seeds_and_corrected_by_data_set() -> None:
    nmnist = {
        "atan": [0.90, 0.91, 0.93, 0.99, None],
        "htaf": [0.94, 0.92, 0.95, None, 0.90],
        "erf": [0.80, 0.82, 0.81, None, 0.83],
    }
    summaries = summarize(make(nmnist) + make({"htaf": [0.9, 0.8], "erf": [0.7, 0.65]}, "mnist"))
    atan, htaf, erf = summaries["nmnist"]
    assert [s.spike for s in summaries["nmnist"]] == ["atan", "htaf", "erf"]
    assert len(atan.runs) == 4 and atan.estimate("hard_accuracy").mean == pytest.approx(0.9325)
    assert htaf.difference is None
    assert atan.difference and erf.difference
    assert (atan.difference.seeds, erf.difference.seeds) == (3, 4)
    assert atan.difference.points.mean == pytest.approx(-7 / 3)
    ps = [
        float(stats.ttest_rel([0.90, 0.91, 0.93], [0.94, 0.92, 0.95]).pvalue),
        float(stats.ttest_rel([0.80, 0.82, 0.81, 0.83], [0.94, 0.92, 0.95, 0.90]).pvalue),
    ]
    assert ps[1] < ps[0]
    assert atan.difference.p == pytest.approx(max(ps[0], 2 * ps[1]))
    assert erf.difference.p == pytest.approx(2 * ps[1])
    alone = summaries["mnist"][1].difference  # the only contender there: nothing to correct
    assert alone and alone.p == pytest.approx(
        float(stats.ttest_rel([0.7, 0.65], [0.9, 0.8]).pvalue)
    )


def test_summaries_refuse_no_runs_and_the_same_run_twice() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        summarize([])
    with pytest.raises(ValueError, match="two runs of htaf on digits with seed 0"):
        summarize([make_run(), make_run()])


@pytest.mark.parametrize(
    ("spike", "expected"),
    [
        ("atan", True),
        ("erf:alpha=2.5@tuned", True),
        ("atan@hardening=[0,0.8]", False),
        ("atan:mode=auto", False),
        ("htaf@hardening=null", False),
        ("htaf:mode=hard", False),
        ("scaled_sigmoid:beta=4", False),
        ("straight_through", False),
        ("my_module.MySpike:width=1", False),
    ],
)
def test_which_labels_are_built_in(spike: str, expected: bool) -> None:
    assert is_built_in(spike) is expected


HTAF = [0.951, 0.953, 0.949, 0.952, 0.950]


def sentence(accuracies: Mapping[str, Sequence[float | None]]) -> str:
    return conclude(summarize(make(accuracies))["nmnist"])


def test_conclusion_of_a_win() -> None:
    text = sentence({"htaf": HTAF, "atan": [0.939, 0.942, 0.940, 0.941, 0.938], "erf": [0.9] * 5})
    assert text.startswith(
        "On nmnist (5 seeds) htaf reaches 0.951 ± 0.002 at the exact step; the best built-in, "
        "atan, 0.940 ± 0.002: a difference of +1.1 pp (95 % interval +0.9 to +1.3 pp), in favour "
        "of htaf (p < 0.0001 after Holm's correction); mean gap +0.0 pp."
    )
    assert text.endswith("above htaf: none; below it: atan, erf.")


def test_conclusion_of_a_loss() -> None:
    text = sentence({"htaf": HTAF, "atan": [0.962, 0.963, 0.961, 0.964, 0.960]})
    assert "a difference of -1.1 pp (95 % interval -1.2 to -1.0 pp), in favour of atan" in text
    assert text.endswith("above htaf: atan; below it: none.")


def test_conclusion_that_the_seeds_do_not_allow() -> None:
    text = sentence({"htaf": HTAF, "atan": [0.955, 0.947, 0.951, 0.946, 0.949]})
    assert "a difference of +0.1 pp (95 % interval" in text
    assert re.search(r"that these seeds cannot tell from zero \(p = 0\.\d+ after Holm", text)
    assert not re.search("equal|same|match|favour|above htaf", text)


def test_conclusion_of_one_seed() -> None:
    assert sentence({"htaf": [0.951], "atan": [0.947], "erf": [0.94]}) == (
        "On nmnist (one seed) htaf reaches 0.951 at the exact step; the best built-in, atan, "
        "0.947: a difference of +0.4 pp; one seed: no conclusion; mean gap +0.0 pp."
    )


def test_conclusions_where_no_test_exists() -> None:
    assert "no run of htaf: nothing is compared" in sentence({"atan": [0.9]})
    assert "no built-in surrogate was run" in sentence({"htaf": [0.9], "htaf:mode=hard": [0.8]})
    assert "no seed in common, no conclusion" in sentence({"htaf": [0.9], "atan": [None, 0.8]})
    constant = sentence({"htaf": [0.93, 0.94, 0.95], "atan": [0.90, 0.91, 0.92]})
    assert "+3.0 pp on every seed, which no t-test can judge: no conclusion" in constant


def test_the_best_built_in_has_most_seeds_and_a_luckier_one_is_named() -> None:
    runs = {"htaf": HTAF, "atan": [0.94, 0.95, 0.94, 0.93, 0.94], "rect": [0.97], "erf": [0.9] * 5}
    best = best_built_in(summarize(make(runs))["nmnist"])
    assert best and best.spike == "atan"
    assert "With fewer seeds: rect 0.970 (one seed)." in sentence(runs)


def test_conclusion_over_data_sets() -> None:
    runs = [
        *make({"htaf": HTAF, "atan": [0.939, 0.942, 0.940, 0.941, 0.938]}, "won"),
        *make({"htaf": HTAF, "atan": [0.962, 0.963, 0.961, 0.964, 0.960]}, "lost"),
        *make({"htaf": HTAF, "atan": [0.955, 0.947, 0.951, 0.946, 0.949]}, "open"),
        *make({"htaf": [0.9], "atan": [0.91]}, "single"),
        make_run(data="alone", gap_pp=-2.5),
    ]
    assert conclude_all(summarize(runs)) == (
        "The mean hard accuracy of htaf is above the best built-in's on 2 of 4 data sets: "
        "won +1.1 pp, open +0.1 pp; it is not on lost -1.1 pp, single -1.0 pp. "
        "After Holm's correction these seeds tell the difference from zero in favour of htaf on "
        "won, against it on lost. No test is possible on single: no conclusion there. "
        "The mean gap of htaf farthest from zero is -2.5 pp, on alone."
    )
    assert conclude_all(summarize(make({"atan": [0.9]}))).startswith("No run of htaf")
    undecided = conclude_all(summarize([run for run in runs if run.data == "open"]))
    assert "these seeds cannot tell any such difference from zero." in undecided
