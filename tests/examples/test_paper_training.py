"""Figures of how contenders trained, from runs that no network made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paper.training import (
    accuracy_against_gap,
    firing_rates,
    gradient_norms,
    main,
    output_shares,
)

from htaf_snn.comparison.plots import looks
from htaf_snn.comparison.results import Results
from htaf_snn.comparison.seed_statistics import summarize
from tests.comparison.synthetic import make_run, make_runs, three_runs


def test_figures_show_the_numbers() -> None:
    runs = three_runs()
    summaries = summarize(runs)["digits"]
    shown = looks(["htaf", "atan"])
    gap: Any = accuracy_against_gap(summaries, shown).axes[0]
    means = [bar.lines[0].get_xydata() for bar in gap.containers]
    assert np.allclose(np.concatenate(means), [[1.5, 0.85], [0, 0.7]])
    outputs: Any = output_shares(summaries, shown).axes[0].lines[0]
    assert np.nansum(outputs.get_ydata()) == pytest.approx(1)
    assert outputs.get_xdata()[[0, -1]] == pytest.approx([0.01, 0.99])
    rates = firing_rates(summaries, shown).axes[0]
    assert [label.get_text() for label in rates.get_xticklabels()] == list(
        runs[0].firing_rate_by_layer
    )


def test_gradient_maps_are_geometric_means_over_seeds() -> None:
    few, many = make_run(seed=0), make_run(seed=1)
    scaled: Any = [
        {**epoch, "gradient_norms": {k: 100 * v for k, v in epoch["gradient_norms"].items()}}
        for epoch in many.history
    ]
    summary = summarize([few, replace(many, history=scaled)])["digits"]
    image: Any = gradient_norms(summary).axes[0].images[0]
    assert np.allclose(image.get_array(), [[10, 10 / 1.3]] * 5)


def test_figures_with_nothing_to_show_are_left_out(tmp_path: Path) -> None:
    results = Results()
    for run in make_runs("d", seeds=(0,), contenders=("htaf:mode=hard", "atan")):
        results.add(run.spike, run)
    results.write(tmp_path)
    assert len(main(tmp_path).splitlines()) == 2
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert drawn == {f"d-{kind}.{end}" for kind in ("rates", "gradients") for end in ("png", "pdf")}
