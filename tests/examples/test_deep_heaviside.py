"""The example `deep_heaviside.py`: shortened, with bad input, and blind to its test folds."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "examples" / "deep_heaviside.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(PATH))


def run(monkeypatch: pytest.MonkeyPatch, *options: str | Path) -> None:
    short = ("--folds", 2, "--seeds", 1, "--steps", 2)
    monkeypatch.setattr(sys, "argv", ["deep_heaviside.py", *map(str, (*short, *options))])
    runpy.run_path(str(PATH), run_name="__main__")


def write(path: Path, rows: int = 40) -> Path:
    generator = np.random.default_rng(0)
    lines = [f"{x:.3f},{'ab'[int(x > 0)]},{x:.3f}" for x in generator.normal(size=rows)]
    path.write_text("\n".join(["x,kind,price", *lines]))
    return path


def test_a_table_of_classes_and_one_of_quantities(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write(tmp_path / "own.csv")
    run(monkeypatch, "--data", "wine", "--csv", table, "--target", "price", "--out", tmp_path)
    printed = capsys.readouterr().out
    assert "wine: AUROC, 2 folds x 1 seeds" in printed and "own: R2" in printed
    for name in ("HTAF", "scaled sigmoid", "straight-through", "ReLU"):
        assert printed.count(f"\n{name} ") == 2
    assert {p.name for p in tmp_path.glob("*.png")} == {"scores.png", "binarity.png"}


@pytest.mark.parametrize("table", ["numbers", "words", "target"])
def test_preparation_does_not_see_the_test_rows(example: dict[str, Any], table: str) -> None:
    generator = np.random.default_rng(0)
    numbers, target = generator.normal(size=(20, 3)), generator.normal(size=20)
    numbers[::4, 1] = np.nan
    words = generator.choice(["a", "b", "c"], size=(20, 2))
    train, test = np.arange(15), np.arange(15, 20)
    of = example["Table"]
    before = example["prepare"](of("t", numbers, words, target, True), train, test, "AUROC")
    changed = {"numbers": numbers.copy(), "words": words.copy(), "target": target.copy()}
    changed[table][test] = "unseen" if table == "words" else 1e6
    after = example["prepare"](of("t", *changed.values(), True), train, test, "AUROC")
    assert before.x.equal(after.x) and before.y.equal(after.y)
    assert before.x.shape == (15, 9) and before.x[:, :3].mean(0).abs().max() < 1e-6
    if table == "words":
        assert not after.x_test[:, 3:].any()


def test_it_learns_with_exact_steps(example: dict[str, Any]) -> None:
    options = example["arguments"](["--data", "breast_cancer"])
    [table] = options.tables
    data = example["prepare"](table, *example["folds"](table, 5)[0], "AUROC")
    measured = example["train"](data, lambda: example["htaf_snn"].HTAF(4, 11), options, 0)
    assert measured.hard > 0.95 and measured.soft > 0.95
    assert 0.9 < measured.share < 1 and 0 < measured.entropy < 0.2
    smooth = example["train"](data, lambda: example["htaf_snn"].HTAF(0.67, 6), options, 0)
    assert smooth.share < 0.7 and smooth.soft != smooth.hard


def test_constants_are_chosen_among_the_binary(example: dict[str, Any]) -> None:
    better, of = example["better"], example["Measured"]
    assert better(of(0.9, 0.8, 0.96, 0.1)) > better(of(0.99, 0.99, 0.94, 0.1))
    assert better(of(0.9, 0.8, 0.96, 0.1)) > better(of(0.9, 0.7, 0.99, 0.1))
    assert better(of(0.9, 0.8, 0.5, 0.1)) < better(of(0.9, 0.7, 0.6, 0.1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--csv", "own.csv"], "--csv and --target need each other"),
        (["--csv", "own.csv", "--target", "cost"], "no column 'cost'; it has x, kind, price"),
        (["--csv", "own.csv", "--target", "kind", "--task", "regression"], "where a number is due"),
        (["--csv", "none.csv", "--target", "x"], "expected a file at none.csv"),
        (["--data", "heloc"], "expected a file at data/heloc_dataset_v1.csv"),
        (
            ["--data", "wine", "--folds", "30"],
            "wine has 48 rows of its rarest class; 60 are needed",
        ),
        (["--depth", "0"], "--depth (=0) must be at least 1"),
        (["--lr", "nan"], "--lr (=nan) must be positive"),
    ],
)
def test_bad_input_is_refused_first(
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path / "own.csv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run(monkeypatch, *options)
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["own.csv"]


@pytest.mark.parametrize(
    ("name", "text", "task"),
    [
        ("telco_churn", "customerID,months,Plan,Charges,Churn\n{i}-X,{i}, m,{blank},{yes}", 0),
        ("heloc", "RiskPerformance,ExternalRiskEstimate\n{yes},-9\n", 0),
        ("wine_quality", '"fixed acidity";"quality"\n7.4;{i}\n', 1),
        ("abalone", "M,0.455,0.365,0.095,0.514,0.2245,0.101,0.15,{i}", 1),
    ],
)  # fmt: skip
def test_the_papers_tables_are_read(
    example: dict[str, Any], tmp_path: Path, name: str, text: str, task: int
) -> None:
    file = example["FILES"][name]
    *header, row = text.strip().split("\n")
    rows = [row.format(i=i, yes=["Yes", "No"][i % 2], blank=["", 5][i % 2]) for i in range(20)]
    (tmp_path / file.path).write_text("\n".join([*header, *rows]))
    options = example["arguments"](["--data", name, "--folder", str(tmp_path)])
    [table] = options.tables
    assert table.name == name and len(table.target) == 20 and table.regression == bool(task)
    assert (table.numbers.shape[1], table.words.shape[1]) == {
        "telco_churn": (2, 1), "heloc": (1, 0), "wine_quality": (1, 0), "abalone": (7, 1),
    }[name]  # fmt: skip
