"""Batch norm statistics of the network as it is used."""

import copy
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..arguments import in_range
from ..neurons.batch_norm import average_norms
from .firing import evaluating, firing_as_trained, firing_hard, hooked


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
