"""Labels of contenders, of which a study is made."""

from __future__ import annotations

from typing import Any

import pytest

from htaf_snn.comparison import Contender, split_labels


@pytest.mark.parametrize(
    ("label", "spike", "options", "calibrate"),
    [
        ("atan", "atan", {}, 0),
        ("htaf@learning_rate=1e-3", "htaf", {"learning_rate": 0.001}, 0),
        ("htaf:mode=hard", "htaf:mode=hard", {}, 0),
        ("atan@hardening=[0,0.8]", "atan:mode=auto", {"hardening": [0, 0.8]}, 0),
        (
            "atan:alpha=3:mode=auto@hardening=[0, 0]",
            "atan:alpha=3:mode=auto",
            {"hardening": [0, 0]},
            0,
        ),
        ("htaf@hardening=null@calibrate=20", "htaf", {"hardening": None}, 20),
        ("htaf@sharpness={alpha0: [0.5, 2]}", "htaf", {"sharpness": {"alpha0": [0.5, 2]}}, 0),
        ("atan@recipe=surrogate_free", "atan:mode=auto", {"recipe": "surrogate_free"}, 0),
    ],
)
def test_labels(label: str, spike: str, options: dict[str, Any], calibrate: int) -> None:
    contender = Contender(label)
    assert (contender.spike, contender.options) == (spike, options)
    assert contender.calibrate == calibrate


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("atn@hardening=null", "unknown spike function 'atn'"),
        ("htaf@hardening", "'hardening' in 'htaf@hardening' must read option=value"),
        (
            "htaf@hardness=1",
            "unknown option 'hardness'; the known ones are neuron_options, .*, cal",
        ),
        ("htaf@widths=[16]", "unknown option 'widths'"),
        ("htaf@seed=1", "unknown option 'seed'"),
        ("htaf@calibrate=-1", r"`calibrate` \(=-1\) must be at least 0"),
        ("htaf@hardening=0.5", r"`hardening` \(=0.5\) must be a list of 2"),
        ("htaf:mode=hard@hardening=[0,0.8]", "`hardening` and `recipe` have no effect in"),
        ("super_spike@hardening=[0,0.8]", "SuperSpike has no primitive, so it can't train smooth"),
        ("htaf@learning_rate=[", "did not find expected|expected the node content"),
        ("htaf:mode=$a", r"'htaf:mode=\$a' must have letters"),
        ("htaf@hardening=null #", "must have letters"),
        ("straight_through@recipe=surrogate_free", "`hardening` and `recipe` have no effect in"),
        (
            "htaf@recipe=surrogate@hardening=[0,1]",
            r"`hardening` \(=\(0.0, 1.0\)\) is not of the recipe",
        ),
        ("htaf@calibrate=all", r"`calibrate` \(=.all.\) must be an integer"),
    ],
)
def test_bad_labels(label: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Contender(label)


def test_commas_within_brackets_do_not_split() -> None:
    text = "htaf@sharpness={alpha0: [0.5, 2], alpha1: [3, 6]},atan,htaf@x=[1,2]"
    assert split_labels(text) == [
        "htaf@sharpness={alpha0: [0.5, 2], alpha1: [3, 6]}", "atan", "htaf@x=[1,2]",
    ]  # fmt: skip
