"""The map over HTAF's two parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sensitivity import draw, main

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


def test_it_trains_over_the_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensitivity.SIGMOIDS", ("sigmoid",))
    options = ["--T", "1", "--epochs", "1", "--alpha0", "0.67", "--alpha1", "3"]
    options += ["--model", "common.deep.Deep", "--out"]
    assert main([*options, str(tmp_path)]).is_file()
