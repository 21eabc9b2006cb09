"""Neurons by name, for command lines and configuration files, and for SpikingJelly's trainer."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..arguments import arguments_of, by_name_or_path
from ..surrogates import HTAFSpike, ScaledSigmoid, StraightThrough
from .base import BackendNode
from .convert import convert
from .host import is_neuron_class
from .kernels import Backend
from .nodes import IFNode, LIFNode, ParametricLIFNode

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
    """Returns a function that makes the neurons that ``name`` names.

    Args:
        name: "if", "lif" or "plif"; or the import path of a class, one's own or SpikingJelly's:
            ``"my_module.MyNeuron"``, ``"spikingjelly.activation_based.neuron.QIFNode"``.

    Raises:
        ValueError: an unknown name, or a path to what is no neuron.
    """
    found = _class(name)
    if issubclass(found, BackendNode):
        return found

    @functools.wraps(found, updated=())
    def made(backend: Backend = "auto", **arguments: Any) -> nn.Module:
        node: Any = found(**arguments)
        return convert(node, backend)

    return made


def _class(name: str) -> type:
    kind = "neuron class of SpikingJelly's or a subclass of one"
    return by_name_or_path("neuron", name, NEURONS, is_neuron_class, kind)


def register() -> None:
    """Registers our neurons and spike functions with SpikingJelly's distributed vision trainer.

    After it, SpikingJelly's JSON configurations may name them by full path, or by the public
    one, ``htaf_snn.LIFNode``. Call it once in each
    training, export and inference process; calling it again changes nothing.
    """
    from spikingjelly.activation_based.distributed import vision  # costs 1 s

    for ours in NEURONS.values():
        vision.register_neuron_class(ours)
        vision.config._NEURON_REGISTRY[f"htaf_snn.{ours.__name__}"] = ours
    for surrogate_class in (HTAFSpike, ScaledSigmoid, StraightThrough):
        vision.register_surrogate_class(surrogate_class)
        vision.config._SURROGATE_REGISTRY[f"htaf_snn.{surrogate_class.__name__}"] = surrogate_class
