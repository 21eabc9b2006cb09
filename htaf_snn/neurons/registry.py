"""Neurons by name, for command lines and configuration files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..arguments import arguments_of
from ..registry import find
from .backends import Backend
from .base import BackendNode
from .convert import convert
from .if_node import IFNode
from .lif_node import LIFNode
from .plif_node import ParametricLIFNode
from .zoo import is_neuron_class

NEURONS: dict[str, type[BackendNode]] = {"if": IFNode, "lif": LIFNode, "plif": ParametricLIFNode}


def neuron_options(name: str, options: Mapping[str, object]) -> dict[str, Any]:
    """``options`` as arguments of the neuron that ``name`` names, each checked by its type.

    Raises:
        ValueError: no such neuron or argument, or a value of another type.
    """
    skip = ("surrogate_function", "step_mode", "store_v_seq", "backend", "learn", "num_channels")
    found = _class(name)
    return arguments_of(
        found,
        options,
        f"option of the neuron {name}",
        skip=skip,
        numbers=[*getattr(found, "fields", ())],
    )


def neuron_class(name: str) -> Callable[..., nn.Module]:
    """What makes the neurons that ``name`` names, of their arguments and a ``backend``.

    Args:
        name: "if", "lif" or "plif"; or the import path of a class, one's own or SpikingJelly's:
            ``"my_module.MyNeuron"``, ``"spikingjelly.activation_based.neuron.QIFNode"``.

    Raises:
        ValueError: an unknown name, or a path to what is no neuron.
    """
    found = _class(name)
    if issubclass(found, BackendNode):
        return found

    def made(backend: Backend = "auto", **arguments: Any) -> nn.Module:
        node: Any = found(**arguments)
        return convert(node, backend)

    return made


def _class(name: str) -> type:
    kind = "neuron class of SpikingJelly's or a subclass of one"
    return find("neuron", name, NEURONS, is_neuron_class, kind)
