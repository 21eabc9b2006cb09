"""Simplifications of a traced step, as functions from program to program."""

import collections
import dataclasses
import functools

from .graph import LEAVES, Graph, Op, Program, Scope

# Literals that formulas are made of stay in the text; any other is an argument of the kernel, so
# that layers that differ in such a number share one.
_IN_THE_TEXT = (0.0, 1.0, 2.0, 0.5, 4.0, -1.0, -2.0, -0.5)


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
            uniform = op.name == "parameter" and program.parameters[int(op.args[0])] == Scope.LAYER
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


@functools.lru_cache(maxsize=1024)
def with_norm(program: Program) -> Program:
    """A step that reads ``(x - center) * scale + shift`` where the given one reads x.

    The three are its last parameters, one a channel; the last two are learned, so that their
    gradients are summed while the backward pass runs.
    """
    graph, first = Graph(), len(program.parameters)
    center, scale, shift = (graph.leaf("parameter", first + k) for k in range(3))
    centered = graph.add("sub", graph.leaf("x", 0), center)
    new: list[int] = []
    for op in program.ops:
        if op == Op("x", (0,)):
            new.append(graph.add("add", graph.add("mul", centered, scale), shift))
        elif op.name in LEAVES:
            uniform = op.name == "parameter" and program.parameters[int(op.args[0])] == Scope.LAYER
            new.append(graph.leaf(op.name, op.args[0], uniform))
        else:
            new.append(graph.add(op.name, *(new[int(a)] for a in op.args)))
    results = [new[r] for r in program.results]
    grad = results[program.outputs + program.states]
    results[program.outputs + program.states] = graph.add("mul", grad, scale)
    results += [graph.add("mul", grad, centered), grad]
    return dataclasses.replace(
        program,
        parameters=program.parameters + Scope.CHANNEL * 3,
        learned=(*program.learned, first + 1, first + 2),
        ops=tuple(graph.ops),
        results=tuple(results),
    )
