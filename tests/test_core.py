"""The core alone: what it imports, what it does without the extras, and what they say."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

from htaf_snn.extras import EXTRAS
from tests.helpers import command
from tests.test_package import ROOT, python

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = ["torch", "spikingjelly", "numpy", "filelock", "platformdirs"]
USE = (Path(__file__).parent / "core.py").read_text()


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def closure(names: list[str]) -> set[str]:
    """The distributions that come with ``names``, without extras."""
    found: set[str] = set()
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            try:
                wanted = requires(name) or []
            except ModuleNotFoundError:  # for another platform
                continue
            names += [name_of(one) for one in wanted if "extra ==" not in one]
    return found


def without(*modules: str) -> str:
    return f"import sys\nsys.modules.update(dict.fromkeys({modules}))\n"


def test_the_core_has_five_requirements() -> None:
    assert [name_of(one) for one in PROJECT["dependencies"]] == CORE


def test_the_core_alone_trains_and_converts() -> None:
    """As `.ci/run` does in an environment of its own; here all else is hidden."""
    brought = closure([*CORE])
    hidden = [
        module
        for module, distributions in packages_distributions().items()
        if module.isidentifier()
        and not brought & {name_of(one) for one in distributions}
        and module not in ("htaf_snn", "triton")
    ]
    assert {"lightning", "jsonargparse", "torchmetrics", "sklearn", "yaml"} <= set(hidden)
    done = python(without(*hidden) + USE)
    assert done.returncode == 0, done.stderr
    sys.stdout.write(done.stdout)  # the seconds that an import takes


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("backends", "cpu    available"),
        ("backends --clear_cache", "removed 0 kernels"),
        ("neurons", "LIFNode"),
        ("fit --help", "--model.recipe"),
    ],
)
def test_commands_that_need_no_extra(
    line: str, printed: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in EXTRAS["train"]:
        if module in ("jsonargparse", "lightning", "tqdm", "yaml"):  # others are imported by torch
            monkeypatch.setitem(sys.modules, module, None)
    assert printed in command(*line.split()).stdout


@pytest.mark.parametrize(
    ("line", "missing", "message", "extra"),
    [
        ("fit", ["lightning", "yaml"], "lightning, yaml are not installed", "train"),
        ("compare", ["jinja2"], "jinja2 is not installed", "compare"),
        ("models", ["jsonargparse"], "jsonargparse is not installed", "train"),
        ("compare --ray_address auto", ["ray"], "ray is not installed", "ray"),
    ],
)
def test_a_missing_extra_is_named(
    line: str, missing: list[str], message: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    done = command(*line.split(), check=False)
    assert done.returncode == 1
    assert done.stderr.endswith(f"{message}: pip install 'htaf-snn[{extra}]'\n")


def test_extras_are_those_of_the_project() -> None:
    distributions = packages_distributions()
    for extra, modules in EXTRAS.items():
        declared, within = set(), set()
        for one in PROJECT["optional-dependencies"][extra]:
            if found := re.match(r"htaf-snn\[(.*)\]", one):
                within |= {module for name in found[1].split(",") for module in EXTRAS[name]}
            else:
                declared.add(name_of(one))
        installed = {name_of(of) for m in modules for of in distributions.get(m, [m])}
        assert declared <= installed, extra
        assert declared >= {
            name_of(of) for m in {*modules} - within for of in distributions.get(m, [m])
        }, extra
