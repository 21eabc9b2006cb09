"""Changes of one line, drawn by a seed, each tried against the tests nearest to it.

    python -m tests.mutations --count 200 --seed 0
    python -m tests.mutations --headers

A change that no test sees is a survivor, and is listed: a test is missing, or the line is. What is
tried is a copy of the tree. ``--headers`` tries those of `HEADERS`, of the C headers, instead.
(mutmut puts functions of its own before ours, which the trace of a neuron would see; cosmic-ray has
one command for all changes, where here tests depend on the file.)
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import itertools
import math
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[1]
TARGETS = (
    "surrogates", "neurons", "transfer", "data/splits.py", "data/framing.py", "training/module.py",
    "comparison/statistics.py",
)  # fmt: skip
_FILES = 5  # of tests at most
_KERNELS = "neurons/kernels/"
# The tests of each C header, and its changes: a piece of it, and what takes its place.
HEADERS: dict[str, tuple[tuple[str, ...], tuple[tuple[str, str], ...]]] = {
    "kernel.h": (("test_terms", "test_reference", "test_fused"), (
        ("u + 0x7fffu + ((u >> 16) & 1u)", "u + 0x8000u"),  # ties to even, bfloat16
        ("a + 0xc8000fffu + ((a >> 13) & 1u)", "a + 0xc8001000u"),  # and float16
        ("x != x ? 0x7fc0u : rounded", "rounded"),
        ("a >= 0x477ff000u", "a > 0x477ff000u"),
        ("clamp(x, 87.0f)", "clamp(x, 60.0f)"),
        ("e * w * w - least_slope(z)", "e * w * w"),
        ("(x < y) | (x != x) ? x : y", "x < y ? x : y"),
        ("1.57079633f - r", "1.57f - r"),
        ("all > 10.0f ? 10.0f : all", "all"),
    )),
    "kernel_cpu.h": (("test_reference", "test_fused", "test_random_steps"), (
        ("now == phase && len <= filled", "now == phase"),
        ("c[k * width + i - first_ones]", "c[k * width]"),
        ("call.s0[j] + first, sizeof", "call.s0[j], sizeof"),
        ("if (call.gs_seq[j]) add", "if (false) add"),
        ("if (call.g_last[j])", "if (false)"),
        ("gs[j] = call.gs0[j] ? call.gs0[j] + first :", "gs[j] = call.gs0[j] ? call.gs0[j] :"),
        ("for (i64 c = 0; c < call.channels; ++c) sum += mine[c]", "sum = mine[0]"),
        ("sum[channel] += total(mine + i, run)", "sum[channel] = total(mine + i, run)"),
        ("if (++channel == call.channels) channel = 0;\n            }\n        }\n    }",
         "++channel;\n            }\n        }\n    }"),
    )),
    "kernel_norm.h": (("test_norm", "test_batch_norm"), (
        ("slope * of.offset[c] - scale", "-scale"),
        ("g_weight[c] + of.offset[c] * g_bias[c]", "g_weight[c]"),
        ("of.offset[c] * scale + (call.bias", "0 * scale + (call.bias"),
        ("(elements / (elements - 1))", "1.0"),
        ("pivot[i] = (double)load(x + i % C)", "pivot[i] = 0"),
        ("mean_of_all > call.momentum ? mean_of_all : call.momentum", "call.momentum"),
        ("x + at, a[c], b[c], center[c]", "x + at, a[c], b[c], center[0]"),
        ("else if (call.elements)", "else"),
    )),
    "kernel_cuda.h": (("test_cuda_source",), (
        ("live ? R(live[k]) : R(call.numbers[k])", "R(call.numbers[k])"),
        ("if (IN_SEQUENCES(j)) gs[w][j] +=", "if (false) gs[w][j] +="),
        ("e / call.inner * call.channels + channel", "e / call.inner + channel"),
        ("(at += end) < call.N", "(at += end) < 0"),
        ("i + w) : 0", "i) : 0"),
    )),
}  # fmt: skip
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
    begin: int  # characters of the file
    end: int
    text: str

    def apply(self, source: str) -> str:
        return source[: self.begin] + self.text + source[self.end :]


def mutations(path: str, source: str) -> list[Mutation]:
    """Every change of a Python file, in order."""
    found = []
    lines = source.splitlines(keepends=True)
    starts = [0, *itertools.accumulate(map(len, lines))]
    for node in _looked_at(ast.parse(source)):
        if node.lineno != node.end_lineno or node.end_col_offset is None:
            continue
        for changed in _changes(node):
            text = ast.unparse(changed)
            text = text if isinstance(changed, ast.Return) else f"({text})"
            line = lines[node.lineno - 1].encode()
            begin, end = (
                starts[node.lineno - 1] + len(line[:column].decode())
                for column in (node.col_offset, node.end_col_offset)
            )
            found.append(Mutation(path, node.lineno, begin, end, text))
    return found


def of_headers() -> list[Mutation]:
    """The changes of `HEADERS`; a piece that a header does not have just once is an error."""
    found = []
    for name, (_, changes) in HEADERS.items():
        source = (ROOT / "htaf_snn" / _KERNELS / name).read_text(encoding="utf-8")
        for piece, text in changes:
            if source.count(piece) != 1:
                raise ValueError(f"{name} has {piece!r} {source.count(piece)} times, not once")
            begin = source.index(piece)
            line = source.count("\n", 0, begin) + 1
            found.append(Mutation(_KERNELS + name, line, begin, begin + len(piece), text))
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
    if path.endswith(".h"):
        return [f"tests/neurons/{name}.py" for name in HEADERS[Path(path).name][0]]
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
    """Runs tests in the tree at ``root``; True if they pass within ``seconds``.

    In a fork of this process, which has imported all that takes long, and a session of its own:
    tests of signals and of stopped compilers end their whole group.
    """
    for library in ("hypothesis", "lightning", "numpy", "pytest", "scipy", "tonic", "torch",
                    "spikingjelly.activation_based.neuron"):  # fmt: skip
        importlib.import_module(library)
    child = os.fork()
    if child == 0:
        _run(tests, root)
    end = math.inf if seconds is None else time.monotonic() + seconds
    status = 1
    try:
        while time.monotonic() < end:
            done, found = os.waitpid(child, os.WNOHANG)
            if done:
                status = found
                break
            time.sleep(0.05)
        return status == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def _run(tests: Sequence[str], root: Path) -> NoReturn:
    """Becomes a process that tests the tree at ``root``, and ends."""
    code = 1
    try:
        os.setsid()
        silent = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(silent, descriptor)
        os.chdir(root)
        cache = str(root.parent / "cache")  # whose kernels have names by text
        os.environ |= {
            "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HTAF_SNN_TEST_CACHE": cache
        }  # fmt: skip
        sys.path.insert(0, str(root))
        for name in [n for n in sys.modules if n.partition(".")[0] in ("tests", "htaf_snn")]:
            del sys.modules[name]
        import pytest

        options = ["-n", "0", "-x", "-q", "-p", "no:cacheprovider"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # imported before
        code = int(pytest.main([*options, *tests]))
    finally:
        os._exit(code)


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
    parser.add_argument("--headers", action="store_true", help="the C headers' changes instead")
    options = parser.parse_args()
    drawn = of_headers() if options.headers else draw(options.count, options.seed)
    drawn = drawn[options.skip :]
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
