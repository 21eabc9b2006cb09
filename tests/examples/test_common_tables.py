from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common.tables import CSVFile, read_csv


def read(tmp_path: Path, text: str, target: str = "y", **how: Any) -> Any:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8-sig")
    return read_csv(CSVFile(path, target, **how))


def test_numbers_words_and_missing_values(tmp_path: Path) -> None:
    table = read(tmp_path, 'a, b,y\n1, "x, z",no\n ?,,yes\n-2e1,w,no\n\n')
    assert np.array_equal(table.numbers, np.array([[1], [np.nan], [-20]]), equal_nan=True)
    assert table.words.tolist() == [["x, z"], [""], ["w"]]
    assert table.target.tolist() == [0, 1, 0] and not table.regression and table.name == "table"


def test_options(tmp_path: Path) -> None:
    how: dict[str, Any] = {
        "separator": ";",
        "header": ["id", "k", "y"],
        "drop": ["id"],
        "words": ["k"],
    }
    table = read(tmp_path, "1;2;0.5\n2;3;1.5\n", task="regression", **how)
    assert table.numbers.shape == (2, 0) and table.words.tolist() == [["2"], ["3"]]
    assert table.target.tolist() == [0.5, 1.5] and table.regression


@pytest.mark.parametrize(("values", "regression"), [(20, False), (21, True)])
def test_the_task_follows_from_the_target(tmp_path: Path, values: int, regression: bool) -> None:
    lines = [f"{i},{i}" for i in range(values)]
    assert read(tmp_path, "\n".join(["x,y", *lines])).regression == regression
    assert not read(tmp_path, "\n".join(["x,y", *lines]), task="classification").regression


@pytest.mark.parametrize(
    ("text", "how", "message"),
    [
        ("", {}, "has no column 'y'"),
        ("x,y\n", {}, "has no rows"),
        ("x,z\n1,2\n", {}, "has no column 'y'; it has x, z"),
        ("y,y\n1,2\n", {}, "has more than one column 'y'"),
        ("x,y\n1,2\n", {"drop": ["id"]}, "has no column 'id'"),
        ("x,y\n1,a\n2\n", {}, "line 3: 1 cells for 2 columns"),
        ("x,y\n1,a\n2,b\n", {"task": "regression"}, "line 2: 'a' where a number is due"),
        ("x,y\n1,3\n2,b\n", {"task": "regression"}, "line 3: 'b' in a column of numbers"),
        ("x,y\n1,a\n2,a\n", {}, "is constant: 'a' in every row"),
        ("x,y\n1,a\n2,\n", {}, "line 3: '' is no value"),
        ("x,y\n1,a\n2;5,b\n", {}, "column 'x', line 3: '2;5' in a column of numbers"),
        ("x,y\n1,a\ninf,b\n", {}, "line 3: 'inf' in a column of numbers"),
        ("x,y\n,a\n,b\n", {}, "column 'x' has no value"),
        ("x,y\n1,a\n2,b\n", {"task": "guess"}, "unknown task 'guess'"),
        ("x,y\n" + "".join(f"id{i},{i % 2}\n" for i in range(30)), {}, "30 different words"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r".*") as caught:
        read(tmp_path, text, **how)
    assert message in str(caught.value)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a file at .*absent\.csv"):
        read_csv(CSVFile(tmp_path / "absent.csv", "y"))
