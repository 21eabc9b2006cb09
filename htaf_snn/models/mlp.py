"""Fully connected spiking networks, for frames that are no pictures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torch import nn

from ..neurons import LIFNode
from .parts import Norm, Parts, SpikingNetwork, check_sizes


class SpikingMLP(SpikingNetwork):
    """Layers of neurons, each fully connected to the one before and with its norm, and a read-out.

    Args:
        in_shape: (C, H, W) of a frame; each of its numbers is an input.
        num_classes: outputs of the read-out, >= 1.
        widths: neurons of each layer.
        spiking_neuron: the neuron's class, as in SpikingJelly's models.
        width: factor on ``widths``, > 0.
        norm: "bn", or "tdbn" for threshold-dependent batch norm.
        dropout: probability that an input of the read-out is zero, in [0, 1).
        **kwargs: arguments of every neuron, copied for each, for example
            ``surrogate_function=HTAFSpike()``.

    Shape:
        input [T, N, C, H, W]; output [T, N, num_classes], logits at each time step.

    Raises:
        ValueError: a size or a probability out of range, no layer, a width below 1, an unknown
            norm.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        num_classes: int,
        widths: Sequence[int] = (256, 256),
        spiking_neuron: Callable[..., nn.Module] = LIFNode,
        *,
        width: float = 1.0,
        norm: Norm = "bn",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        check_sizes(in_shape, num_classes, smallest=1, largest=None)
        if not widths or not all(isinstance(one, int) and one >= 1 for one in widths):
            raise ValueError(f"`widths` (={list(widths)}) must name a positive width a layer")
        parts = Parts(spiking_neuron, kwargs, width, norm)
        sizes = [prod(in_shape), *map(parts.channels, widths)]
        layers = [part for pair in itertools.pairwise(sizes) for part in parts.hidden(*pair)]
        super().__init__(nn.Sequential(*layers), in_shape[0], sizes[-1], num_classes, dropout)
