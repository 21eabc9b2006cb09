"""Speed of a training step."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based import neuron as host
from torch import Tensor, nn
from tqdm import tqdm

from ..arguments import one_of
from ..models import model, model_names
from ..neurons import LIFNode
from ..neurons.pairs import unfuse_norms
from ..surrogates import HTAFSpike
from . import measure
from .layers import FUNCTIONS

_IN_SHAPE = (2, 34, 34)  # N-MNIST's
_CLASSES = 10
_TOLERANCE = 1e-6  # of a loss
_SAME = (
    ("htaf_snn, HTAF", "SpikingJelly, HTAF"),
    ("htaf_snn, HTAF", "htaf_snn, norm apart, HTAF"),
    ("htaf_snn, ATan", "SpikingJelly, ATan"),
)


def train(
    networks: Sequence[str] = ("vgg_small", "vgg9"),
    batch: int = 32,
    steps: int = 8,
    width: float = 1.0,
    rounds: int = 5,
    threads: Sequence[int] | None = None,
    inductor: bool = False,
) -> str:
    """Times a training step of spiking networks: our neurons, SpikingJelly's, and a ReLU.

    A step is forward, cross-entropy, backward and AdamW on frames [T, N, 2, 34, 34] in channels
    last, the layout that `htaf-snn fit` uses. Every network takes a step a round, in turn, from the
    same weights, after the loss and gradient norm of ours have been compared with SpikingJelly's.
    On the CPU; on CUDA it measures nothing yet.

    Args:
        networks: names of models; see `htaf_snn.models.model_names`.
        batch: N, >= 1.
        steps: time steps T, >= 1.
        width: factor on the network's channel counts, > 0.
        rounds: number of rounds that medians are taken over, >= 1.
        threads: thread counts, >= 1: one is timed in CPU time, more in wall time. None is one
            and all.
        inductor: SpikingJelly's neurons under `torch.compile` too, which takes minutes to compile.

    Returns:
        for each network, a table in milliseconds a training step, and one of what is kept for the
        backward pass.

    Raises:
        ValueError: a number below 1, or an unknown network.
        RuntimeError: our network's loss or gradient differs from SpikingJelly's; no speed is
            reported.
    """
    for name, value in (("batch", batch), ("steps", steps), ("rounds", rounds)):
        measure.at_least_one(name, value)
    if not networks:
        raise ValueError("`networks` (=[]) must name a model")
    for name in networks:
        one_of("networks", name, model_names())
    counts = measure.thread_counts(threads)
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(steps * batch, *_IN_SHAPE, generator=generator).lt(0.1).float()
    frames = frames.contiguous(memory_format=torch.channels_last).unflatten(0, (steps, batch))
    labels = torch.randint(_CLASSES, (batch,), generator=generator)
    parts = [
        f"training step, frames {list(frames.shape)} in channels last, on the CPU "
        f"({measure.setting()}); ms a step"
    ]
    with tqdm(total=rounds * len(networks), desc="bench train", unit="round") as progress:
        for name in networks:
            parts.append(
                f"{name}\n"
                + _tables(name, width, frames, labels, rounds, counts, inductor, progress)
            )
    return "\n\n".join([*parts, measure.legend(counts)])


def _tables(
    name: str, width: float, frames: Tensor, labels: Tensor, rounds: int, counts: Sequence[int],
    inductor: bool, progress: tqdm,
) -> str:  # fmt: skip
    networks = _networks(name, width, inductor)
    with measure.using_threads(counts[-1]):
        _check(networks, frames, labels)
    tasks: dict[str, Callable[[], object]] = {
        row: functools.partial(
            training_step, network, torch.optim.AdamW(network.parameters()), frames, labels
        )
        for row, network in networks.items()
    }
    timings = measure.interleave(tasks, rounds, counts, progress)
    rows = []
    for row, network in networks.items():
        kept = measure.kept_for_backward(functools.partial(_loss, network, frames, labels))
        rows.append([row, f"{sum(kept.values()) / 2**20:.1f}"])
    return "\n\n".join(
        [
            measure.timing_table(timings, counts, 1e-3),
            "kept for the backward pass\n" + measure.table(["network", "MiB"], rows),
        ]
    )


def _half() -> HTAFSpike:
    """As the default recipe has it halfway through the hardening."""
    made = HTAFSpike(mode="soft")
    made.hardness = 0.5
    return made


def _networks(name: str, width: float, inductor: bool) -> dict[str, nn.Module]:
    ours = functools.partial(_network, name, width, LIFNode)
    theirs = functools.partial(_network, name, width, host.LIFNode)
    networks = {
        "htaf_snn, HTAF": ours("HTAF soft", backend="cpu"),
        "htaf_snn, HTAF, half hardened": ours(_half, backend="cpu"),
        "htaf_snn, HTAF hard": ours("HTAF hard", backend="cpu"),
        "htaf_snn, ATan": ours("ATan", backend="cpu"),
        "htaf_snn, norm apart, HTAF": ours("HTAF soft", backend="cpu"),
        "htaf_snn, HTAF, activations recomputed": ours("HTAF soft", backend="cpu"),
        "SpikingJelly, ATan": theirs("ATan"),
        "SpikingJelly, HTAF": theirs("HTAF soft"),
    }
    unfuse_norms(networks["htaf_snn, norm apart, HTAF"])
    recomputed: Any = networks["htaf_snn, HTAF, activations recomputed"]
    recomputed.checkpoint_activations()
    if inductor:
        for function in ("ATan", "HTAF soft"):
            compiled = theirs(function)
            for module in compiled.modules():
                if isinstance(module, host.LIFNode):
                    module.compile()
            networks[f"SpikingJelly compiled, {function.removesuffix(' soft')}"] = compiled
    return {**networks, "ReLU": _network(name, width, nn.ReLU)}


def _network(
    name: str,
    width: float,
    neuron: Callable[..., nn.Module],
    function: str | Callable[[], nn.Module] | None = None,
    **kwargs: Any,
) -> nn.Module:
    if function is not None:
        make = FUNCTIONS[function] if isinstance(function, str) else function
        kwargs["surrogate_function"] = make()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = model(name, _IN_SHAPE, _CLASSES, neuron, width=width, **kwargs)
    return made.to(memory_format=torch.channels_last)


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
    frames = frames.double()  # in float32 a spike at the threshold may fall either way
    for name, same in _SAME:
        values = []
        for network in (copy.deepcopy(networks[name]), copy.deepcopy(networks[same])):
            network.double()
            loss = _loss(network, frames, labels)
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            values.append(torch.stack([loss.detach(), nn.utils.get_total_norm(gradients)]))
        got, wanted = values
        if not torch.allclose(got, wanted, rtol=_TOLERANCE, atol=0):
            raise RuntimeError(
                f"{name}: loss and gradient norm are {got.tolist()}, but {wanted.tolist()} with "
                f"{same}; no speed is reported"
            )
