"""Which batch norms of a network feed neurons of ours, and nothing else."""

from __future__ import annotations

import collections
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .base import BackendNode
from .batch_norm import AveragedNorm, average_norms, host_class, norm_class
from .norm import DeferredNorm


def fuse_norms(net: nn.Module) -> dict[str, str]:
    """Has the norms that feed fused neurons alone be computed within these, in place.

    All batch norms become an `AveragedNorm`.

    Each module's own forward is followed symbolically, its children being taken as they are, but
    for `nn.Sequential`.

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
        reach = {id(m) for m in _reach(container)} & norms.keys()
        if not reach:
            continue
        try:
            graph = _Tracer().trace(container)
        except Exception as error:  # a forward may do anything; then its norms stay
            first = str(error).partition("\n")[0]
            left |= dict.fromkeys(
                reach, f"the forward of {type(container).__name__} can't be followed: {first}"
            )
            continue
        calls: dict[int, list[fx.Node]] = collections.defaultdict(list)
        for node in graph.nodes:
            if node.op == "call_module":
                calls[id(container.get_submodule(node.target))].append(node)
        for key in reach & calls.keys():
            reason = _obstacle(container, calls[key])
            if len(names[key]) > 1:
                reason = "it stands in several places"
            made = norm_class(type(norms[key]), DeferredNorm)
            if reason is None and made is None:
                reason = f"{type(norms[key]).__name__} is not a plain batch norm"
            if reason is not None:
                left[key] = reason
            elif made is not None:
                norm = norms.pop(key)
                norm.__class__ = made
                (reader,) = calls[key][0].users
                norm.__dict__["reader"] = container.get_submodule(str(reader.target))
                left.pop(key)
    average_norms(net)
    return {names[key][0]: reason for key, reason in left.items()}


def unfuse_norms(net: nn.Module) -> int:
    """The inverse of `fuse_norms`; returns how many norms it changed."""
    found = [m for m in net.modules() if isinstance(m, AveragedNorm)]
    for norm in found:
        norm.__dict__.pop("reader", None)
        norm.__class__ = host_class(norm)  # type: ignore[assignment]
    return len(found)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, _name: str) -> bool:
        return type(m) is not nn.Sequential


def _reach(module: nn.Module) -> list[nn.Module]:
    """The children of a module, and those of `nn.Sequential`s among them."""
    found = []
    for child in module.children():
        found += _reach(child) if type(child) is nn.Sequential else [child]
    return found


def _obstacle(container: nn.Module, calls: list[fx.Node]) -> str | None:
    """Why the output of a norm, called so, is not for neurons of ours alone."""
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
    return None
