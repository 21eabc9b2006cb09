"""Weights at the start of a training with which every layer of neurons fires."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from ..neurons.host import is_neuron
from .calibration import ReachedError, batch_statistics, calls
from .firing import firing_hard, modes_kept

_ROUNDS = 3  # more than one where the input is not linear in the scale, as in a recurrent layer
_CLOSE = 0.02  # of the share, relative
_MOST = 2.0**24  # that weights are scaled by


def initialise(net: nn.Module, x: Tensor, share: float = 0.1) -> dict[str, float]:
    """Scales the weights before each layer of neurons so that it fires with a given share.

    Deep networks without norms fall silent at torch's initialisation: each layer passes on less
    than it was given. Here one layer after the other, in the order of the forward pass, has its
    weights (of fully connected layers and convolutions, the last before the neurons) multiplied by
    the number with which the charged potential reaches the threshold in ``share`` of all neurons,
    samples and time steps of ``x``, the layers before it being scaled already. Spikes are exact,
    dropout is off, and batch norms use the batch's statistics. Nothing is random.

    Biases stay as they are. So do the weights of neurons that a norm stands before, and of neurons
    whose weights were scaled for others. Modes stay, and neurons are reset.

    Args:
        net: a network with spiking neurons, as it is built.
        x: a batch of training inputs, of all time steps if the network takes them at once.
        share: of the potentials that reach the threshold, in (0, 1).

    Returns:
        by the name of each neuron layer that was scaled, the factor.

    Raises:
        ValueError: ``share`` out of range, no neuron, one that takes no part in the forward pass,
            a silent one without weights before it, or one whose potential can't have the share.
            The weights are as they were then.

    Source:
        Mishkin and Matas 2016, LSUV, arXiv 1511.06422, which does so for variances.
    """
    if not 0 < share < 1:
        raise ValueError(f"`share` (={share}) must lie in (0, 1)")
    names = {module: name for name, module in net.named_modules() if is_neuron(module)}
    if not names:
        raise ValueError(f"{type(net).__name__} has no spiking neuron")
    scaled: dict[Tensor, Tensor] = {}  # the weights, and what they were
    factors = {}
    with (
        modes_kept(net),
        batch_statistics(net),
        firing_hard(net),
        torch.no_grad(),
        torch.compiler.set_stance("force_eager"),  # which a forward pass that ends early needs
    ):
        net.eval()
        functional.reset_net(net)
        counts = calls(net, names, x)
        for node, name in names.items():
            if node not in counts:
                raise ValueError(
                    f"{name} took no part in the forward pass; leave it out of the net"
                )
        try:
            for node, count in counts.items():
                layer = _Layer(net, x, node, names[node] or type(node).__name__, count)
                found = layer.sources()
                if found is None or not scaled.keys().isdisjoint(found):
                    continue
                if found:
                    scaled |= {weight: weight.clone() for weight in found}
                    factors[names[node]] = layer.scale(found, share)
                elif not layer.share(layer.inputs()):
                    raise ValueError(
                        f"{layer.name} is silent and has no weights between it and the neurons "
                        "before it; lower its v_threshold, or put a layer with weights before it"
                    )
        except BaseException:
            for weight, before in scaled.items():
                weight.copy_(before)
            raise
    return factors


class _Layer:
    """A layer of neurons, called ``count`` times in the forward pass of one batch."""

    def __init__(self, net: nn.Module, x: Tensor, node: nn.Module, name: str, count: int) -> None:
        self.net, self.x, self.node, self.name, self.count = net, x, node, name, count

    def inputs(self) -> list[Tensor]:
        """The layer's inputs in a forward pass, which ends with the last of them."""
        found: list[Tensor] = []

        def keep(_: nn.Module, given: Any) -> None:
            found.append(given[0])

        def stop(*_: object) -> None:
            if len(found) == self.count:
                raise ReachedError

        functional.reset_net(self.net)
        handles = self.node.register_forward_pre_hook(keep), self.node.register_forward_hook(stop)
        try:
            with suppress(ReachedError):
                self.net(self.x)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def sources(self) -> list[Tensor] | None:
        """The weights that are the last before it; None if a norm comes after them."""
        with _cut(self.net) as made, torch.enable_grad():
            inputs = self.inputs()
        found: dict[Tensor, None] = {}
        ahead = [given.grad_fn for given in inputs if given.grad_fn is not None]
        seen = set(ahead)
        while ahead:
            function = ahead.pop()
            if "Norm" in function.name():
                return None
            variable = getattr(function, "variable", None)
            if variable is not None and id(variable) in made:
                found[made[id(variable)][0]] = None
            new = {f for f, _ in function.next_functions if f is not None} - seen
            seen |= new
            ahead += new
        return list(found)

    def share(self, inputs: Sequence[Tensor]) -> float:
        """The share of the charged potentials that reach the threshold, for these inputs."""
        functional.reset_net(self.node)
        spikes = [_spikes(self.node(given)) for given in inputs]
        return sum(int(s.sum()) for s in spikes) / sum(s.numel() for s in spikes)

    def scale(self, weights: Sequence[Tensor], share: float) -> float:
        """Multiplies the weights so that the layer has the share, and returns by how much."""
        factor = 1.0
        for _ in range(_ROUNDS):
            once = self.inputs()
            _multiply(weights, 2.0)
            slopes = [b - a for a, b in zip(once, self.inputs(), strict=True)]
            offsets = [a - b for a, b in zip(once, slopes, strict=True)]
            _multiply(weights, 0.5)
            if all(slope.count_nonzero() == 0 for slope in slopes):
                raise ValueError(
                    f"the potential of {self.name} is constant: its input does not change with "
                    "the weights before it; give a batch `x` that is not zero"
                )
            by = self._factor(offsets, slopes, share)
            _multiply(weights, by)
            factor *= by
            if abs(self.share(self.inputs()) - share) <= _CLOSE * share:
                break
        return factor

    def _factor(self, offsets: Sequence[Tensor], slopes: Sequence[Tensor], share: float) -> float:
        """Returns the factor of the slopes with which the layer has the share."""

        def at(factor: float) -> float:
            return self.share([b + factor * a for a, b in zip(slopes, offsets, strict=True)])

        low = high = 1.0
        while (found := at(high)) < share:
            low, high = high, 2 * high
            if high > _MOST:
                why = (
                    f"{found:.3g} at most; give a smaller `share` (={share}) or a larger batch `x`"
                    if found
                    else "no share: it is never positive; give positive inputs or weights of both "
                    "signs"
                )
                raise ValueError(f"the potential of {self.name} reaches the threshold in {why}")
        while low == high or at(low) >= share:
            low = low / 2
            if low < 1 / _MOST:
                raise ValueError(
                    f"the potential of {self.name} reaches the threshold in {at(low):.3g} without "
                    f"its weights; give a larger `share` (={share}) or start its biases at 0"
                )
        for _ in range(24):
            middle = math.sqrt(low * high)
            found = at(middle)
            low, high = (middle, high) if found < share else (low, middle)
            if share <= found <= (1 + _CLOSE / 2) * share:
                return middle
        below, above = at(low), at(high)
        if above > min(2 * share, (1 + share) / 2):
            raise ValueError(
                f"the potential of {self.name} is constant, or nearly: {below:.3g} of it reach the "
                f"threshold, or {above:.3g}, not {share}; give a batch `x` of inputs that differ"
            )
        return high


@contextmanager
def _cut(net: nn.Module) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
    """Has autograd's graph begin anew behind neurons and weights; holds which weights made what."""
    made: dict[int, tuple[Tensor, Tensor]] = {}

    def behind_weights(module: Any, _: Any, output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_()
        made[id(leaf)] = module.weight, leaf
        return leaf.clone()  # which may be changed in place

    def behind_neurons(_module: nn.Module, _: Any, output: Any) -> Any:
        return output.detach() if isinstance(output, Tensor) else output

    with ExitStack() as hooks:
        for module in net.modules():
            if is_neuron(module):
                handle = module.register_forward_hook(behind_neurons)
            elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                handle = module.register_forward_hook(behind_weights)
            else:
                continue
            hooks.callback(handle.remove)
        yield made


def _multiply(weights: Sequence[Tensor], by: float) -> None:
    for weight in weights:
        weight.mul_(by)


def _spikes(output: Any) -> Tensor:
    spike: Tensor = output[0] if isinstance(output, list | tuple) else output
    return spike > 0
