"""The hard network as a graph of the Neuromorphic Intermediate Representation, neuroir.org."""

import contextlib
import io
import operator
from pathlib import Path
from typing import Any

import nir
import torch
from snntorch import import_nir
from spikingjelly.activation_based import functional, layer, neuron, nir_exchange
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.modules.utils import _pair
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ..neurons.host import is_neuron
from .plain import Runs, flat_name, plain, recorded

DT = 1e-4  # seconds a time step, which snnTorch and others take for granted

_NEURONS = (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode, neuron.CUBALIFNode)
_LAYERS = (
    nn.Linear, layer.Linear, nn.Conv1d, layer.Conv1d, nn.Conv2d, layer.Conv2d,
    nn.AvgPool2d, layer.AvgPool2d, nn.Flatten, layer.Flatten,
)  # fmt: skip
_INERT = (nn.Identity, nn.modules.dropout._DropoutNd, layer.Dropout, layer.Dropout2d)  # in eval()
_POOL_TAU = 2.0


class NotInNIR(ValueError):
    """Error for what NIR cannot express, with the remedy."""


def graph_of(flat: fx.GraphModule, x_seq: Tensor) -> nir.NIRGraph:
    """The network as NIR, by SpikingJelly's own exporter.

    NIR has no batch norm and no max pool. A batch norm is folded into the layer before it. A max
    pool of spikes becomes a mean and neurons that fire if anything is in their window, which is
    the same. An error names all that NIR can't say, each with what to do.
    """
    ShapeProp(flat).propagate(x_seq[:1, :1])
    functional.reset_net(flat)
    reasons, seen = [], set()
    for node in list(flat.graph.nodes):
        try:
            _rewrite(flat, node)
            if node.op == "call_module" and node.target in seen:
                raise NotInNIR("it is used twice, and NIR's nodes are used once: make two of it")
            seen.add(node.target)
        except NotInNIR as error:
            reasons.append(f"{node.target}: {error}")
    if reasons:
        raise ValueError("NIR can't say this network:\n  " + "\n  ".join(reasons))
    flat.graph.lint()
    flat.recompile()
    try:
        return nir_exchange.export_to_nir(flat, x_seq[:1, :1], dt=DT)
    except NotImplementedError as error:
        raise ValueError(f"NIR can't say this network: {error}") from error


def _rewrite(flat: fx.GraphModule, node: Any) -> None:
    """Puts what NIR has in the place of what it has not."""
    if node.op in ("placeholder", "output"):
        return
    if node.op != "call_module":
        if node.target not in (operator.add, operator.iadd, torch.add):
            raise NotInNIR(
                "NIR connects and adds layers, and has no "
                f"`{getattr(node.target, '__name__', node.target)}`: take a VGG, or a ResNet whose "
                "shortcuts are convolutions (resnet18, resnet19, resnet34)"
            )
        node.target = operator.add
        return
    module = flat.get_submodule(node.target)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        _fold(flat, node, module)
    elif isinstance(module, _INERT):
        _bypass(node)
    elif isinstance(module, nn.AdaptiveAvgPool2d):
        kernel = _kernel(node)
        if max(kernel) == 1:
            _bypass(node)
        else:
            mean = layer.AvgPool2d(kernel, padding=(0, 0), step_mode="m")
            flat.add_submodule(node.target, mean)
    elif isinstance(module, nn.MaxPool2d):
        _pool_spikes(flat, node, module)
    elif isinstance(module, nn.AvgPool2d):
        for name in ("kernel_size", "stride", "padding"):  # snnTorch takes pairs alone
            setattr(module, name, _pair(getattr(module, name)))
    elif is_neuron(module):
        _check_neuron(module)
    elif type(module) not in _LAYERS:
        raise NotInNIR(f"NIR has no {type(module).__name__}: leave it out, or export to ONNX")


def _fold(flat: fx.GraphModule, node: Any, norm: Any) -> None:
    before: Any = node.args[0]
    module: Any = flat.get_submodule(before.target) if before.op == "call_module" else None
    fits = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)
    if not fits or len(before.users) > 1 or norm.running_var is None:
        raise NotInNIR(
            "NIR has no batch norm, and this one can't be folded, as it does not follow a "
            "convolution or linear layer of its own: put it behind one, or export to ONNX"
        )
    fuse = fuse_linear_bn_eval if isinstance(module, nn.Linear) else fuse_conv_bn_eval
    flat.add_submodule(before.target, fuse(module, norm))
    _bypass(node)


def _pool_spikes(flat: fx.GraphModule, node: Any, pool: Any) -> None:
    before: Any = node.args[0]
    fires = before.op == "call_module" and is_neuron(flat.get_submodule(before.target))
    if not fires or pool.ceil_mode or pool.return_indices or pool.dilation not in (1, (1, 1)):
        raise NotInNIR(
            "NIR has no max pool, and this one is not a plain one of spikes, which would be a mean "
            "and neurons: put it behind a neuron, or train with average pooling (vgg9, vgg_snn)"
        )
    height, width = kernel = _pair(pool.kernel_size)
    mean = layer.AvgPool2d(kernel, _pair(pool.stride), _pair(pool.padding), step_mode="m")
    # One spike in the window charges to 1 / (tau * pixels); half of that fires.
    fire = neuron.LIFNode(
        tau=_POOL_TAU, v_threshold=0.5 / (_POOL_TAU * height * width), v_reset=0.0, step_mode="m"
    )
    flat.add_submodule(node.target, mean)
    name = f"{node.target}_fires"
    flat.add_submodule(name, fire)
    with node.graph.inserting_after(node):
        fires_node = node.graph.call_module(name, (node,))
    node.replace_all_uses_with(fires_node, delete_user_cb=lambda user: user is not fires_node)
    fires_node.meta = dict(node.meta)


def _check_neuron(module: Any) -> None:
    if type(module) not in _NEURONS:
        raise NotInNIR(
            f"NIR has IF, LIF and current-based LIF neurons, not {type(module).__name__}: train "
            "with --model.neuron lif, or export to ONNX"
        )
    if module.v_reset is None:
        raise NotInNIR(
            "NIR can't tell a soft reset from a reset to a value: train with "
            "--model.neuron_options '{v_reset: 0.0}', or export to ONNX"
        )


def _kernel(node: Any) -> tuple[int, ...]:
    sides, wanted = (n.meta["tensor_meta"].shape[-2:] for n in (node.args[0], node))
    if any(side % goal for side, goal in zip(sides, wanted, strict=True)):
        raise NotInNIR(
            f"NIR has means over windows of one size, and {tuple(sides)} pixels don't divide into "
            f"{tuple(wanted)}: resize the frames (--data.size, --data.downsample)"
        )
    return tuple(side // goal for side, goal in zip(sides, wanted, strict=True))


def _bypass(node: Any) -> None:
    node.replace_all_uses_with(node.args[0])
    node.graph.erase_node(node)


def write(
    net: nn.Module, names: list[str], x_seq: Tensor, path: Path, _step: bool
) -> tuple[str, Runs]:
    """Writes a NIR file, and reads it with another framework, whose name it returns.

    That is snnTorch, but for what its importer takes wrongly or not at all: IF neurons, to which it
    gives a leak, and potentials at rest that are not 0. Those SpikingJelly's own importer reads.
    """
    nir.write(path, graph_of(plain(net), x_seq))
    graph = nir.read(path)
    nodes = [n for n in graph.nodes.values() if isinstance(n, nir.LIF | nir.CubaLIF | nir.IF)]
    if any(isinstance(n, nir.IF) or n.v_reset.any() or n.v_leak.any() for n in nodes):
        made, reader = nir_exchange.import_from_nir(graph, dt=DT), "SpikingJelly's importer"
    else:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints
            made, reader = import_nir.import_from_nir(graph), "snnTorch's importer"
        for module in made.modules():
            if isinstance(module, nn.Flatten):  # NIR counts dimensions without the batch's
                module.start_dim += module.start_dim >= 0
                module.end_dim += module.end_dim >= 0

    def run(x_seq: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        for module in made.modules():
            if hasattr(module, "reset_mem"):  # snnTorch's neurons, which keep their state
                module.reset_mem()
        state, logits, steps = None, [], []
        for x in x_seq:
            (logit, state), spikes = recorded(made, names, x, state, path_of=flat_name)
            logits.append(logit)
            steps.append(spikes)
        return torch.stack(logits), {n: torch.stack([s[n] for s in steps]) for n in names}

    return reader, run
