"""SpikingJelly's spiking transformers, for small inputs, with any neuron and spike function."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from spikingjelly.activation_based import functional, neuron
from spikingjelly.activation_based.model import (
    masnn,
    maxformer,
    qkformer,
    spike_driven_transformer,
    spikformer,
)
from torch import Tensor, nn

from ..neurons.norm_fusion import fuse_norms

_LARGE = 64  # pixels, from which patches are four times as large
_HEADS = 24  # what channel counts are multiples of, for heads and stages
_CHANNELS = 384
_CONSTANTS = ("tau", "decay_input", "v_threshold", "v_reset", "detach_reset", "surrogate_function")


# SpikingJelly's, with logits [T, N, num_classes] at each time step: it averages before its heads.
class QKFormer(qkformer.QKFormer):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(_stages(self, x).flatten(3).mean(-1))


class MaxFormer(maxformer.MaxFormer):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.head_lif(_stages(self, x).flatten(3).mean(-1)))


class SpikeDrivenTransformer(spike_driven_transformer.SpikeDrivenTransformer):
    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.head_lif(x.flatten(3).mean(-1)))


class MASNN(masnn.MASNN):  # for T steps alone
    def forward(self, x: Tensor) -> Tensor:
        return self.fc_blocks(self.conv_blocks(self._to_sequence(x)).flatten(2))


def _stages(net: Any, x: Tensor) -> Tensor:
    for place in (1, 2, 3):
        x = getattr(net, f"patch_embed{place}")(x)
        for block in getattr(net, f"stage{place}"):
            x = block(x)
    return x


def transformer(
    name: str,
    in_shape: tuple[int, int, int],
    num_classes: int,
    spiking_neuron: Callable[..., nn.Module],
    width: float,
    depths: Any = None,
    T: int = 10,
    **kwargs: Any,
) -> nn.Module:
    """Builds one of SpikingJelly's transformers, by its name in the table of models.

    Patches are of 4 pixels, from frames of 64 pixels on of 16 (Q-K-Former's always). Of the time
    constant, the threshold, the resets, the decay and the spike function that the network sets for
    each of its neurons, such as 0.5 for the attention's threshold, ``spiking_neuron`` is given
    those that it takes, but for what ``kwargs`` have.

    Args:
        width: factor on every channel count, rounded to a multiple of 24 (MASNN: of 8).
        depths: blocks, or those of each of three stages (Q-K-Former, MaxFormer); None for those
            published for CIFAR. MASNN has none.
        T: time steps of MASNN, whose attention has weights for each, >= 1.
    """
    channels, height, breadth = in_shape
    large = max(height, breadth) >= _LARGE
    sizes: dict[str, Any] = {"in_channels": channels, "num_classes": num_classes}
    sizes["embed_dims"] = max(1, round(width * _CHANNELS / _HEADS)) * _HEADS
    if depths is not None:
        sizes["depths"] = depths
    if name == "spikformer":
        shape = {"img_size_h": height, "img_size_w": breadth, "patch_size": 16 if large else 4}
        net = spikformer.Spikformer(**{"num_heads": 12} | shape | sizes)
    elif name == "qkformer":
        net = QKFormer(**{"num_heads": (6, 6, 6), "depths": (1, 1, 2)} | sizes)
    elif name == "maxformer":
        net = MaxFormer(**{"depths": (1, 1, 2), "cifar": not large} | sizes)
    elif name == "spike_driven_transformer":
        pooling = "1111" if large else "0011"
        net = SpikeDrivenTransformer(**{"depths": 2, "pooling_stat": pooling} | sizes)
    else:
        own = [8 * max(1, round(width * one / 8)) for one in (64, 128, 128, 256)]
        net = MASNN(
            T, channels, num_classes, (height, breadth), (*own[:3],),
            fc_hidden=own[3], reduction_t=min(5, T),
        )  # fmt: skip
    takes = inspect.signature(spiking_neuron).parameters
    for path, node in [(p, m) for p, m in net.named_modules() if type(m) is neuron.LIFNode]:
        given = {name: getattr(node, name) for name in _CONSTANTS if name in takes}
        if "init_tau" in takes:
            given["init_tau"] = node.tau
        net.set_submodule(path, spiking_neuron(**given | deepcopy(kwargs)))
    functional.set_step_mode(net, "m")
    fuse_norms(net)
    return net
