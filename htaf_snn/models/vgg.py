"""A small spiking VGG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn

from ..neurons import LIFNode

_READ_OUT_SIZE = 4  # pixels a side that the read-out sees at most


class SpikingVGG(nn.Module):
    """Blocks of convolution, batch norm, neuron and pooling, then a linear read-out.

    A block halves the side by max-pooling as long as it has at least 2 pixels.

    Args:
        in_shape: (C, H, W) of a frame; H and W from 8 to 128 pixels.
        num_classes: outputs of the read-out, >= 1.
        widths: channels of each block.
        spiking_neuron: the neuron's class, as in SpikingJelly's models.
        **kwargs: arguments of every neuron, copied for each, for example
            ``surrogate_function=HTAFSpike()``.

    Shape:
        input [T, N, C, H, W]; output [T, N, num_classes], logits at each time step.

    Raises:
        ValueError: a size out of range, no block, or a width below 1.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        num_classes: int,
        widths: Sequence[int] = (16, 32, 32),
        spiking_neuron: Callable[..., nn.Module] = LIFNode,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        channels, height, width = in_shape
        if channels < 1 or not all(8 <= side <= 128 for side in (height, width)):
            raise ValueError(
                f"`in_shape` (={tuple(in_shape)}) must be (C, H, W) with C >= 1 and H and W from "
                "8 to 128 pixels"
            )
        if num_classes < 1:
            raise ValueError(f"`num_classes` (={num_classes}) must be at least 1")
        if not widths or min(widths) < 1:
            raise ValueError(f"`widths` (={list(widths)}) must name a positive width a block")
        blocks: list[nn.Module] = []
        for out_channels in widths:
            blocks += [
                layer.Conv2d(channels, out_channels, kernel_size=3, padding=1, bias=False),
                layer.BatchNorm2d(out_channels),
                spiking_neuron(**deepcopy(kwargs)),
            ]
            channels = out_channels
            if min(height, width) >= 2:
                blocks.append(layer.MaxPool2d(kernel_size=2))
                height, width = height // 2, width // 2
        height, width = min(height, _READ_OUT_SIZE), min(width, _READ_OUT_SIZE)
        blocks.append(layer.AdaptiveAvgPool2d((height, width)))
        self.features = nn.Sequential(*blocks)
        self.read_out = nn.Sequential(
            layer.Flatten(), layer.Linear(channels * height * width, num_classes)
        )
        functional.set_step_mode(self, "m")

    def forward(self, x_seq: Tensor) -> Tensor:
        logits_seq: Tensor = self.read_out(self.features(x_seq))
        return logits_seq
