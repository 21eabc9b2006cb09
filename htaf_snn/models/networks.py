"""Spiking networks for small inputs: VGGs, fully connected ones, and ResNets in three forms."""

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from math import prod, sqrt
from typing import Any, Literal, get_args

from spikingjelly.activation_based import layer
from spikingjelly.activation_based.model import sew_resnet, spiking_resnet
from torch import Tensor, nn

from ..arguments import in_range, one_of
from ..neurons import LIFNode
from .parts import Norm, Parts, SpikingNetwork, check_sizes

Pooling = Literal["max", "average"]
Form = Literal["plain", "sew", "ms"]
Shortcut = Literal["convolution", "padding"]
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


class MSBlock(spiking_resnet.BasicBlock):
    """Neuron, convolution, norm, twice; the shortcut carries membrane potentials past them.

    Source:
        Hu et al. 2021, "Advancing Spiking Neural Networks towards Deep Residual Learning",
        arXiv 2112.08954.
    """

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn1(self.conv1(self.sn1(x)))
        out = self.bn2(self.conv2(self.sn2(out)))
        return out + identity


class PaddingShortcut(nn.Module):
    """Every ``stride``-th pixel, and zeros for the channels that are new: no parameters.

    Source:
        He et al. 2016, arXiv 1512.03385, section 3.3, option A.
    """

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x_seq: Tensor) -> Tensor:
        x_seq = x_seq[..., :: self.stride, :: self.stride]
        return nn.functional.pad(x_seq, (0, 0, 0, 0, 0, self.new_channels))

    def extra_repr(self) -> str:
        return f"new_channels={self.new_channels}, stride={self.stride}"


_BLOCKS: dict[Form, Callable[..., nn.Module]] = {
    "plain": spiking_resnet.BasicBlock,
    "sew": partial(sew_resnet.BasicBlock, cnf="ADD"),
    "ms": MSBlock,
}


class SpikingResNet(SpikingNetwork):
    """A 3x3 stem without max-pooling, stages of residual blocks, a mean over pixels, a read-out.

    Each stage after the first halves the side. The forms differ in where the shortcut adds:

    - "plain": before the block's last neuron, as in He et al.;
    - "sew": after it, so that spikes add to spikes, and a block's output counts them;
    - "ms": to the membrane potential; a block's neurons stand before its convolutions, and the
      mean over pixels has neurons of its own.

    Shapes, errors and the other arguments are those of `model`.

    Args:
        blocks: residual blocks of each stage, each >= 1.
        widths: channels of each stage, as many as ``blocks``, not falling.
        form: "plain", "sew" or "ms".
        stem: channels of the stem, at most those of the first stage.
        shortcut: how a shortcut changes its shape: "convolution" (1x1, with its norm; in the "sew"
            form with neurons too) or "padding" (with zeros).
        hidden: neurons of a fully connected layer before the read-out, which has a norm (the
            paper of ResNet-19 names none there); 0 for none.

    Source:
        He et al. 2016, arXiv 1512.03385; "sew": Fang et al. 2021, "Deep Residual Learning in
        Spiking Neural Networks", arXiv 2102.04159, with ADD; "ms": see `MSBlock`.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        num_classes: int,
        blocks: Sequence[int] = (3, 3, 3),
        widths: Sequence[int] = (16, 32, 64),
        spiking_neuron: Callable[..., nn.Module] = LIFNode,
        *,
        form: Form = "plain",
        stem: int = 16,
        shortcut: Shortcut = "padding",
        hidden: int = 0,
        width: float = 1.0,
        norm: Norm = "bn",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        check_sizes(in_shape, num_classes)
        counts = [stem, *widths]
        if not blocks or len(blocks) != len(widths) or min(blocks) < 1:
            raise ValueError(
                f"`blocks` (={list(blocks)}) must name a positive number for each of `widths` "
                f"(={list(widths)})"
            )
        if stem < 1 or counts != sorted(counts):
            raise ValueError(
                f"`stem` (={stem}) and `widths` (={list(widths)}) must be positive and not fall"
            )
        one_of("form", form, get_args(Form))
        one_of("shortcut", shortcut, get_args(Shortcut))
        in_range("hidden", hidden, 0)
        parts = Parts(spiking_neuron, kwargs, width, norm)
        channels = parts.channels(stem)
        stem_layers = nn.Sequential(
            layer.Conv2d(in_shape[0], channels, kernel_size=3, padding=1, bias=False),
            parts.norm2d(channels),
        )
        if form != "ms":
            stem_layers.append(parts.neuron())
        layers = OrderedDict[str, nn.Module](stem=stem_layers)
        stages = zip(blocks, map(parts.channels, widths), strict=True)
        for number, (count, out_channels) in enumerate(stages, start=1):
            stage = nn.Sequential()
            for _ in range(count):
                stride = 2 if number > 1 and not len(stage) else 1
                stage.append(_block(parts, form, shortcut, channels, out_channels, stride))
                channels = out_channels
            layers[f"stage{number}"] = stage
        if form == "ms":
            layers["neuron"] = parts.neuron()
        layers["pool"] = layer.AdaptiveAvgPool2d((1, 1))
        if hidden:
            layers["hidden"] = nn.Sequential(*parts.hidden(channels, parts.channels(hidden)))
            channels = parts.channels(hidden)
        super().__init__(nn.Sequential(layers), in_shape[0], channels, num_classes, dropout)


def _block(
    parts: Parts, form: Form, shortcut: Shortcut, channels: int, out_channels: int, stride: int
) -> nn.Module:
    # tdBN's rule: sqrt(1/2) where two branches add before a neuron, 1 where a norm feeds neurons.
    alpha = 1.0 if form == "sew" else sqrt(1 / 2)
    downsample: nn.Module | None = None
    if stride > 1 or channels != out_channels:
        downsample = PaddingShortcut(out_channels - channels, stride)
        if shortcut == "convolution":
            convolution = spiking_resnet.conv1x1(channels, out_channels, stride)
            downsample = nn.Sequential(convolution, parts.norm2d(out_channels, alpha))
    block = _BLOCKS[form](
        channels,
        out_channels,
        stride,
        downsample,
        norm_layer=parts.norm2d,
        spiking_neuron=parts.spiking_neuron,
        **parts.neuron_arguments,
    )
    block.bn2 = parts.norm2d(out_channels, alpha)
    if form == "sew" and shortcut == "padding":
        block.downsample_sn = nn.Identity()  # what is padded are spikes already
    return block
