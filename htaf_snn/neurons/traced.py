"""From a node to its traced step: what a trace depends on, and where the step's numbers are."""

import itertools
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from types import FunctionType
from typing import Any

import torch
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..surrogates.spike_function import SpikeFunction
from . import torch_state
from .step.graph import Op, Program, Scope
from .step.trace import NotElementwiseError, trace

# Attributes of a module that no step reads: torch's own, and what the host records.
NOT_READ = {*vars(nn.Module()), "_memories", "_memories_rv", "_resolved", "_backend", "v_seq",
            "state_seqs", "_step_mode", "_key", "proof", "proofs"}  # fmt: skip


HARDNESS = "_hardness"  # the tensor of a spike function that is a number of the layer


@dataclass(frozen=True)
class Traced:
    """A step of some neurons that differ in numbers alone.

    Attributes:
        program: the step as the operators take it; None where it can't be fused.
        reason: why it can't.
        parameters: where the program's parameters are: of which module, by what name.
        numbers: the values of its first arguments; those of ``scalars`` come after them.
        scalars: where the numbers are that may change without a new trace.
    """

    program: str | None = None
    reason: str | None = None
    parameters: tuple[tuple[int, str], ...] = ()
    numbers: tuple[float, ...] = ()
    scalars: tuple[tuple[int, str], ...] = ()


@dataclass
class NodeStep:
    """A node's traced step, with its own numbers as they are now.

    Attributes:
        name: of the neuron's class, and its spike function's.
        traced: the step.
        modules: the node and those within.
        numbers: the values of the program's arguments.
        shape_parameter: shapes a parameter for a step of so many dimensions; None leaves it.
    """

    name: str
    traced: Traced
    modules: list[nn.Module]
    numbers: Sequence[float]
    shape_parameter: Callable[[Tensor, int], Tensor] | None

    def tensors(self) -> list[Tensor]:
        """The program's parameters, as they are."""
        return [getattr(self.modules[m], name) for m, name in self.traced.parameters]

    def parameters(self, dimensions: int) -> list[Tensor]:
        """The program's parameters, shaped to broadcast to a step of so many dimensions."""
        found = []
        for number, name in self.traced.parameters:
            module = self.modules[number]
            value: Tensor = getattr(module, name)
            if isinstance(module, SpikeFunction):
                value = channelwise(value, dimensions)
            elif self.shape_parameter is not None:
                value = self.shape_parameter(value, dimensions)
            found.append(value)
        return found


def step_of(node: nn.Module) -> NodeStep:
    """The node's step, traced where no node like it was."""
    modules = list(node.modules())
    traced = _traced_of(node, modules)
    functions = [type(m).__name__ for m in modules if isinstance(m, SurrogateFunctionBase)]
    return NodeStep(
        " with ".join([type(node).__name__, *functions[:1]]),
        traced,
        modules,
        [*traced.numbers, *(float(getattr(modules[m], name)) for m, name in traced.scalars)],
        getattr(node, "shape_parameter", None),
    )


# Nodes by their key, for `step_in_graph`.
_NODES: weakref.WeakValueDictionary[int, nn.Module] = weakref.WeakValueDictionary()
_keys = itertools.count()


def register(node: nn.Module) -> int:
    """A key by which a node is found again while torch.compile traces it."""
    key = next(_keys)
    _NODES[key] = node
    return key


def step_in_graph(node: Any) -> NodeStep:
    """`step_of`, for torch.compile: a constant, guarded by the attributes that it is made of."""
    modules, values = [], [str(node._key)]
    for path, names in _attributes(str(node._key)):
        module = node
        for part in path:
            module = getattr(module, part)
        modules.append(module)
        values += [f"{getattr(module, name)}" for name in names]
    name, numbers, *traced = _constants("\n".join(values))
    shape_parameter = getattr(node, "shape_parameter", None)
    return NodeStep(name, Traced(*traced), modules, numbers, shape_parameter)


@torch_state.constant_result
def _attributes(key: str) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """Returns, of a node and the modules within, the path and what a trace depends on."""
    found = []
    for path, module in _NODES[int(key)].named_modules():
        kinds = bool | int | float | str | None
        names = [name for name, value in _read(module) if isinstance(value, kinds)]
        found.append((tuple(path.split(".")) if path else (), ("training", *names)))
    return tuple(found)


@torch_state.constant_result
def _constants(text: str) -> tuple[Any, ...]:
    own = step_of(_NODES[int(text.partition("\n")[0])])
    return own.name, tuple(own.numbers), *astuple(own.traced)


def _read(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The attributes of a module that a step may read, by name."""
    for group in (module._parameters, module._buffers, module.__dict__):
        for name, value in group.items():
            if name not in NOT_READ:
                yield name, value


def _signature(module: nn.Module) -> tuple[Any, ...]:
    """Returns what a trace of the module depends on, but for the values of its tensors.

    The parameters of a spike function that are numbers are left out too: a schedule changes them.
    """
    free = module.parameter_names if isinstance(module, SpikeFunction) else ()
    found: list[Any] = [type(module), module.training]
    for name, value in _read(module):
        if isinstance(value, Tensor):
            found.append((name, _scope(value), value.requires_grad))
        elif name in free and isinstance(value, float):
            found.append(name)
        else:
            found.append((name, frozen(value)))
    for kind in users_classes(type(module)):
        found += [(name, frozen(value)) for name, value in vars(kind).items()]
    return tuple(found)


def users_classes(kind: type) -> list[type]:
    """The classes behind a class, and itself, that are neither torch's, SpikingJelly's nor ours."""
    libraries = ("torch.", "spikingjelly.", "htaf_snn.", "builtins")
    return [c for c in kind.__mro__ if not f"{c.__module__}.".startswith(libraries)]


_DEEPEST = 8


def is_mutable(value: object) -> bool:
    """Returns True if a value may be changed in place; it is then compared by `frozen`."""
    if isinstance(value, bool | int | float | complex | str | bytes | None | type | Tensor):
        return False
    if isinstance(value, tuple):
        return any(is_mutable(v) or isinstance(v, Tensor) for v in value)
    is_of_class = isinstance(value, staticmethod | classmethod | property)
    return not is_of_class and not isinstance(frozen(value), _Identity)


def frozen(value: Any, depth: int = 0) -> Any:
    """A value to compare: containers, arrays and objects by what they hold.

    -0.0 and 0.0, and 1 and True, are told apart; tensors by identity and version; whatever has
    nothing to look at, and functions, by identity.
    """
    if isinstance(value, bool | int | float | str | None):
        return type(value), repr(value)
    if isinstance(value, Tensor):
        return _Identity(value), 0 if value.is_inference() else value._version
    if depth < _DEEPEST and not isinstance(value, type | nn.Module | FunctionType):
        if isinstance(value, list | tuple | deque):
            return (type(value), *(frozen(v, depth + 1) for v in value))
        if isinstance(value, dict):
            return (dict, *((frozen(k, depth + 1), frozen(v, depth + 1)) for k, v in value.items()))
        if isinstance(value, set | frozenset):
            return type(value), frozenset(frozen(v, depth + 1) for v in value)
        if _is_buffer(value):
            return type(value), getattr(value, "shape", None), memoryview(value).tobytes()
        if held := _held(value):
            return _Identity(value), frozen(held, depth + 1)
    return _Identity(value)


def _held(value: object) -> dict[str, Any]:
    """The attributes of an object that are its own."""
    names = [n for c in type(value).__mro__ for n in getattr(c, "__slots__", ())]
    held = {n: getattr(value, n) for n in names if isinstance(n, str) and hasattr(value, n)}
    return held | getattr(value, "__dict__", {})


def _is_buffer(value: object) -> bool:
    """Returns True for an array of numbers."""
    try:
        return not memoryview(value).format.startswith("O")  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        return False


class _Identity:
    """A value that is told from others by identity, and kept, so that no other takes its place."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _scope(tensor: Tensor) -> Scope:
    return Scope.LAYER if tensor.numel() == 1 else Scope.CHANNEL


_TRACED: dict[tuple[Any, ...], Traced] = {}
_MOST_TRACED = 512


def _traced_of(node: nn.Module, modules: Sequence[nn.Module]) -> Traced:
    key = tuple(map(_signature, modules))
    scalars = [
        (number, name)
        for number, module in enumerate(modules)
        if isinstance(module, SpikeFunction)
        for name in module.parameter_names
        if isinstance(getattr(module, name), float)
    ]
    if len(_TRACED) >= _MOST_TRACED:
        _TRACED.clear()

    def traced(key: tuple[Any, ...], free: Sequence[tuple[int, str]]) -> Traced:
        found = _TRACED.get(key) or _trace(node, modules, free)
        if found.program is not None or not torch_state.listens():
            _TRACED[key] = found
        return found

    found = traced(key, scalars)
    if found.program is None and scalars:  # perhaps its Python code asks for their values
        found = traced((*key, *(getattr(modules[m], name) for m, name in scalars)), [])
    return found


def _trace(
    node: nn.Module, modules: Sequence[nn.Module], scalars: Sequence[tuple[int, str]]
) -> Traced:
    tensors = [
        (number, name, value)
        for number, module in enumerate(modules)
        for name, value in _read(module)
        if isinstance(value, Tensor)
    ]
    places = [(m, name) for m, name, _ in tensors] + list(scalars)
    letters = "".join(_scope(t) for _, _, t in tensors) + Scope.LAYER * len(scalars)
    learned = [k for k, (_, _, t) in enumerate(tensors) if t.requires_grad]
    states = len(node._memories)  # type: ignore[arg-type]  # a SpikingJelly MemoryModule

    def step(xs: Sequence[Tensor], ss: Sequence[Tensor], ps: Sequence[Tensor]) -> Any:
        twin = with_tensors(modules, dict(zip(places, ps, strict=True)))
        return twin.single_step_functional_forward(tuple(xs), tuple(ss))

    try:
        with (
            torch_state.no_dispatch_modes(),
            torch.inference_mode(False),
            torch.autocast("cpu", enabled=False),
            saved_tensors_hooks(lambda t: t, lambda t: t),  # not a checkpoint's, which runs the net
        ):
            program, numbers = trace(step, getattr(node, "inputs", 1), states, letters, learned)
    except NotElementwiseError as error:
        return Traced(reason=str(error))
    except Exception as error:  # a user's step may raise anything; torch then raises it again
        return Traced(reason=f"its step can't be traced: {type(error).__name__}: {error}")
    return _without_unused(program, places, numbers, len(tensors))


def _without_unused(
    program: Program, places: list[tuple[int, str]], numbers: tuple[float, ...], count: int
) -> Traced:
    """A traced step with the parameters that it reads; numbers among them become arguments."""
    read = sorted({int(op.args[0]) for op in program.ops if op.name == "parameter"})
    kept = [k for k in read if k < count]
    scalars = [k for k in read if k >= count]
    new = {k: Op("parameter", (place,)) for place, k in enumerate(kept)}
    new |= {k: Op("argument", (place,)) for place, k in enumerate(scalars, len(numbers))}
    ops = [new[int(op.args[0])] if op.name == "parameter" else op for op in program.ops]
    first = program.outputs + program.states + program.inputs + program.states
    gradients = dict(zip(program.learned, program.results[first:], strict=True))
    learned = [k for k in program.learned if k in kept]
    program = replace(
        program,
        parameters="".join(program.parameters[k] for k in kept),
        learned=tuple(kept.index(k) for k in learned),
        ops=tuple(ops),
        results=(*program.results[:first], *(gradients[k] for k in learned)),
    )
    parameters, free = (tuple(places[k] for k in own) for own in (kept, scalars))
    return Traced(program.encode(), None, parameters, numbers, free)


def with_tensors(modules: Sequence[nn.Module], values: dict[tuple[int, str], Tensor]) -> Any:
    """A copy of a module and those within, ``modules``, with other tensors for some attributes."""
    copies: dict[int, nn.Module] = {}
    for module in modules:
        copy = copies[id(module)] = object.__new__(type(module))
        copy.__dict__ = {
            **module.__dict__,
            **{name: dict(getattr(module, name)) for name in ("_parameters", "_buffers")},
        }
    for module in modules:
        own = copies[id(module)].__dict__
        own["_modules"] = {k: copies.get(id(m), m) for k, m in module._modules.items()}
    for (number, name), value in values.items():
        own = copies[id(modules[number])].__dict__
        for group in ("_parameters", "_buffers"):
            own[group].pop(name, None)
        own[name] = value
    return copies[id(modules[0])]


def channelwise(value: Tensor, dimensions: int) -> Tensor:
    """A parameter [C] of the channels, shaped for a step of that many dimensions, [N, C, *]."""
    if value.ndim == 1 and value.numel() > 1 and dimensions > 2:
        return value.view(-1, *[1] * (dimensions - 2))
    return value
