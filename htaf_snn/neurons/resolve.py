"""The fast door: a node's call, decided once. `Resolved` is what it needs while nothing changes.

Where it is fresh and nothing listens to torch, a call is one comparison and one call of a kernel.
Else `decide.py`, the slow door, says whether a kernel may run, and why not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, compress, count
from operator import attrgetter, is_, is_not
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from . import torch_state
from .decide import broadcasts, fused
from .kernels.buffers import DTYPES, Words
from .kernels.layer import Layer, Neuron
from .kernels.norm import NormedCall
from .step.graph import Scope, decode
from .step.simplify import with_norm
from .torch_state import dispatch_modes, is_jit_tracing, transform
from .traced import HARDNESS, NOT_READ, NodeStep, frozen, is_mutable, step_of, users_classes

if TYPE_CHECKING:
    from .base import BackendNode
    from .norm_fusion import DeferredNorm

_learns = Tensor.requires_grad.__get__  # type: ignore[attr-defined]
_kind = attrgetter("requires_grad", "dtype", "shape", "device")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_MOST_SHAPES = 8  # of inputs that a `Resolved` remembers


class Snapshot:
    """A snapshot of every attribute of modules and of their users' classes.

    It is compared by identity, and what may be changed in place by what it holds.

    Args:
        modules: whose attributes count.
        hooked: those whose hooks count too.
        ignored: names of attributes that do not.
    """

    def __init__(
        self, modules: Sequence[nn.Module], hooked: Sequence[nn.Module], ignored: set[str]
    ) -> None:
        self.modules, self._types = modules, list(map(type, modules))
        self.dicts: list[Any] = []
        for module in modules:
            own = module.__dict__
            if type(module) is nn.Sequential:  # whose forward reads nothing else
                self.dicts.append(own["_modules"])
                continue
            self.dicts += [own, own["_parameters"], own["_buffers"], own["_modules"]]
            self.dicts += [own["_memories_rv"]] if "_memories_rv" in own else []
            self.dicts += map(vars, users_classes(type(module)))
        self.dicts += [module.__dict__[name] for module in hooked for name in _HOOKS]
        self._views = [group.values() for group in self.dicts]
        self._keys = tuple(chain.from_iterable(self.dicts))
        self.held = self.now()
        self.ignored = {k for k, name in enumerate(self._keys) if name in ignored}
        self._mutable = [
            (value, frozen(value))
            for name, value in zip(self._keys, self.held, strict=True)
            if name not in NOT_READ and not str(name).startswith("__") and is_mutable(value)
        ]

    def now(self) -> list[Any]:
        """The attributes as they are."""
        return list(chain.from_iterable(self._views))

    def changed(self) -> list[int] | None:
        """The places of attributes that are other objects now; None if more than that changed."""
        if (
            tuple(chain.from_iterable(self.dicts)) != self._keys
            or list(map(type, self.modules)) != self._types
        ):
            return None
        for value, known in self._mutable:
            if frozen(value) != known:
                return None
        now = chain.from_iterable(self._views)
        return list(compress(count(), map(is_not, now, self.held)))

    def place(self, module: int, name: str) -> int:
        """Returns the position of a module's attribute among those that are held."""
        wanted, at = self.modules[module].__dict__, 0
        for group in self.dicts:
            if group is wanted:
                return at + list(group).index(name)
            at += len(group)
        raise KeyError(name)


class Calls:
    """A node's resolved calls; neither copied nor pickled with it.

    Attributes:
        plain, normed: how it is called, without and with the batch norm before it.
        waiting: a batch norm that left its work to this node, the norm's input, and its sizes from
            the channels on.
        captured: how it was called when a CUDA graph was captured.
    """

    __slots__ = ("captured", "normed", "plain", "waiting")

    def __init__(self) -> None:
        self.captured: list[Resolved] = []
        self.plain: Resolved | None = None
        self.normed: Resolved | None = None
        self.waiting: tuple[DeferredNorm, Tensor, torch.Size] | None = None


class Resolved:
    """A node's kernel, constants and parameters, for inputs of one dtype on one device.

    Args:
        node: the node.
        step: its traced step.
        x: an input of the kind.
        multi: whether it has a dimension T.
        before: a batch norm that the kernel computes on the input; None if there is none.
    """

    def __init__(
        self, node: Any, step: NodeStep, x: Tensor, multi: bool, before: DeferredNorm | None = None
    ) -> None:
        assert step.traced.program is not None
        self.node, self.before, self.multi, self._step = node, before, multi, step
        self.is_plain = node._is_called_plainly()
        self.stores_v = getattr(node, "store_v_seq", False)
        self.stores_all = getattr(node, "store_state_seqs", False)
        self.sequences = multi and bool(self.stores_v or self.stores_all)
        self.rest = tuple(node._memories_rv.values())
        program = decode(step.traced.program)
        self._program = program if before is None else with_norm(program)
        self.outputs = program.outputs
        modules = [*step.modules, *([] if before is None else [before])]
        self._snapshot = Snapshot(modules, step.modules[1:], {"v_seq", "state_seqs"})
        self._numbers = list(step.numbers)
        self._free: dict[int, int] = {}  # by place in the snapshot, which number it is
        for k, place in enumerate(step.traced.scalars, start=len(step.traced.numbers)):
            self._free[self._snapshot.place(*place)] = k
        given, packed = step.tensors(), [name == HARDNESS for _, name in step.traced.parameters]
        for place, tensor, scope, is_number in zip(
            step.traced.parameters, given, program.parameters, packed, strict=True
        ):
            if is_number:
                self._free[self._snapshot.place(*place)] = len(self._numbers)
            if scope == Scope.LAYER:
                self._numbers.append(float(tensor) if is_number else 0.0)
        self._packed = packed
        self.tensors = tuple(t for t, p in zip(given, packed, strict=True) if not p)
        self._norm: Any = None if before is None else before.described()
        self._weights = () if before is None else (before.weight, before.bias)
        held = (*self._weights, *(() if self._norm is None else self._norm.running))
        self._watched = (*self.tensors, *(t for t in held if t is not None))
        self._kinds = list(map(_kind, self._watched)), list(map(Tensor.stride, self._watched))
        self._layers: dict[Any, Layer] = {}
        made = self._fitted(x)
        assert made is not None
        self._last = made

    def _fitted(self, x: Tensor) -> tuple[Layer, Words] | None:
        key = (x.shape, x.stride(), torch.get_num_threads())
        layer = self._layers.get(key)
        if layer is None:
            if not broadcasts(self._step, x.shape[1:] if self.multi else x.shape):
                return None  # torch explains
            if len(self._layers) >= _MOST_SHAPES:
                self._layers = {k: one for k, one in self._layers.items() if one.is_captured}
            shaped = self._step.parameters(x.ndim - self.multi)
            given = [None if p else t.detach() for t, p in zip(shaped, self._packed, strict=True)]
            rest = self.rest if all(type(r) is float for r in self.rest) else ()
            layer = Layer(self._program, x, self.multi, given, rest, self.before is not None)
            layer.keep(layer.head(self._numbers))
            self._layers[key] = layer
        self._last = made = layer, layer.head(self._numbers)
        return made

    @property
    def is_captured(self) -> bool:
        """Returns True if a CUDA graph reads its numbers."""
        return any(layer.is_captured for layer in self._layers.values())

    def refresh(self) -> bool:
        """Writes numbers that changed where replays read them; False if more than these changed."""
        changed = self._snapshot.changed()
        if changed is None or (changed and not self._take(changed)):
            return False
        for layer in self._layers.values():
            layer.keep(layer.head(self._numbers))
        return True

    def fresh(self, node: Any, x: Tensor, multi: bool, before: Any) -> tuple[Layer, Words] | None:
        """The layer for ``x`` and its constants, unless something changed or listens."""
        layer, head = self._last
        if (
            node is not self.node
            or multi is not self.multi
            or before is not self.before
            or type(x) is not Tensor
            or x.dtype is not layer.dtype
            or x.device != layer.device
            # as `torch_state.listens`, without its call
            or dispatch_modes()
            or transform() is not None
            or is_jit_tracing()
            or forward_ad._current_level >= 0
        ):
            return None
        changed = self._snapshot.changed()
        if changed is None:
            return None
        watched = self._watched  # a tensor may become another under its own name: x.data = y
        if watched and self._kinds != (
            list(map(_kind, watched)),
            list(map(Tensor.stride, watched)),
        ):
            return None
        if changed:
            if not self._take(changed):
                return None
            layer, head = self._last
        if (
            x.shape != layer.shape
            or x.stride() != layer.stride
            or torch.get_num_threads() != layer.threads
        ):
            return self._fitted(x)
        return layer, head

    def _take(self, changed: Sequence[int]) -> bool:
        """Takes over attributes that are numbers of the layer, if no others changed."""
        now = self._snapshot.now()
        numbers = self._numbers.copy()
        for place in changed:
            value = now[place]
            if place in self._free and type(value) is type(self._snapshot.held[place]):
                numbers[self._free[place]] = float(value)
            elif place not in self._snapshot.ignored:
                return False
        self._snapshot.held[:] = now
        self._numbers = numbers
        self._last = self._last[0], self._last[0].head(numbers)
        return True

    def states(self, node: Any, x: Tensor, layer: Layer) -> Sequence[Tensor] | None:
        """The first states as the kernel takes them; None where it can't."""
        held = tuple(node._memories.values())
        found = node.materialize_states((x,), held, "m" if self.multi else "s")
        if not layer.takes(found):
            return None
        if not torch.is_grad_enabled():
            return found
        # autograd can't keep what was carried from inference into training
        return [s.clone() if s.is_inference() else s for s in found]

    def run(
        self, ready: tuple[Layer, Words], inputs: Sequence[Tensor], states: Sequence[Tensor],
        at_rest: bool, sequences: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """The outputs, the last states, and if asked for the states after each step."""
        layer, head = ready
        of: Any = layer
        tensors: Any = (*inputs, *states, *self.tensors)
        if self.before is not None:
            if isinstance(self.before, nn.SyncBatchNorm):  # whose processes may be others now
                self._norm = self.before.described()
            of, tensors = NormedCall(layer, self._norm), (*self._weights, *tensors)
        elif not (torch.is_grad_enabled() and any(map(_learns, tensors))):
            return layer.forward(tensors, head, at_rest, sequences)
        return Neuron.apply(of, head, at_rest, sequences, *tensors)


def resolve(
    node: BackendNode, x: Tensor, multi: bool, before: DeferredNorm | None = None
) -> tuple[Resolved, tuple[Layer, Words]] | None:
    """Returns the node's resolved call for ``x``, its layer and constants; None for the slow door.

    Raises:
        BackendUnavailableError: the backend that was asked for can't run it.
    """
    calls = node._resolved
    found = calls.plain if before is None else calls.normed
    if found is not None and (ready := found.fresh(node, x, multi, before)) is not None:
        return found, ready
    if not torch_state.skips_dispatcher(x) or torch_state.listens() or x.dtype not in DTYPES:
        return None
    if node.backend == "torch" or (multi and not (x.ndim and x.shape[0])):
        return None
    step = step_of(node)
    text = step.traced.program
    if not fused(step, node.backend, x, multi) or text is None:
        return None
    last = found
    if before is None:
        found = calls.plain = Resolved(node, step, x, multi)
    elif not node._is_called_plainly() or not before.can_be_fused(x, multi, text):
        return None
    else:
        found = Resolved(node, step, x, multi, before)
        if found._last[0].channels != before.num_features:
            return None  # a parameter of the neurons varies along more than the channels
        calls.normed = found
    if last is not None and last.is_captured:
        calls.captured.append(last)
    return found, found._last


def refresh(net: nn.Module) -> None:
    """Lets replays of captured CUDA graphs see numbers that a schedule changed, such as hardness.

    Args:
        net: the network that was captured, in the mode, training or not, that it was captured in.

    Raises:
        RuntimeError: something else of a neuron changed, so that it is to be captured anew.
    """
    for name, module in net.named_modules():
        calls = module.__dict__.get("_resolved")
        known = [] if calls is None else [calls.plain, calls.normed, *calls.captured]
        captured = [one for one in known if one is not None and one.is_captured]
        done = [one.refresh() for one in captured or known[:2] if one is not None]
        if captured and not any(done):
            raise RuntimeError(
                f"neuron {name!r} changed in more than its numbers since a CUDA graph was "
                "captured; capture it anew"
            )


def call(node: BackendNode, x: Tensor, before: DeferredNorm | None = None) -> Any:
    """The output of a node that is called as `BackendNode` has it; None for the slow door.

    The node's states move on.
    """
    multi = node._step_mode == "m"
    resolved = node._resolved.plain if before is None else node._resolved.normed
    ready = None if resolved is None else resolved.fresh(node, x, multi, before)
    if ready is None:
        found = resolve(node, x, multi, before)
        if found is None:
            return None
        resolved, ready = found
    assert resolved is not None
    if not resolved.is_plain:
        return None
    memories, rest = node._memories, ready[0].rest
    at_rest = bool(rest) and all(map(is_, memories.values(), resolved.rest))
    states = rest if at_rest else resolved.states(node, x, ready[0])
    if states is None:
        return None
    made = resolved.run(ready, (x,), states, at_rest, resolved.sequences)
    first = resolved.outputs
    memories.update(zip(memories, made[first:], strict=False))
    if resolved.stores_v or resolved.stores_all:
        node._store(made[first:], resolved.sequences)
    return made[0] if first == 1 else made[:first]
