"""A traced step as a list of operations: `Graph` builds and simplifies it, `Program` holds it."""

import functools
import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from .operations import TRUTH

Argument = int | float

# What a step reads, by number: of the inputs, states, parameters, literals that are arguments of
# the kernel, and incoming gradients. A constant's argument is its value.
LEAVES = ("x", "state", "parameter", "argument", "grad_output", "grad_state", "constant")

_FOLDED: dict[str, Callable[..., float]] = {
    "neg": lambda a: -a, "add": lambda a, b: a + b, "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b, "reciprocal": lambda a: 1 / a if a else math.copysign(math.inf, a),
}  # fmt: skip


_LEVELS = ("layer", "neuron", "step", "gradient")


class Scope(StrEnum):
    """The scope of a parameter: one value a layer, or one a channel."""

    LAYER = "u"
    CHANNEL = "n"


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
        """Returns True for a value that is true or false, not a number."""
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
        parameters: the `Scope` of each, a letter.
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
    def counts(self) -> dict[str, int]:
        """Numbers of inputs, states and the rest, by the names that the C text has for them."""
        arguments = sum(op.name == "argument" for op in self.ops)
        return {
            "INPUTS": self.inputs,
            "STATES": self.states,
            "OUTPUTS": self.outputs,
            "KEPT": len(self.kept),
            "LEARNED": len(self.learned),
            "PARAMETERS": self.parameters.count(Scope.CHANNEL),
            "NUMBERS": arguments + self.parameters.count(Scope.LAYER),
        }

    @functools.cached_property
    def levels(self) -> tuple[str, ...]:
        """The level of each value: what it depends on.

        "layer" numbers alone; "neuron" parameters of neurons too; "step" inputs and states too;
        "gradient" the incoming gradients too.
        """
        found: list[str] = []
        for op in self.ops:
            if op.name in ("x", "state"):
                found.append("step")
            elif op.name in ("grad_output", "grad_state"):
                found.append("gradient")
            elif op.name == "parameter" and self.parameters[int(op.args[0])] == Scope.CHANNEL:
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
        """The values that the recording pass keeps of each step for the backward pass.

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
def decode(text: str) -> Program:
    """The program that `Program.encode` wrote; the same object for the same text."""
    inputs, states, parameters, outputs, learned, ops, results = json.loads(text)
    return Program(
        inputs, states, parameters, outputs, tuple(learned),
        tuple(Op(name, tuple(args)) for name, *args in ops), tuple(results),
    )  # fmt: skip
