"""A few bad inputs of every kind; `python -m tests.hostile --count 100000` runs the whole."""

from __future__ import annotations

import pytest

from .cases import KINDS
from .outcomes import REFUSED
from .runner import Runner


@pytest.mark.parametrize("kind", KINDS)
def test_bad_inputs_are_refused_or_rightly_accepted(kind: str) -> None:
    few = {
        "tensor": 200,
        "recording": 200,
        "checkpoint": 60,
        "header": 60,
        "clock": 60,
        "folder": 20,
    }.get(kind, 6)
    with Runner() as runner:
        for number in range(few):
            outcome, said, changes = runner.run(kind, number)
            assert outcome in (REFUSED, "accepted"), f"{changes}: {outcome}: {said}"


def test_a_case_that_ends_its_process_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from .cases import Kind

    dying = Kind(lambda _: [1, 2], lambda changes: os._exit(3) if 2 in changes else ("", ""), 0)
    monkeypatch.setitem(KINDS, "dying", dying)
    with Runner() as runner:
        outcome, said, changes = runner.run("dying", 0)
        assert (outcome, said) == ("died", "exit code 3")
        assert runner.shrunk("dying", outcome, changes) == [2]
