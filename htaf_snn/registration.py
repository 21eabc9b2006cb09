"""Our classes in SpikingJelly's registries."""

from __future__ import annotations

from .neurons import IFNode, LIFNode, ParametricLIFNode
from .surrogates import HTAFSpike, ScaledSigmoid, StraightThrough


def register() -> None:
    """Registers our neurons and spike functions with SpikingJelly's distributed vision trainer.

    After it, SpikingJelly's JSON configurations may name them by full path, or by the public
    one, ``htaf_snn.LIFNode``. Call it once in each
    training, export and inference process; calling it again changes nothing.
    """
    from spikingjelly.activation_based.distributed import vision

    for neuron_class in (IFNode, LIFNode, ParametricLIFNode):
        vision.register_neuron_class(neuron_class)
        vision.config._NEURON_REGISTRY[f"htaf_snn.{neuron_class.__name__}"] = neuron_class
    for surrogate_class in (HTAFSpike, ScaledSigmoid, StraightThrough):
        vision.register_surrogate_class(surrogate_class)
        vision.config._SURROGATE_REGISTRY[f"htaf_snn.{surrogate_class.__name__}"] = surrogate_class
