"""SpikingJelly's neurons to ours and back, in place, inside any network."""

from __future__ import annotations

import logging

from spikingjelly.activation_based import neuron
from torch import nn

from .backends import Backend, check_backend
from .base import BackendNode
from .if_node import IFNode
from .lif_node import LIFNode
from .plif_node import ParametricLIFNode

_OURS: dict[type[nn.Module], type[BackendNode]] = {
    neuron.IFNode: IFNode,
    neuron.LIFNode: LIFNode,
    neuron.ParametricLIFNode: ParametricLIFNode,
}
_HOSTS: dict[type[nn.Module], type[nn.Module]] = {ours: host for host, ours in _OURS.items()}

_logger = logging.getLogger(__name__)


def convert(net: nn.Module, backend: Backend = "auto") -> nn.Module:
    """Makes SpikingJelly's IF, LIF and PLIF neurons in ``net`` ours, in place.

    A neuron stays the object that it was, with its equation, parameters, carried state, spike
    function and hooks: it only changes its class. Subclasses and other neurons are left as they
    are, and named at INFO. Neurons that are ours already take the backend.

    Args:
        net: a network, or a neuron.
        backend: "auto", "torch", "cpu" or "cupy".

    Returns:
        ``net``.

    Raises:
        ValueError: an unknown backend, no neuron to convert, or one that SpikingJelly's precision
            configuration governs. Nothing has been changed then.
        BackendUnavailableError: a backend that cannot run here. Nothing has been changed then.
    """
    check_backend(backend)
    neurons = [
        (name, module)
        for name, module in net.named_modules()
        if isinstance(module, neuron.BaseNode | neuron.SimpleBaseNode)
    ]
    chosen = [(n, m) for n, m in neurons if type(m) in _OURS or isinstance(m, BackendNode)]
    others = ", ".join(sorted({_path(type(m)) for n, m in neurons if (n, m) not in chosen}))
    if not chosen:
        raise ValueError(
            f"{type(net).__name__} has no IFNode, LIFNode or ParametricLIFNode of SpikingJelly's "
            f"to convert; its neurons are: {others or 'none'}"
        )
    for name, module in chosen:
        if module._neuron_precision is not None:
            raise ValueError(
                f"{name or 'the network'} runs in SpikingJelly's neuron precision "
                f"{module._neuron_precision}, which our neurons don't have: they keep their state "
                "in float32; prepare the model with PrecisionConfig(neuron_storage=None) first"
            )
    if others:
        _logger.info("convert leaves these neurons as they are: %s", others)
    for _, module in chosen:
        module.__class__ = _OURS.get(type(module), type(module))
        module.backend = backend
    return net


def revert(net: nn.Module) -> nn.Module:
    """Makes our neurons in ``net`` SpikingJelly's own again, in place: the inverse of `convert`.

    For tools that match SpikingJelly's exact classes, such as its NIR export. Subclasses of ours
    are left as they are.

    Args:
        net: a network, or a neuron.

    Returns:
        ``net``.

    Raises:
        ValueError: there is no neuron to revert.
    """
    ours = [module for module in net.modules() if type(module) in _HOSTS]
    if not ours:
        raise ValueError(
            f"{type(net).__name__} has no IFNode, LIFNode or ParametricLIFNode of htaf_snn's "
            "to revert"
        )
    for module in ours:
        del module._backend
        module.__class__ = _HOSTS[type(module)]
    return net


def _path(node_class: type[nn.Module]) -> str:
    return f"{node_class.__module__}.{node_class.__qualname__}"
