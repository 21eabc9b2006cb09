"""Networks whose potentials lie far from the threshold: deep, fully connected, without norms."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from spikingjelly.activation_based import layer
from torch import nn

from htaf_snn import LIFNode
from htaf_snn.models.parts import Parts, SpikingNetwork


class Deep(SpikingNetwork):
    """Eight layers of 128 neurons without norm, their initial weights four times torch's.

    Args:
        in_shape: (C, H, W) of a frame; each of its numbers is an input.
        num_classes: outputs of the read-out.
        spiking_neuron: the neuron's class.
        **kwargs: arguments of every neuron, copied for each.
    """

    layers = 8

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        num_classes: int,
        spiking_neuron: Callable[..., nn.Module] = LIFNode,
        **kwargs: Any,
    ) -> None:
        parts = Parts(spiking_neuron, kwargs)
        modules: list[nn.Module] = [layer.Flatten()]
        for inputs, outputs in itertools.pairwise([prod(in_shape), *[128] * self.layers]):
            linear = layer.Linear(inputs, outputs)
            with torch.no_grad():
                linear.weight *= 4
            modules += [linear, parts.neuron()]
        super().__init__(nn.Sequential(*modules), in_shape[0], 128, num_classes, 0.0)


class Deeper(Deep):
    """`Deep` with sixteen layers."""

    layers = 16
