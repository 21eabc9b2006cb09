"""Batch norms that the neurons behind them compute within their kernel: which may, and when."""

from __future__ import annotations

import collections
import inspect
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.compiler import is_dynamo_compiling
from torch.nn.modules.batchnorm import _BatchNorm

from .base import BackendNode
from .batch_norm import AveragedNorm, average_norms, host_class, norm_class
from .decide import compile_obstacle
from .kernels.buffers import DTYPES
from .kernels.norm import Norm
from .resolve import Snapshot
from .traced import users_classes

_DIMENSIONS = {"1d": (2, 3), "2d": (4,), "3d": (5,)}  # of what a norm of torch's takes
_MOST_PROOFS = 8  # of one norm: what changes all the time is not looked at for ever
_CALL = 3  # frames from a module's forward to that of the module that called it


class DeferredNorm(AveragedNorm):
    """A batch norm whose output goes to neurons of ours alone, and which lets them compute it.

    Listed before a class of torch's or SpikingJelly's. Where the neurons are to compute it, it
    passes its input on and tells them. Else it computes what that class does: where its caller is
    not the module whose forward was followed, or that module changed since; where a hook watches
    the norm or the neurons; where torch compiles. Where anything else listens, and on a GPU, where
    cuDNN's norm and then the neurons take less time, the neurons ask for its output.
    """

    def forward(self, x: Tensor) -> Tensor:
        if is_dynamo_compiling():
            return self.compute(x)
        frame = _caller(sys._getframe())
        for proof in self.__dict__.get("proof", ()):
            if not proof.is_stale() and proof.holds_in(frame):
                break
        else:
            proof = self._proven_anew(frame)
        if proof is None or proof.is_watched():
            return self.compute(x)
        proof.reader._resolved.waiting = (self, x)
        return x

    def compute(self, x: Tensor) -> Tensor:
        """The output, as the class behind this one computes it."""
        made: Tensor = super().forward(x)
        return made

    def _proven_anew(self, frame: Any) -> Proof | None:
        """A proof from the modules that are running, as after a copy or a change of them."""
        tries = self.__dict__.get("proofs", 0)
        self.__dict__["proofs"] = tries + 1
        start = frame
        while frame is not None and tries < _MOST_PROOFS:
            owner = _module_of(frame)
            found = _followed(owner).get(id(self)) if isinstance(owner, nn.Module) else None
            if isinstance(found, Proof) and found.holds_in(start):
                held = self.__dict__.get("proof", ())
                self.__dict__["proof"] = (found, *(p for p in held if not p.is_stale()))
                return found
            frame = _caller(frame) if type(owner) is nn.Sequential else None
        return None

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

    def obstacle(self, x: Tensor, multi: bool, text: str | None) -> str | None:
        """Returns the reason why the neurons' kernel can't compute it on ``x``, or None."""
        state = torch.float64 if x.dtype == torch.float64 else torch.float32
        channel = 2 if multi else 1
        dimensions = _DIMENSIONS.get(type(self).__name__[-2:], (2, 3, 4, 5))
        held = (self.weight, self.bias, self.running_mean, self.running_var)
        if x.device.type != "cpu" or x.dtype not in DTYPES:
            return f"there is no kernel for {x.dtype} on {x.device}"
        if (getattr(self, "step_mode", "s") == "m") is not multi:
            return "its step mode is another than the neurons'"
        if x.ndim - channel + 1 not in dimensions or x.shape[channel] != self.num_features:
            return f"it takes no input of shape {tuple(x.shape)}"
        if any(t is not None and (t.dtype != state or not t.is_contiguous()) for t in held):
            return f"it has numbers of another type than {state}"
        if x.numel() <= self.num_features:
            return "there is no variance of one number a channel"
        assert text is not None
        return compile_obstacle(text, x.dtype, normed=True)


class Proof:
    """The proof that a norm's output has one reader, and the state of the modules it holds for.

    Attributes:
        owners: the modules whose forwards call each other, from the norm's own to the one that
            calls the reader.
        reader: the neurons.
        snapshot: of the owners, and of users' modules within.
    """

    def __init__(self, owners: Sequence[nn.Module], reader: Any) -> None:
        self.owners, self.reader = owners, reader
        # What a forward branches on is its module's own, or of a module that a user wrote within.
        within = [m for owner in owners for m in owner.children() if users_classes(type(m))]
        ignored = {"training", "v_seq", "state_seqs"}
        self.snapshot = Snapshot([*owners, *within], [], ignored)
        forwards: list[Any] = [inspect.unwrap(type(owner).forward) for owner in owners]
        self._codes = [forward.__code__ for forward in forwards]

    def is_stale(self) -> bool:
        """Returns True if the owners changed since their forwards were followed."""
        changed = self.snapshot.changed()
        return changed is None or not self.snapshot.ignored.issuperset(changed)

    def holds_in(self, frame: Any) -> bool:
        """Returns True if the owners' forwards run in and around ``frame``."""
        for owner, code in zip(self.owners, self._codes, strict=True):
            if frame is None or frame.f_code is not code or _module_of(frame) is not owner:
                return False
            frame = _caller(frame)
        return True

    def is_watched(self) -> bool:
        """Returns True if a hook sees what the reader is given, or that it is called."""
        own = self.reader
        return bool(
            own._forward_hooks or own._forward_pre_hooks
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


def fuse_norms(net: nn.Module) -> dict[str, str]:
    """Has the norms that feed fused neurons alone be computed within these, in place.

    All batch norms become an `AveragedNorm`.

    Each module's own forward is followed symbolically, in training and in evaluation, its children
    being taken as they are, but for `nn.Sequential`.

    Args:
        net: a network whose neurons are ours.

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
    for container in list(net.modules()):
        if not any(id(norm) in norms for norm, _ in _reach(container)):
            continue
        for key, found in _followed(container).items():
            if key not in norms:
                continue
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
    return {names[key][0]: reason for key, reason in left.items()}


def unfuse_norms(net: nn.Module) -> int:
    """The inverse of `fuse_norms`; returns how many norms it changed."""
    found = [m for m in net.modules() if isinstance(m, AveragedNorm)]
    for norm in found:
        for name in ("proof", "proofs"):
            norm.__dict__.pop(name, None)
        norm.__class__ = host_class(norm)  # type: ignore[assignment]
    return len(found)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, _name: str) -> bool:
        return type(m) is not nn.Sequential


def _reach(module: nn.Module, owners: tuple[nn.Module, ...] = ()) -> Iterator[Any]:
    """The children of a module and of `nn.Sequential`s among them, and who calls each."""
    owners = (module, *owners)
    for child in module.children():
        yield child, owners
        if type(child) is nn.Sequential:
            yield from _reach(child, owners)


def _followed(container: nn.Module) -> dict[int, Proof | str]:
    """The batch norms that a module's forward calls: for whom their output is, or the obstacle."""
    reach = {id(m): owners for m, owners in _reach(container) if isinstance(m, _BatchNorm)}
    found: dict[int, Proof | str] = {}
    trained = container.training
    try:
        for container.training in (not trained, trained):
            graph = _Tracer().trace(container)
            calls: dict[int, list[fx.Node]] = collections.defaultdict(list)
            for node in graph.nodes:
                if node.op == "call_module":
                    calls[id(container.get_submodule(str(node.target)))].append(node)
            for key in reach.keys() & calls.keys():
                reader = _reader(container, calls[key])
                if isinstance(found.get(key), str):
                    continue
                found[key] = reader if isinstance(reader, str) else Proof(reach[key], reader)
    except Exception as error:  # a forward may do anything; then its norms stay
        first = str(error).partition("\n")[0]
        reason = f"the forward of {type(container).__name__} can't be followed: {first}"
        return dict.fromkeys(reach, reason)
    finally:
        container.training = trained
    return found


def _reader(container: nn.Module, calls: list[fx.Node]) -> nn.Module | str:
    """The neurons that alone read the output of a norm, called so; or who else does."""
    if len(calls) > 1:
        return "it is called more than once"
    readers: list[Any] = list(calls[0].users)
    if len(readers) != 1:
        return f"{len(readers)} others read its output"
    (reader,) = readers
    if reader.op != "call_module":
        return f"{reader.name} reads its output"
    neuron = container.get_submodule(str(reader.target))
    if not isinstance(neuron, BackendNode) or reader.args != (calls[0],) or reader.kwargs:
        return f"{type(neuron).__name__} reads its output"
    return neuron
