"""The paper's figures, as a command and as a function."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import paper_figures
import pytest
from paper import depth

CURVES = {"outputs": 5, "gradient_ratio": 9, "tail_ratio": 6, "tolerance": 3}  # columns
STARTS = {".png": b"\x89PNG", ".pdf": b"%PDF-"}
ENDS = {".png": b"IEND\xaeB`\x82", ".pdf": b"%%EOF\n"}


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def assert_whole(path: Path) -> None:
    content = path.read_bytes()
    assert content.startswith(STARTS[path.suffix]) and content.endswith(ENDS[path.suffix])
    assert len(content) > 5000


def run(monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    monkeypatch.setattr(sys, "argv", ["paper_figures.py", *map(str, options)])
    paper_figures.main()


def test_curves_as_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "not" / "there"
    run(monkeypatch, "--out", out, "--only", ",".join(CURVES))
    printed = capsys.readouterr().out
    names = {f"{name}.{ending}" for name in CURVES for ending in ("png", "pdf", "csv")}
    assert {path.name for path in out.iterdir()} == names
    assert all(name in printed for name in names)
    for name, columns in CURVES.items():
        assert_whole(out / f"{name}.png")
        assert_whole(out / f"{name}.pdf")
        header, *rows = read(out / f"{name}.csv")
        assert len(header) == columns == len(set(header)) and len(rows) == 401
        assert all(len(row) == columns and all(map(float, row[1:])) for row in rows)


def test_depth_shortened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setups = depth.SETUPS[:2]
    monkeypatch.setattr(depth.train_all, "__defaults__", (setups, (0, 1)))
    run(monkeypatch, "--out", tmp_path, "--only=depth", "--epochs=1")
    done = capsys.readouterr()
    assert "figures: depth" in done.err  # the progress bar
    for setup in setups:
        assert str(setup) in done.out
    for activation in depth.ACTIVATIONS:
        assert done.out.count(f"\n{activation} ") == len(setups)
    assert_whole(tmp_path / "depth.png")
    assert_whole(tmp_path / "depth.pdf")
    header, *rows = read(tmp_path / "depth.csv")
    assert header[-2:] == ["first layer", "last layer"]
    assert len(rows) == 2 * 2 * len(depth.ACTIVATIONS) * 2  # setups, seeds, activations, epochs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--only", "outputs,dept"), "unknown figure 'dept'; the known ones are outputs, "),
        (("--epochs", "0"), "`epochs` (=0) must be at least 1"),
    ],
)
def test_refuses_before_any_work(
    options: tuple[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--out", tmp_path / "out", *options)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outputs, gradient_ratio, tail_ratio, tolerance, depth"):
        paper_figures.write(tmp_path, ["nothing"])
