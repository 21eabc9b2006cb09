"""Records, statistics and sentences of a comparison."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from scipy import stats

from htaf_snn.comparison.results import Run, from_json
from htaf_snn.comparison.seed_statistics import estimate, headline, holm, paired_p, summarize

from .synthetic import MODEL, make_run, make_runs


def make(accuracies: Mapping[str, Sequence[float | None]], data: str = "nmnist") -> list[Run]:
    """Runs with these hard accuracies, one a seed; None leaves the seed out."""
    return [
        make_run(
            data=data,
            spike=spike,
            seed=seed,
            hard_accuracy=value,
            soft_accuracy=value,
            trained_accuracy=value,
        )
        for spike, values in accuracies.items()
        for seed, value in enumerate(values)
        if value is not None
    ]


def test_a_record_comes_back_from_its_file() -> None:
    run = make_runs(seeds=(3,), contenders=("htaf",))[0]
    assert from_json(json.loads(json.dumps(asdict(run)))) == run


def test_a_record_says_what_it_lacks() -> None:
    record = asdict(make_run(spike="atan", seed=7))
    del record["outputs"], record["energy_nj"]
    with pytest.raises(ValueError, match="digits atan 7 lacks energy_nj, outputs"):
        from_json(record)
    record = asdict(make_run())
    del record["history"][1]["gradient_norms"]
    with pytest.raises(ValueError, match=r"`history\[1\]` of digits htaf 0 lacks gradient_norms"):
        from_json(record)
    with pytest.raises(ValueError, match="unknown colour"):
        from_json(asdict(make_run()) | {"colour": "blue"})


def test_records_of_earlier_versions_are_read() -> None:
    record = asdict(make_run()) | {"peak_memory_mib": 61.0}
    del record["trained_accuracy"], record["concerns"], record["settings"]["model"]["recipe"]
    run = from_json(record)
    assert run.trained_accuracy is None and math.isnan(run.statistics_gap_pp)
    assert run.treatment == "hardened"


@pytest.mark.parametrize(
    ("spike", "model", "treatment"),
    [
        ("htaf", {}, "hardened"),
        ("htaf:mode=hard", {}, "surrogate"),
        ("atan", {}, "surrogate"),
        ("atan@hardening=[0,0.8]", {}, "hardened"),
        ("atan:mode=auto", {"hardening": [0.0, 0.0]}, "surrogate"),
        ("htaf@hardening=null", {"hardening": None}, "smooth"),
        ("htaf@recipe=surrogate", {"recipe": "surrogate"}, "surrogate"),
        ("htaf@recipe=surrogate_free", {"recipe": "surrogate_free"}, "surrogate-free"),
        ("straight_through", {}, "surrogate"),
    ],
)
def test_how_a_contender_was_treated(spike: str, model: dict[str, Any], treatment: str) -> None:
    run = make_run(spike=spike, settings={"model": MODEL | model})
    assert run.treatment == treatment


def test_interval_by_hand_and_by_scipy() -> None:
    # t(0.975, 2) = 4.302653; standard deviation 0.02, so 4.302653 * 0.02 / sqrt(3).
    of_three = estimate([0.90, 0.92, 0.94])
    assert of_three.mean == pytest.approx(0.92)
    assert of_three.half_width == pytest.approx(0.0496828, abs=1e-6)
    values = np.random.default_rng(0).normal(size=7)
    low, high = stats.t.interval(0.95, 6, values.mean(), stats.sem(values))
    own = estimate(list(values))
    assert [own.low, own.high] == pytest.approx([low, high])
    one = estimate([0.5])
    assert one.half_width is None and one.low == one.high == 0.5


def test_paired_p_by_hand() -> None:
    # Differences 1, 2, 3: t = 2 sqrt(3); with 2 degrees of freedom p = 1 - t / sqrt(2 + t^2).
    t = 2 * math.sqrt(3)
    assert paired_p([2, 4, 6], [1, 2, 3]) == pytest.approx(1 - t / math.sqrt(2 + t**2))
    assert paired_p([0.9], [0.8]) is None
    assert paired_p([0.93, 0.94, 0.95], [0.90, 0.91, 0.92]) is None  # 0.03 but for rounding


def test_holm_by_hand() -> None:
    # Sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1, which may not fall below 0.06.
    given = {"a": 0.01, "b": 0.04, "none": None, "c": 0.03, "d": 0.005}
    assert holm(given) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1, "b": 1}
    assert holm({}) == {}


def test_contenders_are_tested_on_common_seeds_and_corrected_by_data_set() -> None:
    hard = "htaf:mode=hard"
    nmnist: dict[str, Sequence[float | None]] = {
        "atan": [0.90, 0.91, 0.93, 0.99, None],
        hard: [0.94, 0.92, 0.95, None, 0.90],
        "htaf": [0.99, 0.98, 0.97, 0.99, 0.99],
        "erf": [0.80, 0.82, 0.81, None, 0.83],
    }
    summaries = summarize(make(nmnist) + make({hard: [0.9, 0.8], "erf": [0.7, 0.65]}, "mnist"))
    atan, htaf, hardened, erf = summaries["nmnist"]
    assert [s.spike for s in summaries["nmnist"]] == ["atan", hard, "htaf", "erf"]
    assert hardened.difference is None  # nothing else was hardened
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


ALIKE = {"htaf": [0.95, 0.96, 0.97], "sigmoid@hardening=[0,0.8]": [0.94, 0.94, 0.96],
         "atan@hardening=[0,0.8]": [0.80, 0.81, 0.83]}  # fmt: skip


def test_the_headline_is_of_contenders_treated_alike() -> None:
    made = make(ALIKE) + make({"htaf": [0.9, 0.8, 0.7], "atan": [0.1, 0.1, 0.1]}, "mnist")
    functions, gaps = headline(summarize(made))
    assert functions == (
        "Treated alike, htaf and the others are told apart by these seeds in 1 of 2 cases, by "
        "accuracy minus htaf's. atan@hardening=[0,0.8], nmnist: -14.67 pp."
    )
    assert gaps == (
        "The widest mean statistics gap is +0.00 pp; the widest mean transfer gap is +0.00 pp."
    )
    fewer = headline(summarize([run for run in made if not run.spike.startswith("atan@")]))
    assert fewer[0] == "Treated alike, htaf and the others are not told apart by these seeds."


def test_a_win_is_no_win_on_one_seed_or_over_another_treatment() -> None:
    single = headline(summarize([run for run in make(ALIKE) if run.seed == 0]))
    assert "can't be told apart: that takes two seeds or more" in single[0]
    other = headline(summarize(make({"htaf": [0.9, 0.8], "atan": [0.1, 0.1]})))
    assert other[0] == "Nothing was treated as htaf: nothing is concluded of spike functions."
    gap = headline(summarize([make_run(spike="htaf@hardening=null", gap_pp=30.0)]))[-1]
    assert gap.endswith("transfer gap is +30.00 pp (htaf@hardening=null, digits).")
    old = headline(summarize([make_run(trained_accuracy=None)]))[-1]
    assert old == "The widest mean transfer gap is +0.00 pp."
