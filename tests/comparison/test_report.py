"""The comparison's tables, figures and page, from runs that no network made."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from paper import training

from htaf_snn import spike_function_names
from htaf_snn.comparison import plots, write_report
from htaf_snn.comparison import report as redraw
from htaf_snn.comparison.plots import (
    broken,
    drawing,
    looks,
    of_data_set,
    spike_functions,
)
from htaf_snn.comparison.report import common, escape_latex, table, to_csv, to_latex
from htaf_snn.comparison.results import Results
from htaf_snn.comparison.seed_statistics import summarize
from htaf_snn.surrogates import functional
from tests.helpers import command

from .synthetic import CONTENDERS, make_run, make_runs, three_runs

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FEW = ("htaf", "htaf@hardening=null", "scaled_sigmoid:beta=4", "atan")
DATA = "N-MNIST <b>&_1"  # to be escaped in HTML, LaTeX and paths
COMMAND = "htaf-snn compare --spikes 'htaf,atan' --out <runs> && true"
KINDS = ("accuracy", "learning")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("comparison") / "report"
    runs = make_runs(DATA, seeds=(0, 1, 2), contenders=FEW, epochs=3)
    write_report(runs, out, COMMAND)
    return out


def test_table_has_a_block_a_data_set_and_a_line_a_contender() -> None:
    runs = [
        *(make_run(seed=s, hard_accuracy=a) for s, a in enumerate((0.90, 0.92, 0.94))),
        *(
            make_run(seed=s, spike="atan", hard_accuracy=a, soft_accuracy=a)
            for s, a in enumerate((0.89, 0.90, 0.91))
        ),
        make_run(data="mnist", gap_pp=-0.001),
    ]
    runs[3:6] = [replace(run, spike="sigmoid@hardening=[0,0.8]") for run in runs[3:6]]
    digits, mnist = table(runs).split("\n\n")
    *heads, htaf, sigmoid = digits.splitlines()
    assert heads[-1].startswith("digits, 3 seeds") and "alike (pp)" in heads[-1]
    assert max(map(len, digits.splitlines())) <= 100 and htaf.split()[:5] == [
        "htaf", "hardened", "0.9200", "±", "0.0497",
    ]  # fmt: skip
    # Differences -1, -2, -3 pp: p = 1 - t / sqrt(2 + t^2) with t = 2 sqrt(3).
    assert sigmoid.split()[5:9] == ["+0.00", "+0.00", "-2.00", "0.074"]
    assert mnist.splitlines()[-1].split()[:4] == ["htaf", "hardened", "0.9000", "+0.00"]


def test_csv_has_every_mean_in_full() -> None:
    summaries = summarize(make_runs(DATA, seeds=(0, 1), contenders=FEW))
    rows = list(csv.DictReader(io.StringIO(to_csv(summaries))))
    assert [row["spike"] for row in rows] == list(FEW) and rows[0]["data"] == DATA
    for row, summary in zip(rows, summaries[DATA], strict=True):
        hard = summary.estimate("hard_accuracy")
        assert float(row["hard_accuracy"]) == hard.mean
        assert float(row["hard_accuracy_ci95"]) == hard.half_width
        assert float(row["energy_nj"]) == summary.estimate("energy_nj").mean
    assert rows[0]["p_holm"] == rows[3]["p_holm"] == ""  # none treated as atan
    assert 0 < float(rows[2]["p_holm"]) <= 1


def test_latex_is_escaped_and_its_rows_are_full() -> None:
    assert escape_latex(r"a_b\c ~^{}<50 %&$#±") == (
        r"a\_b\textbackslash{}c \textasciitilde{}\textasciicircum{}\{\}\textless{}50 \%\&\$\#$\pm$"
    )
    text = to_latex(summarize(make_runs(DATA, seeds=(0, 1), contenders=FEW)))
    assert r"\textit{N-MNIST \textless{}b\textgreater{}\&\_1}" in text
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    rows = [line for line in body.splitlines() if re.search(r"(?<!\\)&", line)]
    assert len(rows) == 1 + len(FEW)
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {10}
    assert "& $+0.0" in rows[1] and all(row.endswith(r" \\") for row in rows)


def test_a_contender_looks_the_same_everywhere_and_like_no_other() -> None:
    names = [name for name in spike_function_names() if name != "htaf"]
    spikes = ["htaf:mode=hard", *names, "htaf", "htaf@hardening=null"]
    spikes += [f"htaf:alpha0={alpha0}" for alpha0 in range(1, 10)]
    found = looks(spikes)
    assert list(found) == spikes
    assert len({(look["color"], str(look["linestyle"])) for look in found.values()}) == len(spikes)
    assert found["htaf"] == looks(["atan", "htaf"])["htaf"]  # whatever else is compared
    nine = looks(spikes[:9])
    assert len({look["color"] for look in nine.values()}) == 9  # as many as `fair` has
    assert all(look["zorder"] > found["htaf"]["zorder"] for s, look in found.items() if s != "htaf")


def test_long_labels_are_broken_before_a_parameter() -> None:
    assert broken("htaf:alpha0=0.67:alpha1=6.0:mode=hard@tuned") == (
        "htaf:alpha0=0.67\n:alpha1=6.0:mode=hard\n@tuned"
    )
    assert broken("scaled_sigmoid:beta=4") == "scaled_sigmoid:beta=4"


def test_figures_show_the_numbers() -> None:
    runs = three_runs()
    summaries = summarize(runs)["digits"]
    shown = looks(["htaf", "atan"])
    axes = plots.accuracies(summaries, shown).axes[0]
    drawn = [np.asarray(line.get_xdata()).tolist() for line in axes.lines]
    assert drawn == [
        pytest.approx(x) for x in ([0.7], [0.7], [0.85], [0.9, 0.8], [0.9])
    ]  # atan's mean and seed, htaf's mean, seeds and soft mean
    error, loss = plots.learning_curves(summaries, shown).axes
    assert np.allclose(error.lines[0].get_xydata(), [[1, 0.5], [2, 0.4]])
    assert np.allclose(loss.lines[1].get_ydata(), [1.25, 1.02])
    assert len(error.collections) == 1  # a band of two seeds, none of one


def test_derivatives_are_those_of_the_backward_pass() -> None:
    labels = ["htaf:alpha0=1.5:alpha1=6", "htaf:alpha0=1.5:alpha1=6:mode=hard", "atan:alpha=2"]
    above, below = spike_functions(looks(labels)).axes
    assert len(above.lines) == 2  # the step, and the one that is smooth in training
    smooth, hard, atan = (line.get_ydata() for line in below.lines)
    x = torch.linspace(-2, 2, 801, dtype=torch.float64)
    assert np.allclose(smooth, functional.htaf_derivative(x, 1.5, 6))
    assert np.allclose(hard, smooth) and np.allclose(atan, 1 / (1 + (np.pi * x) ** 2))
    assert np.allclose(above.lines[1].get_ydata(), functional.htaf(x, 1.5, 6))
    every = looks(["htaf", "htaf@hardening=null", *spike_function_names()[1:]])
    above, below = spike_functions(every).axes
    assert len(below.lines) == len(spike_function_names())  # htaf once
    assert len(above.lines) == 3  # the step, and two that are smooth in training


@pytest.mark.parametrize(
    "runs",
    [
        [make_run(history=make_run().history[:1])],
        [make_run(spike=f"htaf:alpha0={a}:alpha1=6.0:mode=hard") for a in range(1, 4)],
        [
            make_run(
                outputs=[0.02] * 50,
                history=[
                    {**e, "train_loss": float("nan"), "gradient_norms": {"conv1": 0.0}}
                    for e in make_run().history
                ],
            )
        ],
        make_runs(seeds=(0,), contenders=tuple(CONTENDERS)),
    ],
    ids=["one epoch", "long labels", "not finite", "many"],
)
def test_every_figure_can_be_laid_out(runs: Sequence[Any]) -> None:
    (summaries,) = summarize(runs).values()
    shown = looks([s.spike for s in summaries])
    with drawing():
        drawn = [
            plots.accuracies(summaries, shown),
            plots.learning_curves(summaries, shown),
            *(picture.figure for picture in training.of_data_set("d", summaries, shown)),
        ]
        for figure in drawn:
            figure.draw_without_rendering()
            width, height = figure.get_size_inches() * figure.dpi
            for legend in figure.legends:
                box = legend.get_window_extent()
                assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height
                for axes in figure.axes:
                    assert not box.overlaps(axes.get_window_extent())


def test_settings_that_differ_say_whose_they_are() -> None:
    first = {"epochs": 2, "model": {"lr": 0.1, "name": "vgg"}}
    second = {"epochs": 2, "model": {"lr": 0.2, "name": "vgg"}, "tuned": True}
    assert common([("htaf", first), ("htaf", first), ("atan", second)]) == {
        "epochs": "2",
        "model.lr": "0.1 (htaf); 0.2 (atan)",
        "model.name": "vgg",
        "tuned": "not set (htaf); true (atan)",
    }


def test_report_writes_page_figures_and_tables(report: Path) -> None:
    names = {"functions", *(f"N-MNIST-b-_1-{kind}" for kind in KINDS)}
    found = {path.name for path in (report / "figures").iterdir()}
    assert found == {f"{name}.{ending}" for name in names for ending in ("png", "pdf")}
    for path in (report / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG" if path.suffix == ".png" else b"%PDF")
    assert {path.name for path in report.iterdir()} == {
        "report.html", "table.csv", "table.tex", "table.txt", "figures",
    }  # fmt: skip
    page = (report / "report.html").read_text()
    assert "<b>&_1" not in page and "N-MNIST &lt;b&gt;&amp;_1" in page
    assert "--out &lt;runs&gt; &amp;&amp; true" in page
    assert page.index("Treated alike") < page.index("<table") < page.index("<img")
    assert "10.1109/ISSCC.2014.6757323" in page


def test_the_same_runs_make_the_same_figure() -> None:
    def draw() -> str:
        summaries = summarize(make_runs(DATA, seeds=(0, 1), contenders=FEW, epochs=3))[DATA]
        with drawing():
            return of_data_set(DATA, summaries, looks(FEW))[0].data_uri()

    assert draw() == draw()


def test_a_report_that_can_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    for wrong in ([make_run(spike="no_such")], []):
        with pytest.raises(ValueError, match=r"unknown spike function 'no_such'|`runs` is empty"):
            write_report(wrong, tmp_path / "out", COMMAND)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium or chromedriver; Debian: apt install chromium chromium-driver")
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with Chrome(options=options, service=ChromeService(driver)) as opened:
        yield opened


def resize(browser: Chrome, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )


def test_report_is_drawn_anew_from_its_records(tmp_path: Path, report: Path) -> None:
    results = Results(COMMAND)
    for number, run in enumerate(make_runs(DATA, (0, 1, 2), FEW, epochs=3)):
        results.add(str(number), run)
    results.write(tmp_path)
    done = command("report", tmp_path, "--out", tmp_path / "again")
    assert done.stdout == f"{tmp_path}/again/report.html\n"
    assert (tmp_path / "again" / "table.txt").read_text() == (report / "table.txt").read_text()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["results.json"]
    with pytest.raises(FileNotFoundError, match=r"no runs in .*again/results.json"):
        redraw(tmp_path / "again")
    (tmp_path / "results.json").write_text('{"runs": [')
    with pytest.raises(ValueError, match=r"results.json is no record of htaf-snn compare"):
        redraw(tmp_path)


def test_page_in_a_browser(report: Path, browser: Chrome) -> None:
    browser.get((report / "report.html").as_uri())
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert requested and all(url.startswith(("file:", "data:")) for url in requested)
    widths = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert len(widths) == 3 and min(widths) > 0

    def column(index: int) -> list[str]:
        cells: list[str] = browser.execute_script(
            "return [...document.querySelector('.sortable').tBodies[0].rows]"
            ".map(row => row.cells[arguments[0]].textContent.trim())",
            index,
        )
        return cells

    heads = browser.find_elements("css selector", ".sortable:first-of-type thead th")[:12]
    assert column(0) == list(FEW)
    gap, p = 5, 7
    heads[gap].find_element("tag name", "button").click()
    assert heads[gap].get_attribute("aria-sort") == "descending"
    falling = [float(text) for text in column(gap)]
    assert falling == sorted(falling, reverse=True) and column(0)[0] == "scaled_sigmoid:beta=4"
    heads[gap].find_element("tag name", "button").click()
    assert heads[gap].get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in column(gap)] == sorted(falling)
    heads[p].find_element("tag name", "button").click()
    assert heads[gap].get_attribute("aria-sort") == "none"
    assert column(p)[0] and not any(column(p)[1:])  # those with no p are below the others
    heads[0].find_element("tag name", "button").click()
    assert column(0) == sorted(FEW)
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_a_phone_and_a_desktop(report: Path, browser: Chrome, width: int) -> None:
    browser.get((report / "report.html").as_uri())
    resize(browser, width)
    page = "document.documentElement"
    assert browser.execute_script(f"return {page}.scrollWidth <= {page}.clientWidth")
    if width == 1280:
        assert browser.execute_script(
            "const box = document.querySelector('.scroll'); return box.scrollWidth"
            " <= box.clientWidth"
        )
    sizes = [image.size["width"] for image in browser.find_elements("tag name", "img")]
    assert min(sizes) > 300 and max(sizes) <= 400
