"""Batch norm statistics and initial weights of a network as it is used, layer after layer."""

import copy
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..arguments import in_range
from ..neurons.batch_norm import average_norms
from ..neurons.host import is_neuron
from .firing import evaluating, firing_as_trained, firing_hard, hooked

_CLOSE = 1.01  # to the share, as a factor
_MOST = 2.0**20  # that weights are scaled by
_Run = Callable[[], tuple[list[Tensor], float]]  # a layer's inputs, and the share that fires


def calibrate(
    net: nn.Module,
    batches: Iterable[Any],
    limit: int | None = None,
    device: Any = None,
    hard: bool = True,
) -> None:
    """Re-estimates batch norm statistics for the network as it is used.

    One norm after the other, in the order of the forward pass, gets the mean over the batches of
    its input's statistics, while the norms before it normalise with theirs, as at inference. (All
    at once, as `torch.optim.swa_utils.update_bn` does, averages the statistics of networks that
    are never used: where many inputs are alike, as a picture's background, the noise of a batch's
    statistics decides whether all these neurons fire, and the mean of both cases is neither.)

    Neurons are reset before each batch and after the last; modes, including training or not, stay.
    Dropout is off. An error on the way leaves the statistics as they were. Of each batch, the
    forward pass runs up to the norm in question, so all takes half a forward pass a batch and norm.

    Args:
        net: a network with batch norm layers, of any number of time steps or none.
        batches: inputs, or tuples whose first element is the input; of the training data. Gone
            through once a norm; of an iterator, the batches are kept in memory.
        limit: most batches to use, >= 1; None for all.
        device: where the batches are moved to; None leaves them.
        hard: whether every spike function fires exactly, whatever its mode; else as in training.

    Raises:
        ValueError: the network has no batch norm with running statistics, or there is no batch.
    """
    norms = _some_norms(net)
    if limit is not None:
        in_range("limit", limit, 1)
    if isinstance(batches, Iterator):
        batches = list(itertools.islice(batches, limit))
    before = [(norm, copy.deepcopy(norm.state_dict())) for norm in norms]

    def inputs() -> Iterator[Tensor]:
        found = False
        for batch in itertools.islice(batches, limit):
            found = True
            x = batch[0] if isinstance(batch, list | tuple) else batch
            functional.reset_net(net)
            yield x if device is None else x.to(device)
        if not found:
            raise ValueError("`batches` is empty; batch norm statistics need at least one batch")

    with (
        evaluating(net),
        firing_hard(net) if hard else firing_as_trained(net),
        torch.no_grad(),
        torch.compiler.set_stance("force_eager"),  # which a forward pass that ends early needs
    ):
        counts = calls(net, norms, next(inputs()))
        try:
            for norm, count in counts.items():
                momentum, norm.momentum = norm.momentum, None  # the plain mean
                norm.reset_running_stats()
                norm.training = True  # a frozen one too
                try:
                    for x in inputs():
                        run_up_to(net, x, norm, count)
                finally:
                    norm.training, norm.momentum = False, momentum
        except BaseException:
            for norm, state in before:
                norm.load_state_dict(state)
            raise


def calls(net: nn.Module, modules: Iterable[nn.Module], x: Tensor) -> Counter[Any]:
    """Counts how often a forward pass calls each module, in the order of the first calls."""
    found: Counter[nn.Module] = Counter()
    with hooked(modules, lambda module, *_: found.update([module])):
        net(x)
    return found


class _ReachedError(BaseException):
    """Ends a forward pass where the module in question was called."""


def run_up_to(net: nn.Module, x: Tensor, module: nn.Module, count: int) -> None:
    """Runs the network, whose neurons are at rest, until a module was called ``count`` times."""
    seen = itertools.count(1)

    def stop(*_: object) -> None:
        if next(seen) == count:
            raise _ReachedError

    with hooked([module], stop), suppress(_ReachedError):
        net(x)


def freeze_norms(net: nn.Module, frozen: bool = True) -> None:
    """Has the batch norms use their running statistics in training, as at inference.

    A network that trains with the statistics of each batch to the end can come to need them.
    Calibrated and frozen for the last part of the training, what is trained is what is used.

    Args:
        net: a network with batch norm layers. Their weights and biases go on learning.
        frozen: False has them use each batch's statistics, as in training.

    Raises:
        ValueError: the network has no batch norm with running statistics.
    """
    average_norms(net)
    for norm in _some_norms(net):
        norm.frozen = frozen  # type: ignore[assignment]
        norm.train(not frozen)


@contextmanager
def batch_statistics(net: nn.Module) -> Iterator[None]:
    """Lets batch norms use each batch's statistics within the block, and keep none of them.

    Those that `freeze_norms` froze use their running statistics, as in training.
    """
    held = [(norm, norm.running_mean, norm.running_var) for norm in _unfrozen(net)]
    for norm, _, _ in held:
        norm.running_mean = norm.running_var = None
    try:
        yield
    finally:
        for norm, mean, variance in held:
            norm.running_mean, norm.running_var = mean, variance


def trains_by_batch(net: nn.Module) -> bool:
    """Returns True for a norm with each batch's statistics in training, others at inference."""
    return bool(_unfrozen(net))


def norms_of(net: nn.Module) -> list[_BatchNorm]:
    """The batch norms of a network that keep running statistics."""
    return [m for m in net.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def _unfrozen(net: nn.Module) -> list[_BatchNorm]:
    return [norm for norm in norms_of(net) if not getattr(norm, "frozen", False)]


def _some_norms(net: nn.Module) -> list[_BatchNorm]:
    if found := norms_of(net):
        return found
    raise ValueError(f"{type(net).__name__} has no batch norm whose statistics are kept")


def initialise(net: nn.Module, x: Tensor, share: float = 0.1) -> dict[str, float]:
    """Scales the weights before each layer of neurons so that it fires with a given share.

    Deep networks without norms fall silent at torch's initialisation: each layer passes on less
    than it was given. Here one layer after the other, in the order of the forward pass, has its
    weights (of fully connected layers and convolutions, the last before the neurons) multiplied by
    the number with which the charged potential reaches the threshold in ``share`` of all neurons,
    samples and time steps of ``x``: with exact spikes, without dropout, nothing random, in about
    15 forward passes up to each layer. Biases stay as they are, and so do the weights of neurons
    that a norm stands before, or whose weights were scaled for others. Neurons are reset.

    Args:
        net: a network as it is built.
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
    in_range("share", share, 0, 1, open_=True, below=True)
    names = {module: name for name, module in net.named_modules() if is_neuron(module)}
    if not names:
        raise ValueError(f"{type(net).__name__} has no spiking neuron")
    before: dict[Tensor, Tensor] = {}  # of the weights that are scaled
    factors = {}
    eager = torch.compiler.set_stance("force_eager")  # for a forward pass that ends early
    with evaluating(net), batch_statistics(net), firing_hard(net), torch.no_grad(), eager:
        functional.reset_net(net)
        counts = calls(net, names, x)
        if missing := [name for node, name in names.items() if node not in counts]:
            raise ValueError(
                f"{missing[0]} took no part in the forward pass; leave it out of the net"
            )
        try:
            for node, count in counts.items():
                run = partial(_run, net, x, node, count)
                weights, name = _sources(net, run), names[node] or type(node).__name__
                if weights is None or not before.keys().isdisjoint(weights):
                    continue
                if weights:
                    held = {weight: weight.clone() for weight in weights}
                    before |= held
                    factors[names[node]] = _scaled(held, run, share, name)
                elif not run()[1]:
                    raise ValueError(
                        f"{name} is silent and has no weights between it and the neurons before "
                        "it; lower its v_threshold, or put a layer with weights before it"
                    )
        except BaseException:
            for weight, was in before.items():
                weight.copy_(was)
            raise
    return factors


def _run(net: nn.Module, x: Tensor, node: nn.Module, count: int) -> tuple[list[Tensor], float]:
    """Runs the network up to the last of the neurons' calls."""
    inputs: list[Tensor] = []
    fired: list[Tensor] = []

    def look(_: nn.Module, given: Any, output: Any) -> None:
        spike = output[0] if isinstance(output, list | tuple) else output
        inputs.append(given[0])
        fired.append((spike.detach() > 0).double().mean())

    functional.reset_net(net)
    with hooked([node], look):
        run_up_to(net, x, node, count)
    return inputs, float(sum(fired)) / count


def _sources(net: nn.Module, run: _Run) -> list[Tensor] | None:
    """The weights that are the last before a layer; None if a norm comes after them."""
    made: dict[int, tuple[Tensor, Tensor | None]] = {}  # by id, what weights or neurons made

    def cut(module: Any, _: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output
        leaf = output.detach().requires_grad_()
        made[id(leaf)] = leaf, None if is_neuron(module) else module.weight
        return leaf.clone()  # which may be changed in place

    makers = [
        module
        for module in net.modules()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd) or is_neuron(module)
    ]
    with hooked(makers, cut), torch.enable_grad():
        ahead = [given.grad_fn for given in run()[0] if given.grad_fn is not None]
    found: dict[Tensor, None] = {}
    for function in ahead:  # which grows
        if "Norm" in function.name():
            return None
        _, weight = made.get(id(getattr(function, "variable", None)), (None, None))
        if weight is not None:
            found[weight] = None
        ahead += {f for f, _ in function.next_functions if f is not None}.difference(ahead)
    return list(found)


def _scaled(before: dict[Tensor, Tensor], run: _Run, share: float, name: str) -> float:
    """Scales weights, which were ``before``, so that the layer has the share; by how much."""

    def at(factor: float) -> float:
        for weight, was in before.items():
            weight.copy_(factor * was)
        return run()[1]

    low, high = 1 / _MOST, _MOST
    below, above = at(low), at(high)
    reaches = f"the potential of {name} reaches the threshold in"
    if not below < share <= above:
        why = "it is constant, or never positive: give other inputs or weights of both signs"
        if above:
            why = "give a nearer share or a larger batch, or start its biases at 0"
        raise ValueError(f"{reaches} {below:.3g} to {above:.3g} of all cases, not {share}: {why}")
    for _ in range(40):
        if above <= _CLOSE * share:
            break
        middle = math.sqrt(low * high)
        if (found := at(middle)) < share:
            low, below = middle, found
        else:
            high, above = middle, found
    if above > min(2 * share, (1 + share) / 2):
        raise ValueError(
            f"{reaches} {below:.3g} or {above:.3g} of all cases, not {share}: it is constant, or "
            "nearly; give a batch `x` of inputs that differ"
        )
    at(high)
    return high
