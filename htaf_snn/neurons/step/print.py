"""Prints a program as C: how many there are of each thing, and the bodies of its passes."""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from .graph import Program, Scope
from .operations import CUDA_OPERATIONS, LONG, OPERATIONS, TRUTH


def print_counts(program: Program) -> str:
    """Prints the step's numbers of states, parameters and the like for the drivers."""
    values = {f"{of.upper()}_VALUES": len(hoisted(program, of)) for of in ("layer", "neuron")}
    by_neuron = "".join(f"{int(program.parameters[k] == Scope.CHANNEL)}, " for k in program.learned)
    return "\n".join(
        [
            "namespace htaf_snn {",
            *(f"const int {name} = {value};" for name, value in (program.counts | values).items()),
            "// An array has at least one element.",
            "#define AT_LEAST_ONE(n) ((n) > 0 ? (n) : 1)",
            "// Whether each learned parameter has a value a neuron, or one for the layer.",
            f"const bool BY_NEURON[] = {{{by_neuron}false}};",
            "}",
        ]
    )


@functools.cache
def hoisted(program: Program, level: str) -> tuple[int, ...]:
    """The values of ``level`` that later levels read: computed once a layer, or once a neuron."""
    higher = {"layer": ("neuron", "step", "gradient"), "neuron": ("step", "gradient")}[level]
    read = {v for v in program.results if program.levels[v] == level}
    for value in program.needed(program.results):
        if program.levels[value] in higher:
            read |= {a for a in program.arguments_of(value) if program.levels[a] == level}
    return tuple(v for v in sorted(read) if program.ops[v].name != "constant")


_Arrays = Mapping[str, Sequence[int]]  # by the name of an array, the values in it


class _Body:
    """Statements that compute some values of a program, and the arrays that its leaves are in.

    Args:
        program: the step.
        writes: by the name of an array, the values that are written into it.
        reads: by the name of an array, the values that are read from it, in its order.
        texts: of the operations.
    """

    def __init__(
        self,
        program: Program,
        writes: _Arrays,
        reads: _Arrays,
        texts: Mapping[str, str] = OPERATIONS,
    ) -> None:
        self.program, self._texts = program, texts
        self.writes = [
            (array, k, v) for array, values in writes.items() for k, v in enumerate(values)
        ]
        given = {v: (array, k) for array, values in reads.items() for k, v in enumerate(values)}
        wanted = {value for _, _, value in self.writes}
        computed = program.needed(wanted, given=given)
        used = wanted.union(*map(program.arguments_of, computed))
        self.reads = [(array, k, v) for v, (array, k) in given.items() if v in used]
        self._computed = [v for v in computed if program.ops[v].name != "constant"]

    def declarations(self, place: Callable[[str, int], str], arrays: Collection[str]) -> list[str]:
        """Statements that read what is needed of ``arrays``, from where ``place`` says."""
        return [
            self._declared(value, place(array, k), stored=True)
            for array, k, value in self.reads
            if array in arrays
        ]

    def statements(self) -> list[str]:
        """One a line, each value after those that it is computed from."""
        return [
            self._declared(
                value,
                self._texts[self.program.ops[value].name].format(
                    *map(self._text, self.program.arguments_of(value))
                ),
            )
            for value in self._computed
        ]

    def stores(self, store: Callable[[str, int, str], str]) -> list[str]:
        """Statements that write the results, which are numbers."""
        return [
            store(array, k, self._text(v) + (" ? R(1) : R(0)" if self._is_truth(v) else ""))
            for array, k, v in self.writes
        ]

    def _is_truth(self, value: int) -> bool:
        return self.program.ops[value].name in TRUTH

    def _declared(self, value: int, text: str, stored: bool = False) -> str:
        if not self._is_truth(value):
            return f"const R a{value} = {text};"
        return f"const bool a{value} = {text}{' != R(0)' if stored else ''};"

    def _text(self, value: int) -> str:
        op = self.program.ops[value]
        return f"R({op.args[0]!r})" if op.name == "constant" else f"a{value}"


def _leaves(program: Program, name: str, numbers: Iterable[int] | None = None) -> list[int]:
    """The values of a leaf's name, by number; -1 where the step does not read it."""
    found = {op.args[0]: value for value, op in enumerate(program.ops) if op.name == name}
    if numbers is None:
        numbers = range(int(max(found, default=-1)) + 1)
    return [found.get(k, -1) for k in numbers]


def _place(array: str, k: int) -> str:
    return f"{array}[{k}]"


def _store(array: str, k: int, text: str) -> str:
    return f"{array}[{k}] {'+=' if array == 'gp' else '='} {text};"


def _function(name: str, arguments: str, body: _Body) -> str:
    arrays = {array for array, _, _ in body.reads}
    lines = [*body.declarations(_place, arrays), *body.statements(), *body.stores(_store)]
    return "\n".join(
        [f"HTAF_FN void {name}({arguments}) {{", *(f"    {line}" for line in lines), "}"]
    )


def print_hoisted(program: Program) -> str:
    """Prints what is computed once a layer or once a neuron, before the time loop."""
    by_letter = {
        letter: [k for k, found in enumerate(program.parameters) if found == letter]
        for letter in Scope
    }
    layer, neuron = hoisted(program, "layer"), hoisted(program, "neuron")
    numbers = [
        *_leaves(program, "argument"),
        *_leaves(program, "parameter", by_letter[Scope.LAYER]),
    ]
    each = _leaves(program, "parameter", by_letter[Scope.CHANNEL])
    return "\n".join(
        [
            "namespace htaf_snn {",
            "// Of the numbers n, what the layer's neurons share, u; of their parameters p, c.",
            _function(
                "layer_values", "const double* n, R* u",
                _Body(program, {"u": layer}, {"n": numbers}),
            ),
            _function(
                "neuron_values", "const R* u, const R* p, R* c",
                _Body(program, {"c": neuron}, {"u": layer, "p": each}),
            ),
            "}",
        ]
    )  # fmt: skip


def _passes(program: Program) -> dict[str, tuple[_Arrays, _Arrays]]:
    """The three passes over a step: what each writes, and what it reads.

    Forward, for the outputs; forward again, recording what backward needs; backward.
    """
    states, inputs = program.forward[program.outputs :], program.inputs
    gradients = program.backward
    shared = {
        "u": hoisted(program, "layer"),
        "c": hoisted(program, "neuron"),
        "x": _leaves(program, "x"),
    }
    forward = {**shared, "s": _leaves(program, "state")}
    backward = {
        **shared,
        "k": program.kept,
        "go": _leaves(program, "grad_output"),
        "gs": _leaves(program, "grad_state"),
    }
    writes = {
        "gx": gradients[:inputs],
        "gs": gradients[inputs : inputs + program.states],
        "gp": gradients[inputs + program.states :],
    }
    return {
        "forward": ({"o": program.forward[: program.outputs], "s": states}, forward),
        "record": ({"k": program.kept, "s": states}, forward),
        "backward": (writes, backward),
    }


def print_cuda_passes(program: Program, hardware: bool = True) -> str:
    """The passes for one neuron, on small arrays that a compiler keeps in registers.

    Args:
        program: the step.
        hardware: whether in float, so that a GPU's own functions are used.
    """
    texts = CUDA_OPERATIONS if hardware else OPERATIONS
    arguments = {
        "forward": "const R* u, const R* c, const R* x, R* s, R* o",
        "record": "const R* u, const R* c, const R* x, R* s, R* k",
        "backward": "const R* u, const R* c, const R* x, const R* k, const R* go, "
        "R* gs, R* gx, R* gp",
    }  # fmt: skip
    functions = [
        _function(f"{name}_step", arguments[name], _Body(program, writes, reads, texts))
        for name, (writes, reads) in _passes(program).items()
    ]
    return "\n".join(["namespace htaf_snn {", *functions, "}"])


def _stages(program: Program, writes: _Arrays, reads: _Arrays) -> list[_Body]:
    """A pass as loops one after the other, in none of which long operations wait for others.

    A processor looks a few hundred instructions ahead. Where two exponentials wait for each other
    these are two or three elements, and it idles; in two loops it sees twice as many. A loop hands
    values to those after it in arrays of its own: b0_0, b0_1, ..., those of the second b1_0, ...
    """
    wanted = {v for values in writes.values() for v in values}
    known = {v for values in reads.values() for v in values}
    known |= {v for v, op in enumerate(program.ops) if op.name == "constant"}
    computed = program.needed(wanted, given=known)
    depth = dict.fromkeys(known, 0)  # how many long operations a value has waited for
    for value in computed:
        before = max((depth[a] for a in program.arguments_of(value)), default=0)
        depth[value] = before + (program.ops[value].name in LONG)
    stages = []
    for stage in range(max((depth[v] for v in computed), default=0)):
        later = [v for v in computed if depth[v] > stage]
        needed = wanted.union(*map(program.arguments_of, later)) - known
        handed = sorted(program.fewest([v for v in needed if depth[v] <= stage], known))
        if handed:
            stages.append(_Body(program, {f"b{stage}_": handed}, reads))
        reads = {**reads, f"b{stage}_": handed}
        known |= set(handed)
    return [*stages, _Body(program, writes, reads)]


_OF_THE_INPUT = ("x", "go", "o", "gx")  # arrays of the input's type; the others are the state's


def print_cpu_passes(program: Program) -> str:
    """The passes for a row of neurons: vector loops over the arrays of a `Row`."""

    def load(array: str, k: int) -> str:
        return f"R(load({array}{k} + i))" if array in _OF_THE_INPUT else f"{array}{k}[i]"

    def store(array: str, k: int, text: str) -> str:
        if array in _OF_THE_INPUT:
            return f"store({array}{k} + i, {text});"
        return f"{array}{k}[i] {'+=' if array == 'gp' else '='} {text};"

    def place(array: str, k: int) -> str:
        if array.startswith("b"):
            return f"alignas(64) R {array}{k}[BLOCK];"
        constant = "const " if array in ("x", "go", "c") else ""
        kind = "X" if array in _OF_THE_INPUT else "R"
        return f"{constant}{kind}* __restrict {array}{k} = row.{array}[{k}] + from;"

    lines = ["namespace htaf_snn {", _ROW]
    for name, (writes, reads) in _passes(program).items():
        stages = _stages(program, writes, reads)
        used = dict.fromkeys(
            (a, k) for body in stages for a, k, _ in (*body.reads, *body.writes) if a != "u"
        )
        arrays = {array for array, _ in used}
        lines += [
            f"NOINLINE void {name}_row(const R* u, const Row& row, i64 from, i64 len) {{",
            "    (void)u;",
            *(f"    {place(a, k)}" for a, k in used),
        ]
        for body in stages:
            lines += [
                "    {",
                *(f"        {line}" for line in body.declarations(_place, {"u"})),
                "#pragma omp simd",
                "        for (i64 i = 0; i < len; ++i) {",
                *(f"            {line}" for line in body.declarations(load, arrays)),
                *(f"            {line}" for line in (*body.statements(), *body.stores(store))),
                "        }",
                "    }",
            ]
        lines.append("}")
    return "\n".join([*lines, "}"])


_ROW = """\
#define NOINLINE static __attribute__((noinline))

const i64 BLOCK = 256;  // most elements of a row that are worked on at once

// Where a row's arrays begin: inputs, outputs, states, what is kept, values of neurons, gradients.
struct Row {
    const X *x[AT_LEAST_ONE(INPUTS)], *go[AT_LEAST_ONE(OUTPUTS)];
    X *o[AT_LEAST_ONE(OUTPUTS)], *gx[AT_LEAST_ONE(INPUTS)];
    R *s[AT_LEAST_ONE(STATES)], *gs[AT_LEAST_ONE(STATES)], *k[AT_LEAST_ONE(KEPT)];
    R *c[AT_LEAST_ONE(NEURON_VALUES)], *gp[AT_LEAST_ONE(LEARNED)];
};
"""
