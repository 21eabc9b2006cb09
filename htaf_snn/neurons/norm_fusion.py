"""Batch norms that the neurons behind them compute within their kernel: which may, and when."""

from __future__ import annotations

import collections
import dis
import inspect
import sys
import traceback
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from spikingjelly.activation_based.layer import SeqToANNContainer
from torch import Tensor, fx, nn
from torch.compiler import is_dynamo_compiling
from torch.nn.modules.batchnorm import _BatchNorm

from . import torch_state
from .base import BackendNode
from .batch_norm import AveragedNorm, average_norms, norm_class
from .decide import compile_obstacle
from .kernels.norm import Norm
from .resolve import Snapshot
from .traced import users_classes

_DIMENSIONS = {"1d": (2, 3), "2d": (4,), "3d": (5,)}  # of what a norm of torch's takes
_MOST_PROOFS = 8  # of one norm: what changes all the time is not looked at for ever
_MOST_BRANCHES = 8  # on one path through a forward
_CALL = 3  # frames from a module's forward to that of the module that called it


class DeferredNorm(AveragedNorm):
    """A batch norm whose output goes to neurons of ours alone, and which lets them compute it.

    Listed before a class of torch's or SpikingJelly's. Where the neurons are to compute it, it
    passes its input on and tells them. Else it computes what that class does: where its caller is
    not the module whose forward was followed, or that module changed since; where a hook watches
    the norm or the neurons; where torch compiles or anything listens to it; and on a GPU, but for
    `gpu`. Where their kernel can't compute it, the neurons ask for its output.

    Attributes:
        gpu: whether the neurons compute it on a GPU too, if its statistics are of one process.
    """

    gpu = False

    def forward(self, x: Tensor) -> Tensor:
        if is_dynamo_compiling():
            return self.compute(x)
        frame = _caller(sys._getframe())
        for proof in self.__dict__.get("proof", ()):
            if not proof.is_stale() and proof.holds_in(frame):
                break
        else:
            proof = self._proven_anew(frame)
        if (
            proof is None
            or not (x.device.type == "cpu" or self._is_fused_on(x.device))
            or not proof.reaches_reader(x)
        ):
            return self.compute(x)
        channel = 2 if getattr(self, "step_mode", "s") == "m" else 1
        proof.reader._resolved.waiting = (self, x, x.shape[channel:])
        return x

    def _is_fused_on(self, device: torch.device) -> bool:
        together = isinstance(self, nn.SyncBatchNorm) and _world() > 1
        return device.type == "cuda" and self.gpu and not together

    def compute(self, x: Tensor) -> Tensor:
        """The output, as the class behind this one computes it."""
        return super().forward(x)

    def _proven_anew(self, frame: Any) -> Proof | None:
        """A proof from the modules that are running, as after a copy or a change of them."""
        tries = self.__dict__.get("proofs", 0)
        self.__dict__["proofs"] = tries + 1
        start, entered = frame, set[int]()
        found: Proof | str = _OPEN
        while frame is not None and tries < _MOST_PROOFS and found == _OPEN:
            owner = _module_of(frame)
            if not isinstance(owner, nn.Module):
                break
            found = _followed(owner, entered, {id(self)}).get(id(self), "")
            if isinstance(found, Proof) and found.holds_in(start):
                held = self.__dict__.get("proof", ())
                self.__dict__["proof"] = (found, *(p for p in held if not p.is_stale()))
                return found
            entered.add(id(owner))
            frame = _caller(frame)
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("proof", "proofs")}

    def described(self) -> Norm:
        """Returns its arguments for the neurons' kernel, with running statistics in training."""
        batch = self.training or self.running_mean is None
        group = None
        if batch and isinstance(self, nn.SyncBatchNorm) and _world() > 1:
            group = self.process_group or torch.distributed.group.WORLD
        running: tuple[Any, ...] = ()
        if self.running_mean is not None:
            running = (self.running_mean, self.running_var, self.num_batches_tracked)
        momentum = float(self.momentum or 0.0)  # the least share of the newest batch
        return Norm(self.eps, momentum, batch, running, self.training and bool(running), group)

    def can_be_fused(self, x: Tensor, multi: bool, text: str) -> bool:
        """Returns True if the kernel of neurons that are given ``x`` can compute it."""
        state = torch.float64 if x.dtype == torch.float64 else torch.float32
        channel = 2 if multi else 1
        dimensions = _DIMENSIONS.get(type(self).__name__[-2:], (2, 3, 4, 5))
        held = (self.weight, self.bias, self.running_mean, self.running_var)
        return (
            x.ndim - channel + 1 in dimensions
            and x.shape[channel] == self.num_features
            and x.numel() > self.num_features  # more than one, which has no variance, a channel
            and all(t is None or (t.dtype == state and t.is_contiguous()) for t in held)
            and (x.is_cuda or compile_obstacle(text, x.dtype, normed=True) is None)
        )


class Proof:
    """The proof that a norm's output has one reader, and the state of the modules it holds for.

    Attributes:
        owners: the modules whose forwards call each other, from the norm's own to the one that
            calls the reader, each with the code of its forward.
        reader: the neurons.
        copies: whether what lies between copies where a tensor is not contiguous.
        snapshot: of the owners, and of users' modules within.
    """

    def __init__(self, owners: Sequence[tuple[nn.Module, Any]], reader: Any, copies: bool) -> None:
        self.owners, self.reader, self.copies = owners, reader, copies
        called = list(dict.fromkeys(owner for owner, _ in owners))
        # What a forward branches on is its module's own, or of a module that a user wrote within.
        within = [m for owner in called for m in owner.children() if users_classes(type(m))]
        ignored = {"training", "v_seq", "state_seqs"}
        self.snapshot = Snapshot([*called, *within], [], ignored)

    def is_stale(self) -> bool:
        """Returns True if the owners changed since their forwards were followed."""
        changed = self.snapshot.changed()
        return changed is None or not self.snapshot.ignored.issuperset(changed)

    def holds_in(self, frame: Any) -> bool:
        """Returns True if the owners' forwards, as they were followed, run in ``frame``."""
        for owner, code in self.owners:
            if (
                frame is None or frame.f_code is not code or _module_of(frame) is not owner
                or owner.training is not self.owners[0][0].training
            ):  # fmt: skip
                return False
            frame = _caller(frame)
        return True

    def reaches_reader(self, x: Tensor) -> bool:
        """Returns True if the reader is given ``x``, or a view of it, and nothing sees that."""
        own = self.reader
        return not (
            type(x) is not Tensor or torch_state.listens()
            or (self.copies and not x.is_contiguous())
            or own._forward_hooks or own._forward_pre_hooks
            or own._backward_hooks or own._backward_pre_hooks
        )  # fmt: skip


def _module_of(frame: Any) -> Any:
    """The first argument of the function that a frame runs."""
    names = frame.f_code.co_varnames
    return frame.f_locals.get(names[0]) if names else None


def _caller(frame: Any) -> Any:
    """The frame of the forward that called the module whose forward ``frame`` is."""
    for _ in range(_CALL):
        frame = None if frame is None else frame.f_back
    return frame


def _world() -> int:
    of = torch.distributed
    return of.get_world_size() if of.is_available() and of.is_initialized() else 1


def fuse_norms(net: nn.Module, gpu: bool = False) -> dict[str, str]:
    """Has the norms that feed fused neurons alone be computed within these, in place.

    All batch norms become an `AveragedNorm`. Norms that were fused before take ``gpu``.

    Each module's own forward is followed symbolically, in training and in evaluation and along
    every branch. Its children are taken as they are, but for those that put out what a norm does.

    Args:
        net: a network whose neurons are ours.
        gpu: have GPUs do so too. Whether that is faster there has not been measured yet.

    Returns:
        by the name of each batch norm that stays as it is, the reason.
    """
    names: dict[int, list[str]] = collections.defaultdict(list)
    norms: dict[int, nn.Module] = {}
    for name, module in net.named_modules(remove_duplicate=False):
        if isinstance(module, _BatchNorm) and not isinstance(module, DeferredNorm):
            norms[id(module)] = module
            names[id(module)].append(name)
    left = dict.fromkeys(norms, "no forward that could be followed calls it")
    entered: set[int] = set()
    containers = list(net.modules())[::-1]  # children first
    if not any(isinstance(m, BackendNode) for m in containers) or _is_meta(net):
        containers = []  # nothing reads a norm, or the network is made to be looked at
    for container in containers:
        for key, found in _followed(container, entered, norms.keys()).items():
            if found == _OPEN:
                entered.add(id(container))
            made = norm_class(type(norms[key]), DeferredNorm)
            if len(names[key]) > 1:
                found = "it stands in several places"
            elif made is None and not isinstance(found, str):
                found = f"{type(norms[key]).__name__} is not a plain batch norm"
            if isinstance(found, str):
                left[key] = found
            elif made is not None:
                norm = norms.pop(key)
                norm.__class__ = made
                norm.__dict__["proof"] = (found,)
                left.pop(key)
    average_norms(net)
    for module in net.modules():
        if isinstance(module, DeferredNorm):
            module.gpu = gpu
    return {names[key][0]: reason for key, reason in left.items()}


def _is_meta(net: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in net.parameters())


_OPEN = "output reads its output"  # of the module that was followed: its parent may tell more
# The operations between a norm and neurons that keep the order of all elements; which may copy.
_VIEWS = {"unflatten": False, "view": False, "reshape": True, "flatten": True, "contiguous": True}


class _Tracer(fx.Tracer):
    """Follows a forward along one path.

    Args:
        entered: the modules whose forwards are followed too, by id.
        path: which way it goes at each branch on what is known at run time alone; it is made longer
            where it ends.
    """

    def __init__(self, entered: Collection[int], path: list[bool]) -> None:
        super().__init__()
        self._entered, self._path, self._branches = entered, path, 0

    def is_leaf_module(self, _m: nn.Module, _name: str) -> bool:
        return True

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if id(m) in self._entered:
            return m.forward(*args, **kwargs)  # without its hooks, which are for tensors
        return super().call_module(m, forward, args, kwargs)

    def to_bool(self, obj: fx.Proxy) -> bool:
        if self._branches == _MOST_BRANCHES:
            return super().to_bool(obj)  # raises
        if self._branches == len(self._path):
            self._path.append(True)
        self._branches += 1
        return self._path[self._branches - 1]


def _graphs(container: nn.Module, entered: Collection[int]) -> Iterator[fx.Graph]:
    """The graph of each path through a module's forward, but for those on which it raises."""
    path: list[bool] = []
    within = [m for m in container.modules() if m is container or id(m) in entered]
    trained = [m.training for m in within]
    try:
        for training in (False, True):
            for module in within:
                module.training = training
            while True:
                try:
                    yield _Tracer(entered, path).trace(container)
                except Exception as error:
                    if not (path and _raises_itself(error)):
                        raise
                while path and not path[-1]:
                    path.pop()
                if not path:
                    break
                path[-1] = False
    finally:
        for module, before in zip(within, trained, strict=True):
            module.training = before


def _raises_itself(error: Exception) -> bool:
    """Returns True if a module's forward has the ``raise`` or ``assert`` that an error is from."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    code, owner = frame.f_code, _module_of(frame)
    is_forward = isinstance(owner, nn.Module) and code is _code(type(owner))
    return is_forward and code.co_code[frame.f_lasti] == dis.opmap["RAISE_VARARGS"]


def _code(kind: Any) -> Any:
    return getattr(inspect.unwrap(kind.forward), "__code__", None)


def _reach(module: nn.Module, entered: Collection[int], owners: Any = ()) -> Iterator[Any]:
    """The children of a module and of those that are entered, and whose forwards call each."""
    own = (module, _code(type(module)))
    inner = ((module, _code(nn.Sequential)),) if isinstance(module, SeqToANNContainer) else ()
    owners = (*inner, own, *owners)  # a container's forward calls that of its base
    for child in module.children():
        yield child, owners
        if id(child) in entered:
            yield from _reach(child, entered, owners)


def _followed(
    container: nn.Module, entered: Collection[int], wanted: Collection[int]
) -> dict[int, Proof | str]:
    """The norms of ``wanted`` that a module's forward calls: who reads their output, or why not."""
    reach = {id(m): owners for m, owners in _reach(container, entered) if id(m) in wanted}
    if not reach:
        return {}
    found: dict[int, Any] = {}
    try:
        for graph in _graphs(container, entered):
            calls: dict[int, list[fx.Node]] = collections.defaultdict(list)
            for node in graph.nodes:
                if node.op == "call_module":
                    calls[id(container.get_submodule(str(node.target)))].append(node)
            for key in reach.keys() & calls.keys():
                made = _reader(container, calls[key])
                if found.setdefault(key, made) != made:
                    found[key] = "who reads its output depends on a branch"
    except Exception as error:  # a forward may do anything; then its norms stay
        first = str(error).partition("\n")[0]
        reason = f"the forward of {type(container).__name__} can't be followed: {first}"
        return dict.fromkeys(reach, reason)
    return {
        key: made if isinstance(made, str) else Proof(reach[key], *made)
        for key, made in found.items()
    }


def _reader(container: nn.Module, calls: list[fx.Node]) -> tuple[nn.Module, bool] | str:
    """The neurons that alone read the output of a norm, called so, and if a view may copy it.

    Else the reason why not.
    """
    if len(calls) > 1:
        return "it is called more than once"
    node, copies = calls[0], False
    while len(node.users) == 1 and _is_view(reader := next(iter(node.users)), node):
        node, copies = reader, copies or _VIEWS[str(reader.target)]
    if len(node.users) != 1:
        return f"{len(node.users)} others read its output"
    reader = next(iter(node.users))
    if reader.op != "call_module":
        return f"{reader.name} reads its output"
    neuron = container.get_submodule(str(reader.target))
    if not isinstance(neuron, BackendNode) or reader.args != (node,) or reader.kwargs:
        return f"{type(neuron).__name__} reads its output"
    return neuron, copies


def _is_view(node: fx.Node, of: fx.Node) -> bool:
    """Returns True for an operation of `_VIEWS` on a tensor, not one to a dtype or a layout."""
    if node.op != "call_method" or node.target not in _VIEWS or node.args[0] is not of:
        return False
    if node.target == "contiguous":
        return len(node.args) == 1 and not node.kwargs
    if node.target == "view":
        sizes = node.args[1:]
        return not node.kwargs and (len(sizes) > 1 or isinstance(sizes[0], tuple | list))
    return True
