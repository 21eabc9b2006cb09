"""The network that leaves: hard, on torch, as a flat graph of SpikingJelly's classes; its runs."""

import copy
import keyword
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from spikingjelly.activation_based import functional, surrogate
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize, prune, remove_weight_norm
from torch.nn.utils.weight_norm import WeightNorm

from ..models.parts import SpikingNetwork
from ..neurons import BackendNode, revert
from ..neurons.classes import ORIGINAL_OF
from ..neurons.host import is_neuron
from ..neurons.own import TensorConstants
from ..surrogates import SpikeFunction
from ..transfer import harden
from ..transfer.firing import hooked

# From frames [T, N, *] to logits [T, N, classes] and each neuron's spikes [T, N, *], by name.
Runs = Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]

_LEAVES = (
    "torch.nn.modules.",
    "spikingjelly.activation_based.layer.",
    "spikingjelly.activation_based.neuron.",
)


def hard_copy(net: nn.Module) -> nn.Module:
    """A copy on the CPU, in ``eval()``, that fires with the exact step and runs on torch."""
    functional.reset_net(net)
    computed = {  # by hooks (pruning, weight norm), from parameters: torch does not copy these
        id(value): value.detach().clone()
        for module in net.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    made = copy.deepcopy(net, computed).cpu().eval()
    _bake(made)
    harden(made)
    for module in made.modules():
        if isinstance(module, BackendNode):
            module.backend = "torch"
    if isinstance(made, SpikingNetwork):  # its layers, without its checks of the input's shape
        layers = {"features": made.features, "dropout": made.dropout, "read_out": made.read_out}
        made = nn.Sequential(OrderedDict(layers)).eval()
    return made


def _bake(net: nn.Module) -> None:
    """Makes weights that are computed of others (pruned, normed, parametrised) plain, in place."""
    for module in net.modules():
        if parametrize.is_parametrized(module):
            # Not torch's `remove_parametrizations`, which would take them off the class, and so off
            # the network that this is a copy of.
            names = list(module.parametrizations)  # type: ignore[arg-type]
            values = [getattr(module, name).detach() for name in names]
            module.__class__ = type(module).__bases__[0]
            del module.parametrizations
            for name, value in zip(names, values, strict=True):
                module.register_parameter(name, nn.Parameter(value))
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)
            elif isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)


def plain(net: nn.Module) -> fx.GraphModule:
    """A hard copy whose neurons and layers are SpikingJelly's and torch's own, as a flat graph.

    A layer's name is that in ``net`` with ``_`` for each dot, behind ``layer_`` where it is a
    number. Spike functions of ours, which are exact steps here, become `ATan`, whose step is the
    same. An error names the neurons that SpikingJelly does not have, with what to do.
    """
    made = hard_copy(net)
    reasons = [r for name, m in made.named_modules() if is_neuron(m) for r in _made_plain(name, m)]
    if reasons:
        raise ValueError("; ".join(reasons))
    if any(type(module) in ORIGINAL_OF for module in made.modules()):
        revert(made)
    try:
        graph = _Tracer().trace(made)
    except Exception as error:  # of the network's own code, on values that are not there
        raise ValueError(
            f"{type(net).__name__} can't be traced as a graph of layers: {error}; its forward must "
            "not look at the input's values or shape, or be exported to ONNX"
        ) from error
    layers: dict[str, nn.Module] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            module = made.get_submodule(node.target)
            node.target = flat_name(node.target)
            if layers.setdefault(node.target, module) is not module:
                raise ValueError(f"two layers would have the name {node.target}; rename one")
    return fx.GraphModule(layers, graph).eval()


def _made_plain(name: str, node: Any) -> list[str]:
    """Takes from a neuron what SpikingJelly's classes don't have; returns why that can't be."""
    host = ORIGINAL_OF.get(type(node), type(node))
    if not host.__module__.startswith("spikingjelly."):
        return [
            f"{name} is a {host.__name__}, a neuron of one's own that SpikingJelly does not have: "
            "export it to ONNX, or train with --model.neuron lif"
        ]
    reasons = []
    for key, value in node._tensors().items() if isinstance(node, TensorConstants) else ():
        if value.numel() == 1:
            delattr(node, key)
            setattr(node, key, float(value))
        else:
            reasons.append(
                f"{name} has a `{key}` for each of {value.numel()} channels, which SpikingJelly's "
                f"{host.__name__} does not have: export it to ONNX, or train without num_channels"
            )
    if isinstance(node.surrogate_function, SpikeFunction):
        if node.surrogate_function.levels > 1:
            reasons.append(
                f"{name} fires up to {node.surrogate_function.levels} times a step, which no "
                "neuron of SpikingJelly's does so: export it to ONNX, or train with levels=1"
            )
        node.surrogate_function = surrogate.ATan()
    return reasons


def flat_name(name: str) -> str:
    """A layer's name in the graph that `plain` makes, which Python takes as an attribute's."""
    name = name.replace(".", "_")
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"layer_{name}"


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, _name: str) -> bool:
        return type(module).__module__.startswith(_LEAVES) and not isinstance(module, nn.Sequential)


def recorded(
    net: nn.Module, names: Iterable[str], *inputs: Any, path_of: Callable[[str], str] = str
) -> tuple[Any, dict[str, Tensor]]:
    """The output of a network, and of its modules of those names, in the order they run in."""
    modules = {net.get_submodule(path_of(name)): name for name in names}
    outputs: dict[str, Tensor] = {}

    def keep(module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs[modules[module]] = output[0] if isinstance(output, tuple) else output

    with hooked(modules, keep):
        return net(*inputs), outputs


def runs_of(net: nn.Module, names: Iterable[str], path_of: Callable[[str], str] = str) -> Runs:
    """The runs of a network from rest, with the spikes of the neurons of those names."""

    def run(x_seq: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        functional.reset_net(net)
        return recorded(net, names, x_seq, path_of=path_of)

    return run
