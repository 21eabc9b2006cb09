"""Names: what ours stand for, what of one's own an import path does, ours in SpikingJelly's."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from .arguments import one_of

T = TypeVar("T")


def find(
    what: str, name: str, known: Mapping[str, T], fits: Callable[[object], bool], kind: str
) -> T:
    """What ``name`` stands for: one of ``known``; with a dot, what a module of one's own has.

    Args:
        what: it is, for errors.
        name: a known one, or an import path such as ``"my_module.MyClass"``.
        known: by name.
        fits: whether what was imported is of the kind.
        kind: what an import path must name, for errors.

    Raises:
        ValueError: an unknown name (the error lists the known ones), or a path to nothing, or to
            something else.
    """
    if "." not in name:
        one_of(what, name, known)
        return known[name]
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"{name!r} must read module.Name, the import path of a {what}")
    module, _, attribute = name.rpartition(".")
    try:
        found: T = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no {what} {name!r}: {error}") from error
    if not fits(found):
        raise ValueError(f"{name!r} is no {kind}")
    return found


def register() -> None:
    """Registers our neurons and spike functions with SpikingJelly's distributed vision trainer.

    After it, SpikingJelly's JSON configurations may name them by full path, or by the public
    one, ``htaf_snn.LIFNode``. Call it once in each
    training, export and inference process; calling it again changes nothing.
    """
    from spikingjelly.activation_based.distributed import vision

    from .neurons import IFNode, LIFNode, ParametricLIFNode
    from .surrogates import HTAFSpike, ScaledSigmoid, StraightThrough

    for neuron_class in (IFNode, LIFNode, ParametricLIFNode):
        vision.register_neuron_class(neuron_class)
        vision.config._NEURON_REGISTRY[f"htaf_snn.{neuron_class.__name__}"] = neuron_class
    for surrogate_class in (HTAFSpike, ScaledSigmoid, StraightThrough):
        vision.register_surrogate_class(surrogate_class)
        vision.config._SURROGATE_REGISTRY[f"htaf_snn.{surrogate_class.__name__}"] = surrogate_class
