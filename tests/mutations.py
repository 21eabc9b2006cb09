"""Changes of one line, drawn by a seed, each tried against the tests nearest to it.

    python -m tests.mutations --count 200 --seed 0

A change that no test sees is a survivor, and is listed: a test is missing, or the line is. What is
tried is a copy of the tree. (mutmut puts functions of its own before ours, which the trace of a
neuron would see; cosmic-ray has one command for all changes, where here tests depend on the file.)
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGETS = (
    "surrogates", "neurons", "transfer", "data/splits.py", "data/framing.py", "training/module.py",
    "comparison/statistics.py",
)  # fmt: skip
_FILES = 5  # of tests at most
_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Mod: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """A change of one line of a file of ``htaf_snn``."""

    path: str
    line: int
    begin: int  # bytes of the line
    end: int
    text: str

    def apply(self, source: str) -> str:
        lines = source.splitlines(keepends=True)
        line = lines[self.line - 1].encode()
        lines[self.line - 1] = (line[: self.begin] + self.text.encode() + line[self.end :]).decode()
        return "".join(lines)


def mutations(path: str, source: str) -> list[Mutation]:
    """Every change of the file, in order."""
    found = []
    for node in _looked_at(ast.parse(source)):
        if node.lineno != node.end_lineno or node.end_col_offset is None:
            continue
        for changed in _changes(node):
            text = ast.unparse(changed)
            text = text if isinstance(changed, ast.Return) else f"({text})"
            found.append(Mutation(path, node.lineno, node.col_offset, node.end_col_offset, text))
    return found


def _looked_at(node: ast.AST) -> Iterator[ast.expr | ast.Return]:
    """What is calculated: neither types nor texts, nor what is only said in an error."""
    if isinstance(node, ast.JoinedStr | ast.Raise | ast.Assert):
        return
    if isinstance(node, ast.Return) or (isinstance(node, ast.expr) and hasattr(node, "lineno")):
        yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _looked_at(child)


def _changes(node: ast.expr | ast.Return) -> Iterator[ast.expr | ast.Return]:
    changed = copy.deepcopy(node)
    if isinstance(changed, ast.Compare) and len(changed.ops) == 1:
        changed.ops = [_SWAPS[type(changed.ops[0])]()]  # type: ignore[list-item]
        yield changed
    elif isinstance(changed, ast.BinOp | ast.BoolOp) and type(changed.op) in _SWAPS:
        changed.op = _SWAPS[type(changed.op)]()  # type: ignore[assignment]
        yield changed
    elif isinstance(changed, ast.UnaryOp) and isinstance(changed.op, ast.Not | ast.USub):
        yield changed.operand
    elif isinstance(changed, ast.Constant) and isinstance(changed.value, bool | int | float):
        value = changed.value
        changed.value = not value if isinstance(value, bool) else value + 1
        yield changed
    elif isinstance(changed, ast.Call) and any(k.arg for k in changed.keywords):
        changed.keywords = [k for k in changed.keywords if not k.arg]  # the defaults
        yield changed
    elif isinstance(changed, ast.Return) and ast.unparse(changed) not in ("return", "return None"):
        changed.value = ast.Constant(None)
        yield changed


def nearest_tests(path: str, root: Path = ROOT) -> list[str]:
    """The test files of the subpackage that bear the module's name or one that it defines."""
    package, stem = path.split("/")[0], Path(path).stem
    body = ast.parse((root / "htaf_snn" / path).read_text(encoding="utf-8")).body
    defined = [n.name for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    names = [re.escape(name) for name in (*defined, stem) if not name.startswith("_")]
    word = re.compile(rf"\b({'|'.join(names) or '(?!)'})\b")
    tests = sorted((root / "tests" / package).glob("test_*.py"))
    near = [t for t in tests if t.stem == f"test_{stem}" or word.search(t.read_text("utf-8"))]
    near.sort(key=lambda test: test.stem != f"test_{stem}")  # that of its name first
    return [str(test.relative_to(root)) for test in (near or tests)[:_FILES]]


def draw(count: int, seed: int) -> list[Mutation]:
    """So many of all changes, each as likely, in the order of the draw."""
    paths = [
        path
        for target in TARGETS
        for path in sorted((ROOT / "htaf_snn" / target).rglob("*.py"))
        or [ROOT / "htaf_snn" / target]
    ]
    found = [
        mutation
        for path in paths
        for mutation in mutations(
            str(path.relative_to(ROOT / "htaf_snn")), path.read_text(encoding="utf-8")
        )
    ]
    random.Random(seed).shuffle(found)
    return found[:count]


def passes(tests: Sequence[str], root: Path, seconds: float | None = None) -> bool:
    """Runs tests in the tree at ``root``; True if they pass within ``seconds``."""
    # A session of its own: tests of signals and of stopped compilers end their whole group.
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def patience(tests: tuple[str, ...], root: Path, known: dict[tuple[str, ...], float]) -> float:
    """Returns the seconds to wait for tests of a changed tree, three times those of this one.

    Raises:
        RuntimeError: the tests fail without any change.
    """
    if tests not in known:
        start = time.monotonic()
        if not passes(tests, root):
            raise RuntimeError(f"{', '.join(tests)} fail without a change; mend them first")
        known[tests] = 60 + 3 * (time.monotonic() - start)
    return known[tests]


def survives(mutation: Mutation, root: Path, known: dict[tuple[str, ...], float]) -> bool:
    """Whether the nearest tests pass in the tree at ``root`` with the change."""
    path = root / "htaf_snn" / mutation.path
    whole = path.read_text(encoding="utf-8")
    tests = tuple(nearest_tests(mutation.path, root))
    seconds = patience(tests, root, known)  # a change with which they hang is seen
    path.write_text(mutation.apply(whole), encoding="utf-8")
    try:
        return passes(tests, root, seconds)
    finally:
        path.write_text(whole, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="how many are drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--skip", type=int, default=0, help="so many of them, tried before")
    options = parser.parse_args()
    drawn = draw(options.count, options.seed)[options.skip :]
    survivors, known = 0, dict[tuple[str, ...], float]()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tree"
        left_out = shutil.ignore_patterns(".*", "__pycache__", "runs", "site")
        shutil.copytree(ROOT, root, ignore=left_out, symlinks=True)
        for number, mutation in enumerate(drawn, options.skip + 1):
            source = (root / "htaf_snn" / mutation.path).read_text(encoding="utf-8")
            survived = survives(mutation, root, known)
            survivors += survived
            before, after = (
                text.splitlines()[mutation.line - 1].strip()
                for text in (source, mutation.apply(source))
            )
            sys.stdout.write(
                f"{number} {'SURVIVES' if survived else 'seen'}  {mutation.path}:{mutation.line}\n"
                f"    {before}\n    {after}\n"
            )
            sys.stdout.flush()
    seen = len(drawn) - survivors
    sys.stdout.write(f"{seen} of {len(drawn)} seen ({seen / max(1, len(drawn)):.0%})\n")


if __name__ == "__main__":
    main()
