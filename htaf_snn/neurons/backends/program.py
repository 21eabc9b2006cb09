"""A traced step as a list of operations: `Graph` builds and simplifies it, `Program` holds it."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

Argument = int | float

# What an operation is in C, {0}, {1} and {2} being its arguments. R is the state's type.
REAL = {
    "neg": "-{0}", "abs": "abs({0})", "sign": "sign({0})", "reciprocal": "R(1) / {0}",
    "exp": "exp({0})", "exp_m1": "expm1({0})", "log": "log({0})", "log1p": "log1p({0})",
    "sqrt": "sqrt({0})", "sin": "sin({0})", "cos": "cos({0})", "tan": "tan({0})",
    "asin": "asin({0})", "acos": "acos({0})", "atan": "atan({0})", "sinh": "sinh({0})",
    "cosh": "cosh({0})", "tanh": "tanh({0})", "erf": "erf({0})", "erfc": "erfc({0})",
    "sigmoid": "sigmoid({0})", "sigmoid_derivative": "sigmoid_derivative({0})",
    "floor": "floor({0})", "ceil": "ceil({0})", "round": "rint({0})", "trunc": "trunc({0})",
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}",
    "pow": "pow({0}, {1})", "atan2": "atan2({0}, {1})", "fmod": "fmod({0}, {1})",
    "minimum": "minimum({0}, {1})", "maximum": "maximum({0}, {1})",
    "where": "{0} ? {1} : {2}", "real": "{0} ? R(1) : R(0)",
}  # fmt: skip
TRUTH = {
    "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}", "ge": "{0} >= {1}",
    "eq": "{0} == {1}", "ne": "{0} != {1}",
    "and": "{0} & {1}", "or": "{0} | {1}", "xor": "{0} != {1}", "not": "!{0}",
}  # fmt: skip
OPERATIONS = REAL | TRUTH
# What a step reads, by number: of the inputs, states, parameters, literals that are arguments of
# the kernel, and incoming gradients. A constant's argument is its value.
LEAVES = ("x", "state", "parameter", "argument", "grad_output", "grad_state", "constant")

# Literals that formulas are made of stay in the text; any other is an argument of the kernel, so
# that layers that differ in such a number share one.
_IN_THE_TEXT = (0.0, 1.0, 2.0, 0.5, 4.0, -1.0, -2.0, -0.5)
_FOLDED: dict[str, Callable[..., float]] = {
    "neg": lambda a: -a, "add": lambda a, b: a + b, "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b, "reciprocal": lambda a: 1 / a if a else math.copysign(math.inf, a),
}  # fmt: skip


_LEVELS = ("layer", "neuron", "step", "gradient")


class Op(NamedTuple):
    """An operation on earlier values, or a leaf with its number or value."""

    name: str
    args: tuple[Argument, ...]


class Graph:
    """Operations in order, each once; what is simpler is put in the place of what was asked.

    A number is rewritten only into one that is equal but for rounding, NaN and infinity included.
    """

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self._known: dict[Op, int] = {}
        self.uniform: set[int] = set()  # values that are one number for the whole layer

    def leaf(self, name: str, number: Argument, uniform: bool = False) -> int:
        """The value of a leaf; ``uniform`` if it is one number for the whole layer."""
        return self._put(Op(name, (number,)), uniform or name in ("argument", "constant"))

    def constant(self, value: float) -> int:
        return self.leaf("constant", float(value))

    def add(self, name: str, *args: int) -> int:
        """The value of an operation on earlier values."""
        literals = [self._literal(a) for a in args]
        if name in _FOLDED and None not in literals:
            return self.constant(_FOLDED[name](*literals))
        simpler = getattr(self, f"_simpler_{name}", None)
        found: int | None = simpler(*args) if simpler else None
        if found is not None:
            return found
        return self._put(Op(name, args), all(a in self.uniform for a in args))

    def is_truth(self, value: int) -> bool:
        """Whether a value is true or false, not a number."""
        return self.ops[value].name in TRUTH

    def _put(self, op: Op, uniform: bool) -> int:
        key = Op(op.name, tuple(map(repr, op.args)))  # type: ignore[arg-type]  # -0.0 is not 0.0
        if key not in self._known:
            self._known[key] = len(self.ops)
            if uniform:
                self.uniform.add(len(self.ops))
            self.ops.append(op)
        return self._known[key]

    def _literal(self, value: int) -> float | None:
        op = self.ops[value]
        return op.args[0] if op.name == "constant" else None

    def _argument_of(self, name: str, value: int) -> int | None:
        op = self.ops[value]
        return int(op.args[0]) if op.name == name else None

    def _simpler_neg(self, a: int) -> int | None:
        return self._argument_of("neg", a)

    def _simpler_add(self, a: int, b: int) -> int | None:
        if self._literal(a) == 0:
            return b
        if self._literal(b) == 0:
            return a
        if (negated := self._argument_of("neg", b)) is not None:
            return self.add("sub", a, negated)
        if (negated := self._argument_of("neg", a)) is not None:
            return self.add("sub", b, negated)
        return None

    def _simpler_sub(self, a: int, b: int) -> int | None:
        if self._literal(b) == 0:
            return a
        if self._literal(a) == 0:
            return self.add("neg", b)
        if (negated := self._argument_of("neg", b)) is not None:
            return self.add("add", a, negated)
        return None

    def _simpler_mul(self, a: int, b: int) -> int | None:
        for one, other in ((a, b), (b, a)):
            if self._literal(one) == 1:
                return other
            if self._literal(one) == -1:
                return self.add("neg", other)
            z = self._argument_of("sigmoid", one)
            if z is None:
                continue
            # sigmoid(z) sigmoid(-z), or s (1 - s): one exponential, and right in both tails.
            mirrored = self._argument_of("sigmoid", other)
            rest = self.ops[other]
            if (mirrored is not None and self.add("neg", z) == mirrored) or (
                rest.name == "sub" and self._literal(int(rest.args[0])) == 1 and rest.args[1] == one
            ):
                return self.add("sigmoid_derivative", z)
        for one, other in ((a, b), (b, a)):
            if (negated := self._argument_of("neg", one)) is not None:
                return self.add("neg", self.add("mul", negated, other))
        return None

    def _simpler_div(self, a: int, b: int) -> int | None:
        if b in self.uniform:  # a division a layer, instead of one a neuron and step
            return self.add("mul", a, self.add("reciprocal", b))
        return self.add("reciprocal", b) if self._literal(a) == 1 else None

    def _simpler_where(self, condition: int, a: int, b: int) -> int | None:
        if a == b:
            return a
        if self._literal(a) == 1 and self._literal(b) == 0:
            return self.add("real", condition)
        return None

    def _simpler_ne(self, a: int, b: int) -> int | None:
        truth = self._argument_of("real", a)
        return truth if truth is not None and self._literal(b) == 0 else None


@dataclass(frozen=True, eq=False)  # compared by identity: kernels are found by it at each call
class Program:
    """A step and its vector-Jacobian product.

    Attributes:
        inputs: how many sequences it reads.
        states: how many states it carries.
        parameters: a letter for each: "u" one number for the layer, "n" one a neuron or channel.
        outputs: how many sequences it puts out.
        learned: the numbers of the parameters that get a gradient.
        ops: the operations, each after its arguments.
        results: the values of the outputs and next states, then of the gradients of the inputs,
            the states and the learned parameters, of one neuron each.
    """

    inputs: int
    states: int
    parameters: str
    outputs: int
    learned: tuple[int, ...]
    ops: tuple[Op, ...]
    results: tuple[int, ...]

    def encode(self) -> str:
        """The program as a string, which is what the operators take; `decode` reads it."""
        return json.dumps(
            [self.inputs, self.states, self.parameters, self.outputs, self.learned,
             [[op.name, *op.args] for op in self.ops], self.results],
            separators=(",", ":"),
        )  # fmt: skip

    @property
    def forward(self) -> tuple[int, ...]:
        """The outputs and next states."""
        return self.results[: self.outputs + self.states]

    @property
    def backward(self) -> tuple[int, ...]:
        """The gradients of the inputs, states and learned parameters."""
        return self.results[self.outputs + self.states :]

    @functools.cached_property
    def arguments(self) -> int:
        """How many numbers the kernel takes, beside the parameters."""
        return sum(op.name == "argument" for op in self.ops)

    @functools.cached_property
    def levels(self) -> tuple[str, ...]:
        """What each value depends on.

        "layer" numbers alone; "neuron" parameters of neurons too; "step" inputs and states too;
        "gradient" the incoming gradients too.
        """
        found: list[str] = []
        for op in self.ops:
            if op.name in ("x", "state"):
                found.append("step")
            elif op.name in ("grad_output", "grad_state"):
                found.append("gradient")
            elif op.name == "parameter" and self.parameters[int(op.args[0])] == "n":
                found.append("neuron")
            elif op.name in LEAVES:
                found.append("layer")
            else:
                found.append(max((found[int(a)] for a in op.args), key=_LEVELS.index))
        return tuple(found)

    def arguments_of(self, value: int) -> tuple[int, ...]:
        """The values that a value is computed from at once."""
        op = self.ops[value]
        return () if op.name in LEAVES else tuple(map(int, op.args))

    def needed(self, wanted: Collection[int], given: Collection[int] = ()) -> list[int]:
        """The values that ``wanted`` are computed from, in order, where ``given`` are known."""
        seen: set[int] = set()
        waiting = list(wanted)
        while waiting:
            value = waiting.pop()
            if value in seen or value in given:
                continue
            seen.add(value)
            waiting += self.arguments_of(value)
        return sorted(seen)

    def fewest(self, values: Collection[int], known: Collection[int]) -> set[int]:
        """Those of ``values`` that one cheap operation does not make of the rest and ``known``."""
        found = set(values)
        for value in sorted(values, reverse=True):
            cheap = self.ops[value].name in ("add", "sub", "mul", "neg", "real")
            if cheap and set(self.arguments_of(value)) <= (found | set(known)) - {value}:
                found.remove(value)
        return found

    @functools.cached_property
    def kept(self) -> tuple[int, ...]:
        """What the recording pass keeps of each step for the backward pass: the frontier.

        The values that do not depend on an incoming gradient and that others, which do, read;
        less those that one cheap operation makes of the rest.
        """

        def steps(value: int) -> set[int]:
            return {a for a in self.arguments_of(value) if self.levels[a] == "step"}

        inputs = {v for v, op in enumerate(self.ops) if op.name == "x"}  # read once more
        frontier = {v for v in self.backward if self.levels[v] == "step"}
        for value in self.needed(self.backward):
            if self.levels[value] == "gradient":
                frontier |= steps(value)
        known = inputs | {v for v, level in enumerate(self.levels) if level in ("layer", "neuron")}
        frontier = self.fewest(frontier, known)
        return tuple(sorted(v for v in frontier if self.ops[v].name != "x"))


@functools.lru_cache(maxsize=1024)
def normalised(text: str) -> str:
    """An encoded step that reads ``(x - center) * scale + shift`` where the given one reads x.

    The three are its last parameters, one a channel; the last two are learned, so that their
    gradients are summed while the backward pass runs.
    """
    program = decode(text)
    graph, first = Graph(), len(program.parameters)
    center, scale, shift = (graph.leaf("parameter", first + k) for k in range(3))
    centered = graph.add("sub", graph.leaf("x", 0), center)
    new: list[int] = []
    for op in program.ops:
        if op == Op("x", (0,)):
            new.append(graph.add("add", graph.add("mul", centered, scale), shift))
        elif op.name in LEAVES:
            uniform = op.name == "parameter" and program.parameters[int(op.args[0])] == "u"
            new.append(graph.leaf(op.name, op.args[0], uniform))
        else:
            new.append(graph.add(op.name, *(new[int(a)] for a in op.args)))
    results = [new[r] for r in program.results]
    grad = results[program.outputs + program.states]
    results[program.outputs + program.states] = graph.add("mul", grad, scale)
    results += [graph.add("mul", grad, centered), grad]
    return dataclasses.replace(
        program,
        parameters=program.parameters + "nnn",
        learned=(*program.learned, first + 1, first + 2),
        ops=tuple(graph.ops),
        results=tuple(results),
    ).encode()


@functools.lru_cache(maxsize=1024)
def decode(text: str) -> Program:
    """The program that `Program.encode` wrote.

    Raises:
        ValueError: it is not one. What is decoded is compiled, so nothing is taken on trust.
    """
    try:
        inputs, states, parameters, outputs, learned, ops, results = json.loads(text)
        program = Program(
            inputs, states, parameters, outputs, tuple(learned),
            tuple(Op(name, tuple(args)) for name, *args in ops), tuple(results),
        )  # fmt: skip
        known = all(_valid(program, i, op) for i, op in enumerate(program.ops))
        counts = all(type(n) is int and 0 <= n < 100 for n in (inputs, states, outputs))
        total = outputs + 2 * states + inputs + len(learned)
        if not (
            known
            and counts
            and set(parameters) <= set("un")
            and all(0 <= p < len(parameters) for p in learned)
            and len(results) == total
            and all(type(r) is int and 0 <= r < len(program.ops) for r in results)
        ):
            raise ValueError("a number is out of range")
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{text[:80]!r} is not a traced step: {error}") from error
    return program


def _valid(program: Program, at: int, op: Op) -> bool:
    if op.name == "constant":
        return len(op.args) == 1 and type(op.args[0]) is float
    if op.name in LEAVES:
        limits = {
            "x": program.inputs, "state": program.states, "grad_state": program.states,
            "grad_output": program.outputs, "parameter": len(program.parameters), "argument": 1000,
        }  # fmt: skip
        (number,) = op.args
        return type(number) is int and 0 <= number < limits[op.name]
    arity = sum(f"{{{k}}}" in OPERATIONS[op.name] for k in range(3))
    return len(op.args) == arity and all(type(a) is int and 0 <= a < at for a in op.args)


def simplify(program: Program) -> tuple[Program, tuple[float, ...]]:
    """The program that is compiled: less to keep, nothing unused, its literals taken out.

    Returns:
        the program and the values of its arguments.
    """
    program = _dropped(program)
    collected = _dropped(_collected(program))
    if len(collected.kept) <= len(program.kept):
        program = collected
    values: list[float] = []
    ops = []
    for op in program.ops:
        if op.name == "constant" and op.args[0] not in _IN_THE_TEXT:
            values.append(float(op.args[0]))
            op = Op("argument", (len(values) - 1,))
        ops.append(op)
    return dataclasses.replace(program, ops=tuple(ops)), tuple(values)


def _collected(program: Program) -> Program:
    """The backward pass as sums of gradients times what is known, as few of these as can be.

    A value that depends on the incoming gradients is linear in them. One that is read once is
    carried as such a sum into its reader, ``(g - v h) d + v c`` becoming ``g d + v (c - h d)``, so
    that the recording pass computes the factors and keeps them instead of what they are made of.
    """
    uses = collections.Counter(program.results)
    for value in program.needed(program.results):
        uses.update(program.arguments_of(value))
    graph, level = Graph(), program.levels
    new: dict[int, int] = {}  # the values as they are now
    sums: dict[int, dict[int, int]] = {}  # of a value, the factor of each gradient, as they are now
    one = graph.constant(1.0)

    def total(parts: dict[int, int]) -> int:
        terms = [graph.add("mul", g, factor) for g, factor in parts.items()]
        return functools.reduce(functools.partial(graph.add, "add"), terms or [graph.constant(0)])

    def known(value: int) -> int:
        if value not in new:
            new[value] = total(sums[value])
            sums[value] = {new[value]: one}
        return new[value]

    def parts_of(name: str, args: tuple[int, ...]) -> dict[int, int] | None:
        is_gradient = [level[a] == "gradient" for a in args]
        if name == "neg":
            return {g: graph.add("neg", f) for g, f in sums[args[0]].items()}
        if name == "mul" and is_gradient.count(True) == 1:
            gradient, factor = args if is_gradient[0] else args[::-1]
            return {g: graph.add("mul", f, new[factor]) for g, f in sums[gradient].items()}
        if name in ("add", "sub") and all(is_gradient):
            found = dict(sums[args[0]])
            for g, f in sums[args[1]].items():
                zero = graph.constant(0.0)
                found[g] = (
                    graph.add(name, found.get(g, zero), f) if g in found or name == "sub" else f
                )
            return found
        return None

    for value, op in enumerate(program.ops):
        if op.name in LEAVES:
            uniform = op.name == "parameter" and program.parameters[int(op.args[0])] == "u"
            new[value] = graph.leaf(op.name, op.args[0], uniform)
            sums[value] = {new[value]: one}
            continue
        args = program.arguments_of(value)
        parts = parts_of(op.name, args) if level[value] == "gradient" else None
        if parts is None:
            new[value] = graph.add(op.name, *map(known, args))
            sums[value] = {new[value]: one}
        else:
            sums[value] = {g: f for g, f in parts.items() if graph.ops[f] != Op("constant", (0.0,))}
            if uses[value] > 1:
                known(value)
    results = tuple(known(r) for r in program.results)
    return dataclasses.replace(program, ops=tuple(graph.ops), results=results)


def _dropped(program: Program) -> Program:
    """Without the values that no result needs."""
    needed = program.needed(program.results)
    place = {old: i for i, old in enumerate(needed)}
    ops = tuple(
        op if op.name in LEAVES else Op(op.name, tuple(place[int(a)] for a in op.args))
        for op in map(program.ops.__getitem__, needed)
    )
    results = tuple(place[r] for r in program.results)
    return dataclasses.replace(program, ops=ops, results=results)
