"""Spiking networks without shortcuts: VGGs for small inputs, and fully connected ones."""

import itertools
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal

from spikingjelly.activation_based import layer
from torch import nn

from ..arguments import in_range, one_of
from ..neurons import LIFNode
from .parts import Norm, Parts, SpikingNetwork, check_sizes

Pooling = Literal["max", "average"]
_POOLINGS = {"max": layer.MaxPool2d, "average": layer.AvgPool2d}


class SpikingVGG(SpikingNetwork):
    """Blocks of convolution, norm, neuron and pooling, then a linear read-out.

    A block halves the side by pooling as long as it has at least 2 pixels. Shapes, errors and the
    other arguments are those of `model`.

    Args:
        widths: channels of each block's convolutions, >= 1; a number stands for a single one.
        pooling: "max" or "average".
        bias: whether the convolutions have one.
        read_out_side: pixels a side that the layers behind the blocks see at most, >= 1.
        hidden: neurons of a fully connected layer, with its norm, before the read-out; 0 for none.

    Source:
        Simonyan and Zisserman 2015, arXiv 1409.1556.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        num_classes: int,
        widths: Sequence[int | Sequence[int]] = (16, 32, 32),
        spiking_neuron: Callable[..., nn.Module] = LIFNode,
        *,
        width: float = 1.0,
        norm: Norm = "bn",
        dropout: float = 0.0,
        pooling: Pooling = "max",
        bias: bool = False,
        read_out_side: int = 4,
        hidden: int = 0,
        **kwargs: Any,
    ) -> None:
        check_sizes(in_shape, num_classes)
        blocks = [[block] if isinstance(block, int) else list(block) for block in widths]
        if not blocks or not all(block and min(block) >= 1 for block in blocks):
            raise ValueError(f"`widths` (={list(widths)}) must name a positive width a block")
        one_of("pooling", pooling, _POOLINGS)
        in_range("read_out_side", read_out_side, 1)
        in_range("hidden", hidden, 0)
        parts = Parts(spiking_neuron, kwargs, width, norm)
        channels, *sides = in_shape
        layers: list[nn.Module] = []
        for block in blocks:
            for out_channels in map(parts.channels, block):
                layers += [
                    layer.Conv2d(channels, out_channels, kernel_size=3, padding=1, bias=bias),
                    parts.norm2d(out_channels),
                    parts.neuron(),
                ]
                channels = out_channels
            if min(sides) >= 2:
                layers.append(_POOLINGS[pooling](kernel_size=2))
                sides = [side // 2 for side in sides]
        sides = [min(side, read_out_side) for side in sides]
        layers.append(layer.AdaptiveAvgPool2d(tuple(sides)))
        size = channels * sides[0] * sides[1]
        if hidden:
            layers += parts.hidden(size, parts.channels(hidden))
            size = parts.channels(hidden)
        super().__init__(nn.Sequential(*layers), in_shape[0], size, num_classes, dropout)


class SpikingMLP(SpikingNetwork):
    """Layers of neurons, each fully connected to the one before and with its norm, and a read-out.

    Each number of a frame is an input. Shapes, errors and the other arguments are those of `model`.

    Args:
        widths: neurons of each layer, >= 1.
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
