"""`htaf-snn compare`, as a command and as functions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from htaf_snn.comparison import Run, compare, draw, table
from htaf_snn.comparison.report import group
from tests.helpers import command
from tests.training.test_fit import SMALL

RECORD = {
    "spike", "seed", "hard_accuracy", "soft_accuracy", "gap_pp", "firing_rate", "epoch_seconds",
    "settings", "versions",
}  # fmt: skip


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("compare") / "out"
    done = command(
        "compare", "--data=digits", "--data.T=2", "--data.batch_size=16", "--model.widths=[16]",
        "--epochs=2", "--seeds=0,3",
        "--spikes=htaf:alpha0=1,atan", "--out", out,
    )  # fmt: skip
    return out, done.stdout


def test_results_table_and_picture(compared: tuple[Path, str]) -> None:
    out, printed = compared
    runs: list[dict[str, Any]] = json.loads((out / "results.json").read_text())
    assert {(r["spike"], r["seed"]) for r in runs} == {
        (spike, seed) for spike in ("htaf:alpha0=1", "atan") for seed in (0, 3)
    }
    for run in runs:
        assert run.keys() >= RECORD
        assert 0.15 < run["hard_accuracy"] <= 1 and 0 < run["firing_rate"] < 1
        assert run["gap_pp"] == pytest.approx(
            100 * (run["soft_accuracy"] - run["hard_accuracy"]), abs=1e-3
        )
        assert len(run["history"]) == 2 and run["epoch_seconds"] > 0
        assert run["settings"]["data"]["name"] == "digits" and "torch" in run["versions"]
        if run["spike"] == "atan":
            assert run["gap_pp"] == 0
    assert (out / "table.txt").read_text() in printed
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((out / "checkpoints").iterdir())) == 4
    assert not list(out.glob(".*partial"))


def test_results_are_not_overwritten(compared: tuple[Path, str]) -> None:
    out, _ = compared
    done = command("compare", "--data=digits", *SMALL, "--out", out, check=False)
    assert done.returncode == 1 and "choose another folder" in done.stderr


def run(**changes: Any) -> Run:
    history = [{"epoch": float(e), "val_accuracy": 0.5 + e / 10} for e in range(3)]
    base = Run(
        "htaf", 0, 0.9, 0.95, 5.0, 0.1, {}, 2.0, 2, history, {"epochs": 3}, {"torch": "2"}
    )  # fmt: skip
    return replace(base, **changes)


def test_table_shows_means_and_spread() -> None:
    runs = [
        run(),
        run(seed=1, hard_accuracy=0.94, gap_pp=1.0),
        run(spike="a-long-name-of-a-function"),
    ]
    assert [len(members) for members in group(runs).values()] == [2, 1]
    head, htaf, other = table(runs).splitlines()
    assert htaf.split() == ["htaf", "2", "0.9200±0.0283", "0.9500", "+3.00", "0.1000", "2.00"]
    assert other.split()[2] == "0.9000"
    assert len(head) == len(htaf) == len(other)


def test_picture_of_many_functions(tmp_path: Path) -> None:
    draw(
        [run(spike=f"function {i}", seed=s) for i in range(12) for s in (0, 1)],
        "t",
        tmp_path / "p.png",
    )
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spikes": ["htaf", "atn"]}, "unknown spike function 'atn'; the known ones are htaf"),
        ({"spikes": []}, r"`spikes` \(=\[\]\)"),
        ({"seeds": [1, 1]}, r"`seeds` \(=\[1, 1\]\)"),
        ({"epochs": 0}, r"`epochs` \(=0\)"),
        ({"data_settings": {"name": "digits", "T": 0}}, r"`T` \(=0\)"),
    ],
)
def test_refuses_before_any_work(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "spikes": ["htaf"], "seeds": [0], "epochs": 1, "data_settings": {"name": "digits", "T": 2},
        "model_settings": {}, "out": tmp_path / "out",
    } | changes  # fmt: skip
    with pytest.raises(ValueError, match=message):
        compare(**arguments)
    assert not (tmp_path / "out").exists()
