"""Values from outside are of the types that they must have, and YAML of bearable size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pytest

from htaf_snn.arguments import arguments_of, in_range, load_yaml, one_of, typed


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        ([1, 2], tuple[float, float] | None, (1.0, 2.0)),
        (None, tuple[float, float] | None, None),
        ({"tau": 2, "decay_input": False}, dict[str, bool | float | None], None),
        ("a/b", Path | None, Path("a/b")),
        ([4, [8, 8]], tuple[int | tuple[int, ...], ...], (4, (8, 8))),
        ("x", Literal["x", "y"], "x"),
        ([1, 2], str | int | list[int] | None, [1, 2]),
    ],
)
def test_plain_forms_become_the_type(value: Any, hint: Any, expected: Any) -> None:
    assert typed("a", value, hint) == (value if expected is None else expected)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (True, int, "`a` (=True) must be an integer"),
        ([1, "2"], list[int], "`a[1]` (='2') must be an integer"),
        (1.5, int, "must be an integer"),
        (float("nan"), float, "must be a finite number"),
        (10**400, float, "must be a finite number"),
        ("1", float, "`a` (='1') must be a finite number"),
        ([1], tuple[float, float], "must be a list of 2: a finite number, a finite number"),
        ({"tau": {"class_path": "x"}}, dict[str, bool | float | None],
         "`a.tau` (={'class_path': 'x'}) must be true or false or a finite number or null"),
        ({1: 2}, dict[str, float], "must be a string"),
        ("z", Literal["x", "y"], "unknown a 'z'; the known ones are x, y"),
        (1, Literal[True], "must be one of True"),
    ],
)  # fmt: skip
def test_other_types_are_refused(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        typed("a", value, hint)


def test_a_hostile_value_is_quoted_in_a_line() -> None:
    deep: list[Any] = []
    for _ in range(60):
        deep = [deep, deep]  # 2^60 if written out
    with pytest.raises(ValueError, match="must be an integer") as error:
        typed("a", deep, int)
    assert len(str(error.value)) < 500


def test_arguments_of_a_function() -> None:
    def function(T: int, name: str = "x") -> None: ...

    assert arguments_of(function, {"T": 3}, "option") == {"T": 3}
    for values, message in (
        ({"T": 3, "nme": "y"}, "unknown option 'nme'; the known ones are T, name. Did you mean"),
        ({"T": 3.5}, "`T`"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            arguments_of(function, values, "option")
    with pytest.raises(ValueError, match="there is no option name"):
        arguments_of(function, {"T": 3}, "option", complete=True)


def test_the_nearest_known_word() -> None:
    with pytest.raises(ValueError, match=r"the known ones are htaf, atan\. Did you mean htaf\?"):
        one_of("spike function", "hatf", ["htaf", "atan"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, -1, 11])
def test_ranges(value: float) -> None:
    in_range("a", 10, 0, 10, open_=True)
    with pytest.raises(ValueError, match=re.escape(f"`a` (={value}) must be")):
        in_range("a", value, 0, 10, open_=True)
    with pytest.raises(ValueError, match=re.escape("`a` (=10) must lie in [0, 10)")):
        in_range("a", 10, 0, 10, below=True)


def test_ordinary_yaml() -> None:
    assert load_yaml("1e-3") == 0.001
    assert load_yaml("{alpha0: [0.5, 2]}") == {"alpha0": [0.5, 2]}
