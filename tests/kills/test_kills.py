"""One kill of a training; `python -m tests.kills --kills 100` does more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .kills import Kills


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fit"])  # the others take a minute
def test_a_killed_run_goes_on_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    assert not Kills(tmp_path).kill(name, random.Random(0)).wrong
