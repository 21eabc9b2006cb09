"""What hardening and HTAF add, apart."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from paper.effects import (
    conclusions,
    differences,
    effects,
    main,
    seeds_needed,
    without_surrogate,
)
from scipy import stats

from htaf_snn.comparison import Run
from htaf_snn.comparison.results import Results
from htaf_snn.comparison.seed_statistics import summarize
from tests.comparison.synthetic import MODEL, make_run

# Hard accuracy in percent, a seed each.
ACCURACIES = {
    "htaf": (95, 96, 97, 98),
    "htaf:mode=hard": (93, 94, 95, 95),
    "sigmoid@hardening=[0,0.8]": (94, 96, 95, 97),
    "sigmoid": (93, 93, 93, 94),
    "atan@hardening=[0,0.8]": (93, 95, 96, 96),
    "atan": (92, 95, 94, 94),
}


def runs(data: str = "nmnist", seeds: int = 4) -> list[Run]:
    return [
        make_run(data=data, spike=spike, seed=seed, hard_accuracy=value / 100)
        for spike, values in ACCURACIES.items()
        for seed, value in enumerate(values[:seeds])
    ]


def test_effects_by_hand() -> None:
    found = {(e.what, e.data): e for e in effects(summarize(runs() + runs("mnist", 1)))}
    hardening = found["hardened minus as a surrogate, mean of 3 functions", "nmnist"]
    each = [4 / 3, 5 / 3, 2, 8 / 3]  # (2 + 1 + 1) / 3 and so on
    assert hardening.points.mean == pytest.approx(np.mean(each)) and hardening.seeds == 4
    assert hardening.p == pytest.approx(stats.ttest_1samp(each, 0).pvalue)
    sigmoid = found["htaf minus sigmoid, both hardened", "nmnist"]
    assert sigmoid.points.mean == pytest.approx(1.0)
    others = found["htaf minus 2 other functions, all hardened", "nmnist"]
    assert others.points.mean == pytest.approx(np.mean([1.5, 0.5, 1.5, 1.5]))
    surrogates = found["htaf minus 2 other functions, all as surrogates", "nmnist"]
    assert surrogates.points.mean == pytest.approx(np.mean([0.5, 0, 1.5, 1]))
    single = found["hardened minus as a surrogate, mean of 3 functions", "mnist"]
    assert (single.points.half_width, single.p, single.seeds_needed) == (None, None, None)


def test_the_power_is_that_of_the_noncentral_t() -> None:
    differences = [0.1, 0.9, -0.4, 0.6]
    needed = seeds_needed(differences)
    assert needed is not None

    def power(seeds: int) -> float:
        shift = 0.3 / np.std(differences, ddof=1) * math.sqrt(seeds)
        return float(stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, shift))

    assert power(needed - 1) < 0.8 <= power(needed) + 1e-3
    assert seeds_needed([0.1, 0.2]) is None and seeds_needed([0.3, 0.3, 0.3]) is None


@settings(max_examples=12)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=6))
@example([0.1, 0.10000000001, 0.1])
@example([0.3, 0.3, 0.3])
@example([1e-300, 0.0, 0.0])
def test_every_statistic_has_an_answer_or_none(differences: list[float]) -> None:
    needed = seeds_needed(differences)
    assert needed is None or needed >= 2
    made = [
        make_run(spike=spike, seed=seed, hard_accuracy=0.5 + sign * value / 400)
        for spike, sign in (("htaf", 1), ("sigmoid@hardening=[0,0.8]", -1), ("sigmoid", 0))
        for seed, value in enumerate(differences)
    ]
    assert len(conclusions(effects(summarize(made)))) == 2
    for effect in effects(summarize(made)):
        assert effect.p is None or 0 <= effect.p <= 1


def test_the_conclusions_are_of_contenders_treated_alike(tmp_path: Path) -> None:
    same = {"htaf": (96, 97, 95, 96), "sigmoid@hardening=[0,0.8]": (96, 96, 97, 95)}
    made = runs() + [
        make_run(data="mnist", spike=spike, seed=seed, hard_accuracy=value / 100)
        for spike, values in same.items()
        for seed, value in enumerate(values)
    ]
    functions, hardening = conclusions(effects(summarize(made)))
    assert functions == (
        "Treated alike, htaf and the other spike functions are told apart by these seeds in 1 case "
        "of 5. htaf minus 2 other functions, all hardened: nmnist +1.25 pp."
    )
    assert hardening == (
        "The same functions hardened and as surrogates are told apart by these seeds in 1 case of "
        "1. hardened minus as a surrogate, mean of 3 functions: nmnist +1.92 pp."
    )
    two = conclusions(effects(summarize([r for r in made if not r.spike.startswith("atan")])))
    assert two[0].endswith("the other spike functions are not told apart by these seeds.")
    head, first, *_ = differences(effects(summarize(made)))
    assert head == ["difference (pp)", "nmnist", "mnist", "seeds that tell 0.3 pp"]
    assert first[0] == "htaf minus sigmoid, both hardened" and first[1].startswith("+1.00 ± ")
    results = Results()
    for number, run in enumerate(made):
        results.add(str(number), run)
    results.write(tmp_path)
    assert main(tmp_path).endswith(f"{functions}\n{hardening}") and "seeds that" in main(tmp_path)


def test_a_win_is_no_win_on_one_seed_or_over_another_treatment() -> None:
    one = conclusions(effects(summarize([r for r in runs(seeds=1) if r.spike in ("htaf", "atan")])))
    assert one == [
        "No two spike functions were treated alike: nothing is concluded of them.",
        "No function was both hardened and a surrogate: nothing is concluded of hardening.",
    ]
    single = effects(summarize(runs(seeds=1)))
    assert "can't be told apart: that takes two seeds or more" in conclusions(single)[0]
    assert differences(single)[1][1:] == ["+1.00", "-"]
    assert differences([]) == []


def test_an_effect_is_of_the_seeds_that_all_share() -> None:
    made = [
        make_run(spike=spike, seed=seed, hard_accuracy=value / 100)
        for spike, values in (
            ("htaf", {0: 50, 1: 96, 2: 97}),
            ("sigmoid@hardening=[0,0.8]", {1: 94, 2: 96, 3: 10}),
            ("sigmoid", {2: 95, 1: 93, 4: 20}),
        )
        for seed, value in values.items()
    ]
    found = {e.what: e for e in effects(summarize(made))}
    function = found["htaf minus sigmoid, both hardened"]
    assert function.seeds == 2 and function.points.mean == pytest.approx((2 + 1) / 2)
    hardening = found["hardened minus as a surrogate, mean of 1 function"]
    assert hardening.seeds == 2 and hardening.points.mean == pytest.approx(1.0)
    assert conclusions(effects(summarize(made)))[0].startswith("Treated alike, htaf")


@pytest.mark.parametrize(("fourth", "verdict"), [(-0.2, "Yes"), (-0.5, "No")])
def test_without_a_surrogate(fourth: float, verdict: str) -> None:
    sets = {"a": (0.1, 0.0), "b": (-0.2, 0.1), "c": (-1.0, -0.1), "d": (fourth, 1.0)}
    recipes = {"htaf": "hardened", "htaf@recipe=surrogate_free": "surrogate_free"}
    made = []
    for (data, (below, gap)), seed, (spike, recipe) in itertools.product(
        sets.items(), (0, 1), recipes.items()
    ):
        points, gap_pp = (0.0, 0.0) if recipe == "hardened" else (below, gap)
        settings_ = make_run().settings | {"model": {**MODEL, "recipe": recipe}}
        made.append(
            make_run(data=data, spike=spike, seed=seed, hard_accuracy=0.9 + points / 100,
                     gap_pp=gap_pp, settings=settings_)
        )  # fmt: skip
    count = 3 if verdict == "Yes" else 2
    assert without_surrogate(summarize(made)) == [
        f"{verdict}: without a surrogate to the end, htaf has a mean gap of at most 0.2 pp on 3 of "
        f"4 data sets, and fires at most 0.3 pp worse than hardened on {count}."
    ]
    assert without_surrogate(summarize(runs())) == []
