"""One kill of each kind; `python -m tests.kills --kills 100` does more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .kills import VICTIMS, Kills


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(VICTIMS.keys() - {"frames"}))  # that takes a minute
def test_a_killed_run_goes_on_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    assert not Kills(tmp_path).kill(name, random.Random(0)).wrong
