"""The changes that `python -m tests.mutations` draws."""

from __future__ import annotations

import ast

import pytest

from tests.mutations import ROOT, draw, mutations, nearest_tests, of_headers


def test_every_kind_of_change() -> None:
    source = (
        "def f(a: int = 1, b=-a) -> int:\n"
        "    if a < b and not b:\n"
        "        raise ValueError(f'{a + 1}')\n"
        "    return g(a * 2.5, key=True)\n"
    )
    changed = {m.apply(source).splitlines()[m.line - 1].strip() for m in mutations("f.py", source)}
    assert changed == {
        "def f(a: int = (2), b=-a) -> int:",
        "def f(a: int = 1, b=(a)) -> int:",
        "if (a < b or not b):",
        "if (a <= b) and not b:",
        "if a < b and (b):",
        "return None",
        "return (g(a * 2.5))",
        "return g((a / 2.5), key=True)",
        "return g(a * (3.5), key=True)",
        "return g(a * 2.5, key=(False))",
    }


def test_the_draw_is_the_seeds_and_each_change_is_python() -> None:
    drawn = draw(40, 0)
    assert drawn == draw(40, 0) and drawn != draw(40, 1) and drawn[:5] == draw(5, 0)
    for mutation in drawn:
        source = (ROOT / "htaf_snn" / mutation.path).read_text(encoding="utf-8")
        changed = mutation.apply(source)
        ast.parse(changed)
        pairs = zip(source.splitlines(), changed.splitlines(), strict=True)
        assert sum(a != b for a, b in pairs) == 1


def test_each_change_of_a_header_is_one_and_has_tests() -> None:
    for mutation in of_headers():
        source = (ROOT / "htaf_snn" / mutation.path).read_text(encoding="utf-8")
        assert mutation.apply(source) != source
        assert all((ROOT / test).is_file() for test in nearest_tests(mutation.path))


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("transfer/diagnosis.py", "tests/transfer/test_diagnosis.py"),
        ("comparison/seed_statistics.py", "tests/comparison/test_seed_statistics.py"),
        ("data/splits.py", "tests/data/test_"),
    ],
)
def test_the_nearest_tests(path: str, first: str) -> None:
    assert nearest_tests(path)[0].startswith(first)
