"""Integer spikes as binary ones, a time step each, for inference."""

from typing import Any

import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.layer import SpikeCountToBinary, TemporalBinSum
from torch import Tensor, nn

from .firing import evaluating, firing_hard, hooked


class BinarySteps(nn.Module):
    """A layer with weights that takes integer spikes as binary ones, one step after the other.

    The n spikes of an input are 1 in the first n of ``levels`` steps and 0 in the others; the
    outputs of ``layer``, whose bias is taken away, are summed, and the bias is added once.
    """

    def __init__(self, layer: Any, levels: int) -> None:
        super().__init__()
        self.bias, layer.bias = layer.bias, None
        self.layer, self.levels = layer, levels
        self.binary = SpikeCountToBinary(levels, always_convert=True)
        self.sum = TemporalBinSum(levels, always_convert=True)

    def forward(self, x: Tensor) -> Tensor:
        if not _counts(x, self.levels):
            raise ValueError(
                f"the input is not of integers from 0 to {self.levels}: binary steps are for "
                "networks that fire exactly; call net.eval()"
            )
        made: Tensor = self.sum(self.layer(self.binary(x)))
        if self.bias is not None:
            made += self.bias.view(-1, *[1] * len(getattr(self.layer, "kernel_size", ())))
        return made


def binary_steps(net: nn.Module, x: Tensor) -> nn.Module:
    """Has the layers that read integer spikes take them as binary ones, in place.

    Each fully connected layer and convolution behind neurons with ``levels`` becomes a
    `BinarySteps`, so that weights are added and never multiplied. Outputs stay the same, but for
    the rounding of sums. What reads an average of spikes stays as it is.

    Args:
        net: a network with integer spikes, trained. It is returned.
        x: an input, by which it is seen which layers read them.

    Raises:
        ValueError: no neuron has ``levels`` above 1, or no layer reads its spikes alone.
    """
    integer = [m for m in net.modules() if _levels(m) > 1]
    if not integer:
        raise ValueError(f"{type(net).__name__} has no neuron with levels: its spikes are binary")
    levels = max(map(_levels, integer))
    reads: dict[nn.Module, bool] = {}  # whether it is integers alone
    fired: list[object] = []

    def look(module: nn.Module, given: Any, _output: Any) -> None:
        reads[module] = reads.get(module, True) and bool(fired) and _counts(given[0], levels)

    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    with (
        hooked(layers, look),
        hooked(integer, lambda *_: fired.append(1)),
        evaluating(net),
        firing_hard(net),
        torch.no_grad(),
    ):
        functional.reset_net(net)
        net(x)
    if not any(reads.values()):
        raise ValueError("no layer with weights reads integer spikes alone; is `x` an input of it?")
    for name, module in list(net.named_modules(remove_duplicate=False)):
        if reads.get(module):
            net.set_submodule(name, BinarySteps(module, levels))
    return net


def _levels(module: nn.Module) -> int:
    """The largest output of neurons."""
    return getattr(getattr(module, "surrogate_function", None), "levels", 1)


def _counts(x: Tensor, levels: int) -> bool:
    return bool(((x == x.round()) & (x >= 0) & (x <= levels)).all())
