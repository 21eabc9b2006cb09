"""Ranks of contenders over data sets and seeds, against hand-made ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ranks import Ranks, conclude_ranks, critical_difference, main, ranks
from scipy import stats

from htaf_snn.comparison.plots import drawing
from htaf_snn.comparison.seed_statistics import summarize
from tests.comparison.synthetic import make_run
from tests.examples.test_paper_effects import ACCURACIES, runs


def test_ranks_by_hand() -> None:
    found = ranks(summarize(runs() + runs("mnist", 3)))
    assert found is not None and found.blocks == 7
    by_seed = [stats.rankdata([-v[s] for v in ACCURACIES.values()]) for s in (0, 1, 2, 3, 0, 1, 2)]
    expected = dict(zip(ACCURACIES, np.mean(by_seed, axis=0), strict=True))
    assert found.mean == pytest.approx(expected) and next(iter(found.mean)) == "htaf"
    text = conclude_ranks(found)
    assert text.startswith("Mean ranks over 7 pairs of a data set and a seed: htaf 1.")
    assert "Nemenyi's test tells from htaf, above it: none; below it: " in text
    assert ranks(summarize(runs(seeds=1))) is None
    assert ranks(summarize([run for run in runs() if run.spike in ("htaf", "atan")])) is None


def test_two_blocks_and_three_contenders_have_ranks() -> None:
    three = ("htaf", "sigmoid", "atan")
    found = ranks(summarize([run for run in runs(seeds=2) if run.spike in three]))
    assert found is not None and found.blocks == 2
    assert found.mean == {"htaf": 1.0, "sigmoid": 2.5, "atan": 2.5}


def test_an_equal_rank_is_neither_above_nor_below() -> None:
    mean = {"above": 1.0, "htaf": 2.0, "equal": 2.0, "below": 4.0}
    pairs = pd.DataFrame(0.01, index=list(mean), columns=list(mean))
    text = conclude_ranks(Ranks(mean, 10, 0.01, pairs))
    assert text.endswith("tells from htaf, above it: above; below it: below.")


def test_no_label_of_the_diagram_is_cut_off(tmp_path: Path) -> None:
    spikes = [
        "htaf@hardening=null@sharpness={alpha0: [0.67, 4.0]}@calibrate=50",
        *(f"{name}@hardening=[0,0.8]" for name in ("htaf", "piecewise_quadratic", "erf")),
    ]
    found = ranks(
        summarize(
            [
                make_run(spike=spike, seed=seed, hard_accuracy=0.9 + 0.01 * i + 0.001 * seed)
                for i, spike in enumerate(spikes)
                for seed in range(3)
            ]
        )
    )
    assert found is not None
    with drawing():
        figure = critical_difference(found)
        figure.savefig(tmp_path / "ranks.png")
        edge = figure.bbox
        boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) >= len(spikes)
    assert all(edge.x0 <= box.x0 and box.x1 <= edge.x1 for box in boxes)


def test_the_script_draws_the_records(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[2] / "docs/results/fair/results.json", tmp_path)
    assert main(tmp_path).startswith("Mean ranks over 40 pairs of a data set and a seed: ")
    assert (tmp_path / "figures/ranks.pdf").exists()
