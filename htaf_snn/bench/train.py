"""Speed of a training step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based import neuron as host
from torch import Tensor, nn
from tqdm import tqdm

from ..models import SpikingVGG
from ..neurons import LIFNode
from . import measure
from .layers import FUNCTIONS

_IN_SHAPE = (2, 34, 34)  # N-MNIST's
_CLASSES = 10
_TOLERANCE = 1e-3  # of a loss; a spike at the threshold may fall either way
_SAME = (("htaf_snn, HTAF", "SpikingJelly, HTAF"), ("htaf_snn, ATan", "SpikingJelly, ATan"))


def train(
    batch: int = 32,
    steps: int = 8,
    width: float = 1.0,
    rounds: int = 5,
    threads: Sequence[int] | None = None,
) -> str:
    """Times a training step of the small spiking VGG: our neurons, SpikingJelly's, a ReLU.

    A step is forward, cross-entropy, backward and AdamW on frames [T, N, 2, 34, 34]. Every network
    takes a step a round, in turn, from the same weights, after the loss and gradient norm of ours
    have been compared with SpikingJelly's. On the CPU; on CUDA it measures nothing yet.

    Args:
        batch: N, >= 1.
        steps: time steps T, >= 1.
        width: factor on the network's channel counts, > 0.
        rounds: number of rounds that medians are taken over, >= 1.
        threads: thread counts, >= 1: one is timed in CPU time, more in wall time. None is one
            and all.

    Returns:
        a table in milliseconds a training step, and one of what is kept for the backward pass.

    Raises:
        ValueError: a number below 1.
        RuntimeError: our network's loss or gradient differs from SpikingJelly's; no speed is
            reported.
    """
    for name, value in (("batch", batch), ("steps", steps), ("rounds", rounds)):
        measure.at_least_one(name, value)
    counts = measure.thread_counts(threads)
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(steps, batch, *_IN_SHAPE, generator=generator).lt(0.1).float()
    labels = torch.randint(_CLASSES, (batch,), generator=generator)
    networks = _networks(width)
    with measure.using_threads(counts[-1]):
        _check(networks, frames, labels)
    tasks: dict[str, Callable[[], object]] = {
        name: functools.partial(
            training_step, network, torch.optim.AdamW(network.parameters()), frames, labels
        )
        for name, network in networks.items()
    }
    with tqdm(total=rounds, desc="bench train", unit="round") as progress:
        timings = measure.interleave(tasks, rounds, counts, progress)
    rows = []
    for name, network in networks.items():
        forward = functools.partial(_loss, network, frames, labels)
        kept = sum(measure.kept_for_backward(forward).values())
        rows.append([name, f"{kept / 2**20:.1f}"])
    return "\n\n".join(
        [
            f"training step of the small VGG, frames {list(frames.shape)}, on the CPU "
            f"({measure.setting()}); ms a step",
            measure.timing_table(timings, counts, 1e-3),
            measure.legend(counts),
            "kept for the backward pass\n" + measure.table(["network", "MiB"], rows),
        ]
    )


def _networks(width: float) -> dict[str, nn.Module]:
    recomputed = _network(LIFNode, "HTAF soft", backend="cpu", width=width)
    recomputed.checkpoint_activations()
    return {
        "htaf_snn, HTAF": _network(LIFNode, "HTAF soft", backend="cpu", width=width),
        "htaf_snn, HTAF, activations recomputed": recomputed,
        "htaf_snn, ATan": _network(LIFNode, "ATan", backend="cpu", width=width),
        "SpikingJelly, ATan": _network(host.LIFNode, "ATan", width=width),
        "SpikingJelly, HTAF": _network(host.LIFNode, "HTAF soft", width=width),
        "ReLU": _network(nn.ReLU, width=width),
    }


def _network(
    neuron: Callable[..., nn.Module], function: str | None = None, **kwargs: Any
) -> SpikingVGG:
    if function is not None:
        kwargs["surrogate_function"] = FUNCTIONS[function]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SpikingVGG(_IN_SHAPE, _CLASSES, spiking_neuron=neuron, **kwargs)


def _loss(network: nn.Module, frames: Tensor, labels: Tensor) -> Tensor:
    functional.reset_net(network)
    logits_seq = network(frames)
    return nn.functional.cross_entropy(logits_seq.mean(0), labels)


def training_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, frames: Tensor, labels: Tensor
) -> None:
    optimizer.zero_grad()
    _loss(network, frames, labels).backward()
    optimizer.step()


def _check(networks: Mapping[str, nn.Module], frames: Tensor, labels: Tensor) -> None:
    for name, same in _SAME:
        values = []
        for network in (networks[name], networks[same]):
            loss = _loss(network, frames, labels)
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            values.append(torch.stack([loss.detach(), nn.utils.get_total_norm(gradients)]))
        got, wanted = values
        if not torch.allclose(got, wanted, rtol=_TOLERANCE, atol=0):
            raise RuntimeError(
                f"{name}: loss and gradient norm are {got.tolist()}, but {wanted.tolist()} with "
                f"{same}; no speed is reported"
            )
