"""The package as a stranger meets it: imports, links, README, examples."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import htaf_snn
from tests.helpers import command

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **environment},
    )  # fmt: skip


def test_imports_without_tonic_cupy_or_compiler_or_what_windows_lacks() -> None:
    done = python(
        "import sys; sys.modules['tonic'] = sys.modules['cupy'] = sys.modules['fcntl'] = None\n"
        "import os, _ctypes; del os.getuid, _ctypes.dlclose\n"
        "import htaf_snn, torch\n"
        "htaf_snn.LIFNode(surrogate_function=htaf_snn.HTAFSpike())(torch.ones(2, 3))\n"
        "assert not {'lightning', 'matplotlib', 'sklearn'} & sys.modules.keys()",
        PATH="/nowhere",
        CXX="/nowhere/c++",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("link", ["neurons", "surrogates"])
def test_importing_through_a_root_link_fails_loudly(link: str) -> None:
    assert (ROOT / link).is_symlink()
    assert (ROOT / link).resolve() == ROOT / "htaf_snn" / link
    done = python(f"import {link}")
    assert "ImportError: attempted relative import beyond top-level package" in done.stderr


@pytest.mark.parametrize("code", sorted(set(blocks("python"))))
def test_readme_python(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "htaf_snn.compat" in code:  # which changes SpikingJelly for the whole process
        assert python(code).returncode == 0
        return
    monkeypatch.chdir(ROOT)
    exec(compile(code, "a page's code", "exec"), {"__name__": "__main__"})


def commands() -> list[str]:
    lines = "".join(blocks("bash")).replace("\\\n", " ").replace("&&\n", "&& ").splitlines()
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if part.startswith("htaf-snn ")]


@pytest.mark.parametrize("line", commands())
def test_readme_commands_are_understood(line: str) -> None:
    name, *options = shlex.split(line)[1:]
    extra = ["--print_config"] if name in ("fit", "compare") else ["--help"]
    command(name, *options, *extra)


def test_presets_are_shown_with_the_folder_of_their_data() -> None:
    shown = [line for line in commands() if "--preset" in line]
    assert shown and all("--data_folder" in line for line in shown)


def test_tables_are_those_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["docs/tables.py", "--check"])
    try:
        runpy.run_path(str(ROOT / "docs/tables.py"), run_name="__main__")
    except SystemExit as done:
        assert not done.code, f"run python docs/tables.py: {done.code}"


def test_figures_of_the_docs_are_drawn(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "docs/figures.py"))["main"](tmp_path)
    drawn, shown = ({p.name for p in f.iterdir()} for f in (tmp_path, ROOT / "docs/figures"))
    assert drawn == shown and all(f"figures/{name}" in TEXT for name in shown)


def test_readme_has_both_set_up_commands() -> None:
    lines = "".join(blocks("bash")).replace("&&\n", "&& ").splitlines()
    assert sum("pip install" in line and "htaf-snn compare" in line for line in lines) == 1
    assert sum("pip install" in line and "pytest" in line for line in lines) == 1


def test_readme_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 150 and max(map(len, lines)) <= 100


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), link


SHORTENED = {  # arguments
    "batch_statistics": "--epochs 1 --width 0.5",
    "gap_tried": "--data digits --T 2 --batch_size 256 --epochs 1 --seeds 1",
    "gradient_norms": "vgg5",
    "own_neuron": "1",
    "own_spike_function": "1",
}


EXAMPLES = [  # the others are run, shortened, by the tests of their own in tests/examples
    path
    for path in sorted((ROOT / "examples").glob("*.py"))
    if not (ROOT / "tests" / "examples" / f"test_{path.name}").exists()
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_examples_run(
    example: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shortened = SHORTENED.get(example.stem, "").split()
    monkeypatch.setattr(sys, "argv", [str(example), *shortened])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out


def imported(path: Path) -> set[str]:
    """The top-level modules and our subpackages that a file of ours imports, anywhere in it."""
    package, found = ["htaf_snn", *path.relative_to(ROOT / "htaf_snn").parts[:-1]], set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return {".".join(name.split(".")[:2]) for name in found}


def test_subpackages_import_each_other_in_one_direction() -> None:
    folders = [path for path in (ROOT / "htaf_snn").iterdir() if (path / "__init__.py").exists()]
    imports = {
        f"htaf_snn.{folder.name}": set().union(*map(imported, folder.rglob("*.py")))
        for folder in folders
    }
    assert not {"examples", "benchmarks", "tests"} & {
        name.partition(".")[0] for found in imports.values() for name in found
    }
    graph = {name: (found & imports.keys()) - {name} for name, found in imports.items()}
    graphlib.TopologicalSorter(graph).prepare()  # a CycleError names the circle
    for folder in folders:  # and what it may import stands in its docstring's last sentence
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        said = text[text.rindex(" Imports ") :]
        others = {name.partition(".")[2] for name in graph[f"htaf_snn.{folder.name}"]}
        assert set(re.findall("`(.+?)`", said)) == others, folder.name


RIDDLES = {"what", "whether", "as", "of", "where", "why", "who", "how", "that", "with", "within",
           "which", "when", "by", "for", "if", "in", "so"}  # fmt: skip


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'module')}: {text.splitlines()[0]}"
        for path in sorted((ROOT / "htaf_snn").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if (text := ast.get_docstring(node)) and text.split()[0].lower().strip(",") in RIDDLES
    ]
    assert not found, "\n".join(found)


def test_names_that_are_imported_late_are_those_that_type_checkers_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree = ast.parse((ROOT / "htaf_snn/__init__.py").read_text())
    seen = {
        alias.asname: node.module
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == htaf_snn._WHERE
    assert all(getattr(htaf_snn, name) for name in htaf_snn.__all__)
    monkeypatch.delitem(vars(htaf_snn), "HTAF")  # as if it had not been asked for
    assert {"HTAF", "transfer", "__version__"} <= set(dir(htaf_snn))
    with pytest.raises(AttributeError, match="module 'htaf_snn' has no attribute 'HATF'"):
        _ = htaf_snn.HATF
