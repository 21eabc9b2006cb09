"""Agreement between an exported network and its original."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from ..transfer.firing import hooked

# From frames [T, N, *] to logits [T, N, classes] and each neuron's spikes [T, N, *], by name.
Runs = Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]


class Agreement(NamedTuple):
    """The agreement of two runs of one network.

    Args:
        samples: how many were run.
        spikes: share of the neurons' outputs, each step's, that are the same.
        neurons: share of neurons, each sample's, whose outputs are the same at all steps.
        labels: samples that get the same label, of the logits' mean over time.
        logit_difference: the largest between these means.
    """

    samples: int
    spikes: float
    neurons: float
    labels: int
    logit_difference: float


@contextmanager
def recorded(
    net: nn.Module, names: Iterable[str], path_of: Callable[[str], str] = str
) -> Iterator[dict[str, Tensor]]:
    """Records the outputs of modules as they run within the block, by ``names``."""
    modules = {net.get_submodule(path_of(name)): name for name in names}
    outputs: dict[str, Tensor] = {}

    def keep(module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs[modules[module]] = output[0] if isinstance(output, tuple) else output

    with hooked(modules, keep):
        yield outputs


def runs_of(net: nn.Module, names: Iterable[str], path_of: Callable[[str], str] = str) -> Runs:
    """The runs of a network from rest, with the spikes of the neurons of those names."""

    def run(x_seq: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        functional.reset_net(net)
        with recorded(net, names, path_of) as spikes:
            return net(x_seq), spikes

    return run


def compare(batches: Iterable[Any], one: Runs, other: Runs) -> Agreement:
    """Runs both on every batch: frames [T, N, *], or tuples whose first element they are."""
    samples = labels = outputs = equal = neurons = whole = 0
    difference = 0.0
    with torch.no_grad():
        for batch in batches:
            x_seq = batch if isinstance(batch, Tensor) else batch[0]
            (logits, spikes), (others, other_spikes) = one(x_seq), other(x_seq)
            mean, other_mean = logits.mean(0), others.mean(0)
            samples += len(mean)
            labels += int((mean.argmax(-1) == other_mean.argmax(-1)).sum())
            difference = max(difference, float((mean - other_mean).abs().max()))
            for name, seq in spikes.items():
                same = seq == other_spikes[name]
                outputs, equal = outputs + same.numel(), equal + int(same.sum())
                neurons, whole = neurons + same[0].numel(), whole + int(same.all(0).sum())
    return Agreement(samples, equal / max(outputs, 1), whole / max(neurons, 1), labels, difference)
