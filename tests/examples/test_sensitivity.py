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
    image: Any = draw(made).axes[0].images[0].get_array()
    assert image.filled(0).tolist() == [[pytest.approx(0.08), pytest.approx(0.23)],
                                        [pytest.approx(0.11), 0]]  # fmt: skip


def test_it_trains_over_the_grid(tmp_path: Path) -> None:
    options = ["--T", "1", "--epochs", "1", "--alpha0", "0.67", "--alpha1", "3", "6", "--out"]
    assert main([*options, str(tmp_path)]).is_file()
