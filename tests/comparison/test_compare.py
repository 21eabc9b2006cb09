"""`htaf-snn compare`, as a command and as functions."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from htaf_snn.cli import main
from htaf_snn.comparison import Study, compare, preset, read_results
from htaf_snn.comparison.run import work
from htaf_snn.data import DataConfig
from htaf_snn.training import ModelConfig
from tests.helpers import command, forked

PRESETS = Path(__file__).parents[2] / "examples" / "presets"
FOUR = ["N-MNIST", "MNIST", "Fashion-MNIST", "CIFAR-10 JPEG"]
DEPTH = [
    f"{model}, T = {T}"
    for model in ("resnet20", "sew_resnet20", "ms_resnet20", "vgg9", "vgg16")
    for T in (1, 2, 4, 8, 16)
]
SMALL = ["--data=digits", "--data.T=2", "--data.batch_size=16", "--model.widths=[16]"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("compare") / "out"
    done = command(
        "compare", *SMALL, "--epochs=2", "--seeds=0,3",
        "--spikes=htaf:alpha0=1@calibrate=5,atan", "--out", out,
    )  # fmt: skip
    return out, done.stdout


def test_runs_table_and_report(compared: tuple[Path, str]) -> None:
    out, printed = compared
    runs = read_results(out).runs.values()
    assert {(run.spike, run.seed) for run in runs} == {
        (spike, seed) for spike in ("htaf:alpha0=1@calibrate=5", "atan") for seed in (0, 3)
    }
    for run in runs:
        assert run.data == "digits"
        assert 0.15 < run.hard_accuracy <= 1 and 0 < run.firing_rate < 1
        gap = 100 * (run.soft_accuracy - run.hard_accuracy)
        assert run.gap_pp == pytest.approx(gap, abs=1e-3)
        if run.spike == "atan":
            assert run.gap_pp == 0 and run.hard_loss == run.soft_loss
            assert run.outputs[0] + run.outputs[-1] == pytest.approx(1)
        assert len(run.history) == 2 and run.seconds > 0 and run.trained_accuracy is not None
        assert run.history[0]["gradient_norms"].keys() == {"features.0", "read_out.1"}
        assert run.synaptic_operations > 0 and run.energy_nj > 0
        assert run.settings["data"]["name"] == "digits" and "torch" in run.versions
    assert (out / "table.txt").read_text() in printed
    assert (out / "report.html").stat().st_size > 10_000
    assert len(list((out / "checkpoints").iterdir())) == 4
    assert not list(out.rglob(".*partial"))


def test_runs_that_are_there_are_not_repeated(compared: tuple[Path, str]) -> None:
    out, printed = compared
    before = (out / "results.json").read_bytes()
    again = command(
        "compare", *SMALL, "--epochs=2", "--seeds=0,3",
        "--spikes=htaf:alpha0=1@calibrate=5,atan", "--out", out,
    )  # fmt: skip
    assert printed.endswith(again.stdout)
    assert (out / "results.json").read_bytes() == before


@pytest.mark.slow
def test_killed_and_started_again_side_by_side(tmp_path: Path, compared: tuple[Path, str]) -> None:
    whole, _ = compared
    out = tmp_path / "out"
    arguments = [
        "compare", *SMALL, "--epochs=2", "--seeds=0,3", "--spikes=atan", "--workers=2",
        f"--out={out}",
    ]  # fmt: skip
    process = forked(tmp_path / "log", main, arguments)
    while not read_results(out).runs:
        assert process.is_alive(), (tmp_path / "log").read_text()
        time.sleep(0.05)
    process.kill()
    process.join()
    kept = read_results(out).runs
    assert 1 <= len(kept) <= 2
    command(*arguments, "--workers=1")
    found = read_results(out).runs
    assert len(found) == 2 and {name: found[name] for name in kept} == kept  # the seconds too
    once = read_results(whole).runs
    assert all(run.hard_accuracy == once[name].hard_accuracy for name, run in found.items())


def study(**changes: Any) -> Study:
    base: dict[str, Any] = {
        "contenders": ["htaf"], "seeds": [0], "epochs": 1, "data": {"name": "digits", "T": 2},
        "model": {},
    }  # fmt: skip
    values = base | changes
    data, model = DataConfig(**values.pop("data")), ModelConfig(**values.pop("model"))
    return Study(**values, data=data, model=model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contenders": ["htaf", "atn"]}, "unknown spike function 'atn'; the known ones are htaf"),
        ({"contenders": []}, r"`contenders` \(=\[\]\)"),
        ({"seeds": [1, 1]}, r"`seeds` \(=\[1, 1\]\)"),
        ({"epochs": 0}, r"`epochs` \(=0\)"),
        ({"trials": -1}, r"`tune` \(=-1\) must be at least 0"),
        ({"data": {"name": "digits", "T": 0}}, r"`T` \(=0\)"),
    ],
)
def test_refuses_before_any_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study(**changes)


def test_refuses_bad_numbers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`workers` \(=0\) must be at least 1"):
        compare([study()], tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            "htaf@hardening=[0,2]",
            r"htaf@hardening=\[0,2\]: `hardening` \(=\(0.0, 2.0\)\) must be its",
        ),
        ("atan@sharpness={alpha0: [1, 2]}", "atan@.*no spike function of the network has a param"),
    ],
)
def test_options_are_tried_before_any_work(label: str, message: str, tmp_path: Path) -> None:
    one = study(contenders=["htaf", label], model={"widths": [4]})
    with pytest.raises(ValueError, match=message):
        compare([one], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tasks_are_named_by_all_that_decides_them() -> None:
    one = study(seeds=[0, 1], contenders=["htaf", "atan"])
    names = [task.name for task in one.tasks()]
    assert len(set(names)) == 4 and names[0].startswith("digits-htaf-seed0-")
    assert [task.name for task in replace(one, epochs=2).tasks()] != names
    assert [task.name for task in replace(one, model=ModelConfig(width=2)).tasks()] != names
    spelled = replace(one, model=ModelConfig(model="vgg_small"))
    assert [task.name for task in spelled.tasks()] == names  # the defaults
    assert replace(one.tasks()[0], data=replace(one.data, root=Path("elsewhere"))).name == names[0]
    with pytest.raises(ValueError, match="two studies have one title"):
        compare([one, one], Path("nowhere"))
    split = replace(one, resplit=True, title="t").tasks()
    assert [task.data.split_seed for task in split] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("standard", FOUR),
        ("fair", FOUR),
        ("all", FOUR),
        ("depth", DEPTH),
        ("ablation", ["N-MNIST", "Fashion-MNIST"]),
    ],
)
def test_presets(name: str, titles: list[str], shared_data: Path, tmp_path: Path) -> None:
    file = PRESETS / f"{name}.yaml"
    studies = preset(file, shared_data)
    assert [one.title for one in studies] == titles
    assert all("htaf" in one.contenders for one in studies)
    with pytest.raises(FileNotFoundError, match=r"name the folder of the data with --data_folder"):
        preset(file, tmp_path)


@pytest.mark.parametrize("given", [[], ["--data_folder=nowhere"], ["--data=digits"]])
def test_a_preset_that_is_no_file_is_named_first(given: list[str]) -> None:
    done = command("compare", "--preset=fair", *given, check=False)
    assert "`preset` (=fair) is no file; examples/presets has some" in done.stderr


def test_a_preset_and_options_of_data_exclude_each_other() -> None:
    done = command("compare", f"--preset={PRESETS / 'standard.yaml'}", "--data=digits", check=False)
    assert done.returncode == 1 and "brings its own data and model" in done.stderr


def test_learning_rates_are_tried_and_the_best_is_taken(tmp_path: Path) -> None:
    fixed = "htaf@learning_rate=1e-3"
    one = study(
        contenders=["atan", fixed], seeds=[3, 4], trials=3, epochs=2,
        data={"name": "digits", "T": 2, "batch_size": 64}, model={"widths": [8]},
    )  # fmt: skip
    assert [t.model.learning_rate for t in one.candidates("atan")] == [3e-3, 6e-3, 1.5e-3]
    assert one.candidates(fixed) == []
    runs = compare([one], tmp_path)
    trials = list(read_results(tmp_path).trials.values())
    assert {(t["spike"], t["learning_rate"]) for t in trials} == {
        ("atan", rate) for rate in (3e-3, 6e-3, 1.5e-3)
    }
    best = max(trials, key=lambda trial: trial["val_accuracy"] or 0)
    assert [run.settings["model"]["learning_rate"] for run in runs] == [
        *[best["learning_rate"], 1e-3] * 2
    ]
    assert runs[0].val_accuracy == best["val_accuracy"]  # the first seed's training again
    stored = (tmp_path / "results.json").read_bytes()
    assert compare([one], tmp_path) == runs
    assert (tmp_path / "results.json").read_bytes() == stored


def test_a_run_that_diverges_leaves_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = study(
        contenders=["atan", "htaf@learning_rate=1e6@weight_decay=1e6"],
        data={"name": "digits", "T": 2, "batch_size": 512}, model={"widths": [4]}, epochs=2,
    )  # fmt: skip
    runs = compare([one], tmp_path)
    assert [run.spike for run in runs] == ["atan"]
    assert "digits, htaf@learning_rate=1e6@weight_decay=1e6, seed 0 is left out" in caplog.text
    assert compare([replace(one, contenders=one.contenders[1:])], tmp_path / "alone") == []


def test_work_in_this_process() -> None:
    assert list(work(str, [1, 2, 3])) == ["1", "2", "3"]


def deaf(seconds: float) -> None:
    """Takes its time, and no notice of SIGTERM, as Lightning's trainer."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(seconds)


@pytest.mark.slow
def test_work_that_is_stopped_leaves_no_process() -> None:
    before = multiprocessing.active_children()
    with contextlib.closing(work(deaf, [1, 60, 60], workers=2)) as stopped:
        next(stopped)
    for child in multiprocessing.active_children():
        child.join(20)
    assert multiprocessing.active_children() == before


def test_how_long_it_will_take_and_what_was_found_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "htaf_snn")
    one = study(
        contenders=["atan"], seeds=[0, 1], model={"widths": [4]},
        data={"name": "digits", "T": 2, "batch_size": 512},
    )  # fmt: skip
    compare([one], tmp_path)
    assert re.search(r"about 0\.0 hours left, 1 at a time: 1 of digits \(\d+ s each", caplog.text)
    assert re.search(r"digits, 2 seeds .*\natan +surrogate +0\.\d{4} ± ", caplog.text)
