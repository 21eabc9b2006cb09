"""The map over HTAF's two parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sensitivity import draw, main, verdict

from tests.comparison.synthetic import make_run


def test_each_pair_is_at_its_place() -> None:
    made = [
        make_run(spike=f"htaf:alpha0={a}:alpha1={b}", hard_accuracy=a / 10 + b / 100)
        for a, b in ((0.5, 3.0), (2.0, 3.0), (0.5, 6.0))
    ]
    made += [
        make_run(spike=f"sigmoid:alpha={slope}", hard_accuracy=hard, val_accuracy=val)
        for slope, hard, val in ((2, 0.07, 0.2), (4, 0.5, 0.1))
    ]
    images: list[Any] = [axes.images[0] for axes in draw(made).axes]
    accuracy, gain = (image.get_array().filled(0) for image in images)
    assert accuracy.tolist() == [[pytest.approx(0.08), pytest.approx(0.23)],
                                 [pytest.approx(0.11), 0]]  # fmt: skip
    assert gain.tolist() == [[pytest.approx(1), pytest.approx(16)], [pytest.approx(4), 0]]


def test_a_pair_is_better_where_it_is_on_every_seed() -> None:
    hard = {
        "htaf:alpha0=0.5:alpha1=3.0": (0.82, 0.83),
        "htaf:alpha0=2.0:alpha1=3.0": (0.7, 0.7),
        "htaf:alpha0=3.0:alpha1=3.0": (0.9, 0.79),
        "sigmoid:alpha=4@hardening=[0,0.8]": (0.8, 0.8),
    }
    made = [
        make_run(spike=spike, seed=seed, hard_accuracy=value, val_accuracy=0.5 + spike.count("0.5"))
        for spike, values in hard.items()
        for seed, value in enumerate(values)
    ]
    assert verdict(made) == (
        "Of 3 pairs HTAF fires better than sigmoid:alpha=4, the best sigmoid, on every seed at 1, "
        "worse on every seed at 1; the pair that is best on validation, (0.5, 3), by +2.5 ± 6.4 pp."
    )


def test_it_trains_over_the_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensitivity.SIGMOIDS", ("sigmoid",))
    options = ["--T", "1", "--epochs", "1", "--alpha0", "0.67", "--alpha1", "3"]
    options += ["--model", "common.deep.Deep", "--out"]
    assert main([*options, str(tmp_path)]).is_file()
