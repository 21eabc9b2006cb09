"""What a node's layer needs, resolved once and kept: its traced step, and where its numbers are."""

from __future__ import annotations

import functools
import itertools
import logging
import operator
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ...surrogates.spike_function import SpikeFunction
from . import cpu, cuda, modes
from .compiler import find_compiler
from .emit import X_TYPES
from .errors import BackendUnavailableError
from .program import Op, Program, decode, normalised
from .trace import NotElementwiseError, trace

Backend = Literal["auto", "torch", "cpu", "cupy"]

_logger = logging.getLogger(__name__)

# Attributes of a module that no step reads: torch's own, and what the host records.
_NOT_READ = {*vars(nn.Module()), "_memories", "_memories_rv", "_plan", "_backend", "v_seq",
             "state_seqs", "_step_mode", "_key"}  # fmt: skip


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
    letters: str = ""
    numbers: tuple[float, ...] = ()
    scalars: tuple[tuple[int, str], ...] = ()


@dataclass
class Plan:
    """A node's step with its own numbers, as long as no attribute of the node changes."""

    name: str  # of the neuron's class, and its spike function's
    traced: Traced
    modules: list[nn.Module]
    snapshot: list[list[Any]]
    gradients: list[tuple[Tensor, bool]]  # of each tensor that it may read
    numbers: Sequence[float]
    shape_parameter: Callable[[Tensor, int], Tensor] | None  # for a step of so many dimensions


def plan(node: nn.Module) -> Plan:
    """The node's plan, made anew where an attribute of it or of a module within changed."""
    known: Plan | None = node.__dict__.get("_plan")
    # A replica of torch's DataParallel carries its original's plan.
    if known is not None and known.modules[0] is node and _unchanged(known):
        return known
    modules = list(node.modules())
    tensors = list(_tensors(modules))
    key = tuple(_signature(m) for m in modules)
    traced = _traced_of(node, modules, tensors, key)
    functions = [type(m).__name__ for m in modules if isinstance(m, SurrogateFunctionBase)]
    own = Plan(
        " with ".join([type(node).__name__, *functions[:1]]),
        traced,
        modules,
        [],
        [(t, t.requires_grad) for _, _, t in tensors],
        [*traced.numbers, *(float(getattr(modules[m], name)) for m, name in traced.scalars)],
        getattr(node, "shape_parameter", None),
    )
    if traced.program is not None or not modes.transforming():  # which may be why it failed
        node.__dict__["_plan"] = own
        own.snapshot += [list(part) for part in _parts(modules)]
    return own


# Nodes by their key, for `plan_in_graph`.
_NODES: weakref.WeakValueDictionary[int, nn.Module] = weakref.WeakValueDictionary()
_keys = itertools.count()


def register(node: nn.Module) -> int:
    """A key by which a node is found again while torch.compile traces it."""
    key = next(_keys)
    _NODES[key] = node
    return key


def plan_in_graph(node: Any) -> Plan:
    """`plan`, for torch.compile: a constant, guarded by the attributes that it is made of."""
    modules, values = [], [str(node._key)]
    for path, names in _attributes(str(node._key)):
        module = node
        for part in path:
            module = getattr(module, part)
        modules.append(module)
        values += [f"{getattr(module, name)}" for name in names]
    name, numbers, *traced = _constants("\n".join(values))
    return Plan(name, Traced(*traced), modules, [], [], numbers,
                getattr(node, "shape_parameter", None))  # fmt: skip


@modes.constant_result
def _attributes(key: str) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """Of a node and the modules within: the path, and what a trace depends on that is no tensor."""
    found = []
    for path, module in _NODES[int(key)].named_modules():
        names = [
            name
            for name, value in module.__dict__.items()
            if name not in _NOT_READ and isinstance(value, bool | int | float | str | None)
        ]
        found.append((tuple(path.split(".")) if path else (), ("training", *names)))
    return tuple(found)


@modes.constant_result
def _constants(text: str) -> tuple[Any, ...]:
    own = plan(_NODES[int(text.partition("\n")[0])])
    traced = own.traced
    return (own.name, tuple(own.numbers), traced.program, traced.reason, traced.parameters,
            traced.letters, traced.numbers, traced.scalars)  # fmt: skip


def _parts(modules: Sequence[nn.Module]) -> Iterator[Any]:
    for module in modules:
        own = module.__dict__
        yield own.values()
        for name in ("_parameters", "_buffers", "_modules"):
            if own[name]:
                yield own[name].values()


def _unchanged(known: Plan) -> bool:
    for seen, now in itertools.zip_longest(known.snapshot, _parts(known.modules), fillvalue=()):
        if len(seen) != len(now) or not all(map(operator.is_, seen, now)):
            return False
    return all(tensor.requires_grad == learned for tensor, learned in known.gradients)


def _tensors(modules: Sequence[nn.Module]) -> Iterator[tuple[int, str, Tensor]]:
    """The tensors that a step may read: of which module, by what name."""
    for number, module in enumerate(modules):
        for group in (module._parameters, module._buffers, module.__dict__):
            for name, value in group.items():
                if isinstance(value, Tensor) and name not in _NOT_READ:
                    yield number, name, value


def _signature(module: nn.Module) -> tuple[Any, ...]:
    """What a trace of the module depends on, but for the values of its tensors.

    The parameters of a spike function that are numbers are left out too: a schedule changes them.
    """
    free = module.parameter_names if isinstance(module, SpikeFunction) else ()
    found: list[Any] = [type(module), module.training]
    for group in (module.__dict__, module._parameters, module._buffers):
        for name, value in group.items():
            if name in _NOT_READ:
                continue
            if isinstance(value, Tensor):
                found.append((name, _letter(value), value.requires_grad))
            elif name in free and isinstance(value, float):
                found.append(name)
            else:
                found.append((name, _frozen(value)))
    return tuple(found)


def _frozen(value: Any) -> Any:
    """A value to compare: containers by what they hold, -0.0 and 0.0, 1 and True told apart."""
    if isinstance(value, list | tuple):
        return (type(value), *map(_frozen, value))
    if isinstance(value, dict):
        return (dict, *((k, _frozen(v)) for k, v in value.items()))
    if isinstance(value, bool | int | float | str | None):
        return type(value), repr(value)
    return _Identity(value)


class _Identity:
    """A value that is told from others by identity, and kept, so that no other takes its place."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _letter(tensor: Tensor) -> str:
    return "u" if tensor.numel() == 1 else "n"


_TRACED: dict[tuple[Any, ...], Traced] = {}
_MOST_TRACED = 512


def _traced_of(
    node: nn.Module,
    modules: Sequence[nn.Module],
    tensors: Sequence[tuple[int, str, Tensor]],
    key: tuple[Any, ...],
) -> Traced:
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
        found = _TRACED.get(key) or _trace(node, modules, tensors, free)
        if found.program is not None or not modes.transforming():
            _TRACED[key] = found
        return found

    found = traced(key, scalars)
    if found.program is None and scalars:  # perhaps its Python code asks for their values
        found = traced((*key, *(getattr(modules[m], name) for m, name in scalars)), [])
    return found


def _trace(
    node: nn.Module,
    modules: Sequence[nn.Module],
    tensors: Sequence[tuple[int, str, Tensor]],
    scalars: Sequence[tuple[int, str]],
) -> Traced:
    places = [(m, name) for m, name, _ in tensors] + list(scalars)
    letters = "".join(_letter(t) for _, _, t in tensors) + "u" * len(scalars)
    learned = [k for k, (_, _, t) in enumerate(tensors) if t.requires_grad]
    states = len(node._memories)  # type: ignore[arg-type]  # a SpikingJelly MemoryModule

    def step(xs: Sequence[Tensor], ss: Sequence[Tensor], ps: Sequence[Tensor]) -> Any:
        twin = stand_in(modules, dict(zip(places, ps, strict=True)))
        return twin.single_step_functional_forward(tuple(xs), tuple(ss))

    try:
        with (
            modes.without(),
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
    ops = []
    for op in program.ops:
        if op.name == "parameter":
            k = int(op.args[0])
            op = (
                Op("parameter", (kept.index(k),))
                if k < count
                else Op("argument", (len(numbers) + scalars.index(k),))
            )
        ops.append(op)
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
    return Traced(
        program.encode(), None, tuple(places[k] for k in kept), program.parameters, numbers,
        tuple(places[k] for k in scalars),
    )  # fmt: skip


def stand_in(modules: Sequence[nn.Module], values: dict[tuple[int, str], Tensor]) -> Any:
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


def check_backend(backend: str) -> Backend:
    """Returns ``backend`` if it exists and this machine has what it needs.

    Raises:
        ValueError: an unknown backend.
        BackendUnavailableError: it cannot run here.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"`backend` (={backend!r}) must be one of {', '.join(get_args(Backend))}")
    if backend == "cpu":
        find_compiler()
    if backend == "cupy" and (reason := cuda.unavailable()):
        raise BackendUnavailableError(f"backend 'cupy' can't run here: {reason}")
    if backend == "auto":
        _toolchain_obstacle("cuda" if torch.cuda.is_available() else "cpu")
    return backend  # type: ignore[return-value]  # narrowed by the first check


def fused(own: Plan, backend: Backend, x: Sequence[Tensor], states: Sequence[Any]) -> bool:
    """Whether a layer that "torch" was not asked for runs on a kernel: for "auto", if it can.

    Raises:
        BackendUnavailableError: the backend that was asked for can't run it.
    """
    reason = _obstacle(own, backend, x, states)
    if backend != "auto":
        if reason is not None:
            raise BackendUnavailableError(
                f"backend {backend!r} can't run this layer: {reason}; use backend='auto' or 'torch'"
            )
        return True
    if not torch.compiler.is_compiling():
        _say_once(own.name, reason, "cupy" if x[0].is_cuda else "cpu")
    return reason is None


def _obstacle(
    own: Plan, backend: Backend, x: Sequence[Tensor], states: Sequence[Any]
) -> str | None:
    first = x[0]
    needs = {"cpu": "cpu", "cupy": "cuda"}.get(backend, first.device.type)
    if first.device.type != needs or needs not in ("cpu", "cuda"):
        return f"the input is on {first.device}"
    if own.traced.program is None:
        return own.traced.reason
    if first.dtype not in X_TYPES:
        return f"there is no kernel for {first.dtype}"
    if not all(isinstance(s, Tensor) and s.shape == first.shape[1:] for s in states):
        return "a state is not a tensor like one step of the input"
    if any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in own.modules[1:]
    ):
        return "a hook or monitor watches a module within the neuron"
    if "n" in own.traced.letters and not all(
        _broadcasts(p, first) for p in parameters_of(own, first)
    ):
        return "a parameter does not broadcast to the input"  # torch explains
    reason = modes.obstacle(first, named=backend != "auto")
    if reason is not None or torch.compiler.is_compiling():
        return reason or _toolchain_obstacles.get(needs)  # known since the neuron was made
    return _toolchain_obstacle(needs) or (
        _compile_obstacle(own.traced.program, first.dtype) if needs == "cpu" else None
    )


def parameters_of(own: Plan, x: Tensor) -> list[Tensor]:
    """The parameters of the program, shaped to broadcast to one step of ``x`` [T, N, *]."""
    found = []
    for number, name in own.traced.parameters:
        module = own.modules[number]
        value: Tensor = getattr(module, name)
        if isinstance(module, SpikeFunction):
            value = channelwise(value, x.ndim - 1)
        elif own.shape_parameter is not None:
            value = own.shape_parameter(value, x.ndim - 1)
        found.append(value)
    return found


def channelwise(value: Tensor, dimensions: int) -> Tensor:
    """A parameter [C] of the channels, shaped for a step of that many dimensions, [N, C, *]."""
    if value.ndim == 1 and value.numel() > 1 and dimensions > 2:
        return value.view(-1, *[1] * (dimensions - 2))
    return value


def _broadcasts(parameter: Tensor, x: Tensor) -> bool:
    shape = x.shape[1:]
    if parameter.numel() == 1:
        return True
    if parameter.ndim > len(shape):
        return False
    sizes = zip(reversed(parameter.shape), reversed(shape), strict=False)
    return all(p in (1, n) for p, n in sizes)


@functools.cache
def _compile_obstacle(program: str, dtype: torch.dtype) -> str | None:
    try:
        cpu.kernel(decode(program), dtype)
    except BackendUnavailableError as error:
        return str(error)
    return None


@functools.cache
def normed_obstacle(program: str, dtype: torch.dtype) -> str | None:
    """Why the CPU's compiler can't make a step with its batch norm, or None."""
    try:
        cpu.norm_kernel(dtype)
    except BackendUnavailableError as error:
        return str(error)
    return _compile_obstacle(normalised(program), dtype)


_toolchain_obstacles: dict[str, str | None] = {}


def _toolchain_obstacle(device: str) -> str | None:
    if device not in _toolchain_obstacles:
        _toolchain_obstacles[device] = cuda.unavailable() if device == "cuda" else _no_compiler()
    return _toolchain_obstacles[device]


def _no_compiler() -> str | None:
    try:
        find_compiler()
    except BackendUnavailableError as error:
        return str(error)
    return None


@functools.cache
def _say_once(name: str, reason: str | None, kernel: str) -> None:
    if reason is None:
        _logger.info("backend 'auto' runs %r for %s", kernel, name)
    else:
        _logger.info("backend 'auto' runs 'torch' for %s: %s", name, reason)
