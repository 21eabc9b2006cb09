"""Changes of one line, drawn by a seed, each tried against the tests that pass through it.

    python -m tests.mutations --count 200 --seed 0
    python -m tests.mutations --headers

A change that no test sees is a survivor, and is listed: a test is missing, or the line is. What is
tried is a copy of the tree, whose tests run once under coverage.py, unchanged, to see which lines
each passes. ``--headers`` tries the changes of `HEADERS`, of the C headers, against whole files.
(mutmut puts functions of its own before ours, which the trace of a neuron would see; cosmic-ray has
one command for all changes, where here tests depend on the line.)
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import functools
import importlib
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TARGETS = (
    "surrogates", "neurons", "transfer", "data/splits.py", "data/framing.py", "training/module.py",
    "comparison/seed_statistics.py",
)  # fmt: skip
_FILES = 5  # of tests at most
_SECONDS = 90.0  # of tests that pass through a line, at most; the first one may take longer
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
    "kernel_cuda_norm.h": (("test_cuda_norm",), (
        ("++*call.tracked", "*call.tracked"),
        ("number(x[0].of[w]) - pivot[w]", "0"),
        ("square[w] - sum[w] * step", "square[w]"),
        ("many * d * d", "d * d"),
        ("all > call.momentum ? all : call.momentum", "call.momentum"),
        ("(elements / (elements - 1))", "1.0"),
        ("offset * scale + bias", "bias"),
        ("a[w] = b[w] * of[4] - share * g_bias", "a[w] = -share * g_bias"),
        ("+ of[4] * g_bias)", ")"),
        ("b[w] * d), g", "b[w]), g"),
    )),
}  # fmt: skip
# What no caller tells from its change: an empty result, and zip's strict, which is an assertion.
_EMPTY = ("return", "return None", "return False", "return ''", "return 0", "return []")
_ASSERTS = (None, "strict")
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
    if isinstance(node, ast.keyword) and node.arg in _ASSERTS[1:]:
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
    elif isinstance(changed, ast.Call) and any(k.arg not in _ASSERTS for k in changed.keywords):
        # the defaults
        changed.keywords = [k for k in changed.keywords if k.arg in _ASSERTS]
        yield changed
    elif isinstance(changed, ast.Return) and ast.unparse(changed) not in _EMPTY:
        changed.value = ast.Constant(None)
        yield changed


def nearest_tests(path: str) -> list[str]:
    """The test files of the subpackage that bear the module's name or one that it defines."""
    if path.endswith(".h"):
        return [f"tests/neurons/{name}.py" for name in HEADERS[Path(path).name][0]]
    package, stem = path.split("/")[0], Path(path).stem
    body = ast.parse((ROOT / "htaf_snn" / path).read_text(encoding="utf-8")).body
    defined = [n.name for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    names = [re.escape(name) for name in (*defined, stem) if not name.startswith("_")]
    word = re.compile(rf"\b({'|'.join(names) or '(?!)'})\b")
    tests = sorted((ROOT / "tests" / package).glob("test_*.py"))
    near = [t for t in tests if t.stem == f"test_{stem}" or word.search(t.read_text("utf-8"))]
    near.sort(key=lambda test: test.stem != f"test_{stem}")  # that of its name first
    return [str(test.relative_to(ROOT)) for test in (near or tests)[:_FILES]]


def _body_below(mutation: Mutation) -> list[int]:
    """Returns the lines of a function where the change is in its head, as in a default."""
    if mutation.path.endswith(".h"):
        return []
    for node in ast.walk(ast.parse((ROOT / "htaf_snn" / mutation.path).read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.lineno <= mutation.line < node.body[0].lineno:
            return list(range(node.body[0].lineno, (node.end_lineno or 0) + 1))
    return []


@functools.cache
def _all() -> list[Mutation]:
    package = ROOT / "htaf_snn"
    return [
        mutation
        for target in TARGETS
        for path in sorted((package / target).rglob("*.py")) or [package / target]
        for mutation in mutations(str(path.relative_to(package)), path.read_text(encoding="utf-8"))
    ]


def draw(count: int, seed: int) -> list[Mutation]:
    """So many of all changes, each as likely, in the order of the draw."""
    found = _all().copy()
    random.Random(seed).shuffle(found)
    return found[:count]


class Passes:
    """The tests that pass through each line of a tree: a pytest plugin that notes them.

    Attributes:
        seconds: of each test, by its node id.
        through: node ids by path and line.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.through: dict[str, dict[str, list[str]]] = {}

    def record(self, tests: Sequence[str], root: Path) -> None:
        """Runs tests in the tree at ``root``, in a process of its own.

        Raises:
            RuntimeError: some fail.
        """
        kept = root.parent / "passes.json"
        passed = in_fork(lambda: self._record(tests, root, kept))
        self.seconds, self.through = json.loads(kept.read_text(encoding="utf-8"))
        if not passed:
            failed = [test for test, seconds in self.seconds.items() if seconds == math.inf]
            raise RuntimeError(f"without a change, these tests fail: {', '.join(failed)}")

    def tests_of(self, mutation: Mutation) -> list[str]:
        """Returns the tests that pass through its line, or through the function whose head it is.

        Those of its module come first, then a case of each test, the fastest first, then another.
        Of a header, and of what runs at import alone, they are those of the nearest files.
        """
        near = nearest_tests(mutation.path)
        through = self.through.get(mutation.path, {})
        lines = [mutation.line, *_body_below(mutation)]
        tests = {test for line in lines for test in through.get(str(line), ()) if test}
        tests = tests or {test for test in self.seconds if test.partition("::")[0] in near}
        cases = Counter[str]()
        ranks: list[tuple[bool, int, int, str]] = []
        for test in sorted(tests, key=self.seconds.__getitem__):
            function = test.partition("[")[0]
            cases[function] += 1
            ranks.append((test.partition("::")[0] != near[0], cases[function], len(ranks), test))
        ordered = [test for *_, test in sorted(ranks)]
        ends = itertools.accumulate(self.seconds[test] for test in ordered)
        chosen = [test for test, end in zip(ordered, ends, strict=True) if end < _SECONDS]
        return chosen or ordered[:1]

    def _record(self, tests: Sequence[str], root: Path, kept: Path) -> int:
        from coverage import Coverage

        self.coverage = Coverage(data_file=None, source=[str(root / "htaf_snn")])
        self.coverage.start()
        code = run_tests(tests, root, self)
        self.coverage.stop()
        data = self.coverage.get_data()
        lines = {
            str(Path(path).relative_to(root.resolve() / "htaf_snn")): data.contexts_by_lineno(path)
            for path in data.measured_files()
        }
        kept.write_text(json.dumps([self.seconds, lines]), encoding="utf-8")
        return code

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += math.inf if report.failed else report.duration


def recorded(headers: bool) -> list[str]:
    """The test files and folders that are run without a change."""
    if headers:
        return sorted({test for mutation in of_headers() for test in nearest_tests(mutation.path)})
    files = {t for path in TARGETS if path.endswith(".py") for t in nearest_tests(path)}
    return [*(f"tests/{path}" for path in TARGETS if not path.endswith(".py")), *sorted(files)]


def in_fork(work: Callable[[], int], seconds: float = math.inf) -> bool:
    """Runs ``work`` in a process of its own; True if it returns 0 within ``seconds``.

    In a fork of this process, which has imported all that takes long, and a session of its own:
    tests of signals and of stopped compilers end their whole group.
    """
    for library in ("hypothesis", "lightning", "numpy", "scipy", "tonic", "torch",
                    "spikingjelly.activation_based.neuron"):  # fmt: skip
        importlib.import_module(library)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            silent = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(silent, descriptor)
            code = work()
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status == 0
            time.sleep(0.05)
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def run_tests(tests: Sequence[str], root: Path, *plugins: object) -> int:
    """Runs tests in the tree at ``root``, until one fails if there is no plugin to tell."""
    os.chdir(root)
    cache = str(root.parent / "cache")  # whose kernels have names by text
    os.environ |= {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HTAF_SNN_TEST_CACHE": cache}
    sys.path.insert(0, str(root))
    for name in [n for n in sys.modules if n.partition(".")[0] in ("tests", "htaf_snn")]:
        del sys.modules[name]
    options = ["-n", "0", "-q", "-p", "no:cacheprovider", *([] if plugins else ["-x"])]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # imported before
    return int(pytest.main([*options, *tests], plugins=plugins))


def survives(mutation: Mutation, root: Path, passes: Passes) -> bool:
    """Whether the tests of its line pass in the tree at ``root`` with the change."""
    tests = passes.tests_of(mutation)
    seconds = 60 + 3 * sum(passes.seconds[test] for test in tests)  # if they hang, it is seen
    path = root / "htaf_snn" / mutation.path
    whole = path.read_text(encoding="utf-8")
    path.write_text(mutation.apply(whole), encoding="utf-8")
    try:
        return in_fork(lambda: run_tests(tests, root), seconds)
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
    survivors, passes = 0, Passes()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tree"
        left_out = shutil.ignore_patterns(".*", "__pycache__", "runs", "site")
        shutil.copytree(ROOT, root, ignore=left_out, symlinks=True)
        passes.record(recorded(options.headers), root)
        for number, mutation in enumerate(drawn, options.skip + 1):
            source = (root / "htaf_snn" / mutation.path).read_text(encoding="utf-8")
            survived = survives(mutation, root, passes)
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
