"""Speed of a training step."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based import neuron as host
from torch import Tensor, nn
from tqdm import tqdm

from htaf_snn.arguments import one_of
from htaf_snn.models import model, model_names
from htaf_snn.models.parts import SpikingNetwork
from htaf_snn.neurons import Backend, LIFNode, check_backend, revert
from htaf_snn.neurons.batch_norm import AveragedNorm
from htaf_snn.neurons.norm_fusion import fuse_norms
from htaf_snn.surrogates import HTAFSpike

from . import measure
from .layers import FUNCTIONS

_IN_SHAPE = (2, 34, 34)  # N-MNIST's
_CLASSES = 10
_TOLERANCE = 1e-6  # of a loss
_SAME = (
    ("htaf_snn, HTAF", "SpikingJelly, HTAF"),
    ("htaf_snn, HTAF", "htaf_snn, norm apart, HTAF"),
    ("htaf_snn, HTAF", "htaf_snn, norm within, HTAF"),
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
    peak: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
) -> str:
    """Times a training step of spiking networks: our neurons, SpikingJelly's, and a ReLU.

    A step is forward, cross-entropy, backward and AdamW on frames [T, N, 2, 34, 34] in channels
    last, the layout that `htaf-snn fit` uses. Every network takes a step a round, in turn, from the
    same weights, after the loss and gradient norm of ours have been compared with SpikingJelly's.
    On the CPU, in a process that keeps the memory it frees (`measure.keep_memory`): what
    glibc does by default may double a step's time, by chance of where tensors lie.

    Args:
        networks: names of models; see `htaf_snn.models.model_names`.
        batch: N, >= 1.
        steps: time steps T, >= 1.
        width: factor on the network's channel counts, > 0.
        rounds: number of rounds that medians are taken over, >= 1.
        threads: thread counts on the CPU, >= 1: one is timed in CPU time, more in wall time. None
            is one and all.
        inductor: SpikingJelly's neurons, and our network, under `torch.compile` too, which takes
            minutes to compile.
        peak: show also how much the resident size of a fresh process grows in a training step, its
            second; not of compiled networks. Takes some seconds a row. On CUDA, how much the
            memory that torch has allocated grows.
        device: "cpu"; or "cuda", with CuPy's kernels, timed by CUDA events.

    Returns:
        for each network, a table in milliseconds a training step, and one of what is kept for the
        backward pass.

    Raises:
        ValueError: a number below 1, or an unknown network.
        BackendUnavailableError: "cuda" can't run here.
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
    where = "the CPU"
    if device == "cuda":
        check_backend("cupy")
        where = torch.cuda.get_device_name()
    measure.keep_memory()
    frames, labels = (t.to(device) for t in _data(steps, batch))
    parts = [
        f"training step, frames {list(frames.shape)} in channels last, on {where} "
        f"({measure.setting()}); ms a step"
    ]
    with tqdm(total=rounds * len(networks), desc="train", unit="round", disable=None) as progress:
        for name in networks:
            parts.append(
                f"{name}\n"
                + _tables(name, width, frames, labels, rounds, counts, inductor, peak, progress)
            )
    return "\n\n".join([*parts, measure.legend(counts if device == "cpu" else [1])])


def _tables(
    name: str, width: float, frames: Tensor, labels: Tensor, rounds: int, counts: Sequence[int],
    inductor: bool, peak: bool, progress: tqdm,
) -> str:  # fmt: skip
    device = frames.device.type
    networks = {
        row: build().to(device) for row, build in _networks(name, width, inductor, device).items()
    }
    with measure.using_threads(counts[-1]):
        _check(networks, frames, labels)
    tasks: dict[str, Callable[[], object]] = {
        row: functools.partial(
            training_step, network, torch.optim.AdamW(network.parameters()), frames, labels
        )
        for row, network in networks.items()
    }
    if device == "cuda":
        times = measure.cuda_table(measure.interleave_on_cuda(tasks, rounds, progress), 1e-3)
    else:
        times = measure.timing_table(
            measure.interleave(tasks, rounds, counts, progress), counts, 1e-3
        )
    rows = []
    for row, network in networks.items():
        kept = measure.kept_for_backward(functools.partial(_loss, network, frames, labels))
        sizes = [sum(kept.values())]
        if peak and device == "cuda":
            sizes.append(_peak_on_cuda(tasks[row]))
        elif peak and row not in _COMPILED:
            steps, batch = frames.shape[:2]
            sizes.append(measure.in_fresh_process(_peak, name, row, width, steps, batch))
        rows.append([row, *(f"{size / 2**20:.1f}" for size in sizes)])
        rows[-1] += ["" for _ in range(1 + peak - len(sizes))]
    header = ["MiB", "kept for the backward pass", "peak"][: 2 + peak]
    return "\n\n".join([times, measure.table(header, rows)])


def _data(steps: int, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(steps * batch, *_IN_SHAPE, generator=generator).lt(0.1).float()
    frames = frames.contiguous(memory_format=torch.channels_last).unflatten(0, (steps, batch))
    return frames, torch.randint(_CLASSES, (batch,), generator=generator)


def _peak(name: str, row: str, width: float, steps: int, batch: int) -> int:
    """Growth of this process's resident size, in bytes, at the peak of its second step."""
    network = _networks(name, width)[row]()
    optimizer = torch.optim.AdamW(network.parameters())
    training_step(network, optimizer, *_data(steps, 2))  # loads and allocates what all steps need
    frames, labels = _data(steps, batch)
    before = measure.peak_resident(restart=True)
    training_step(network, optimizer, frames, labels)
    return measure.peak_resident() - before


def _peak_on_cuda(step: Callable[[], object]) -> int:
    """Growth of what torch has allocated on the device, in bytes, at the peak of a step."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


def _half() -> HTAFSpike:
    """As the default recipe has it halfway through the hardening."""
    made = HTAFSpike(mode="soft")
    made.hardness = 0.5
    return made


_COMPILED = {  # the neurons alone, or the whole network of ours
    "SpikingJelly compiled, ATan": "ATan",
    "SpikingJelly compiled, HTAF": "HTAF soft",
    "htaf_snn compiled, HTAF": None,
}


def other_norms(device: str) -> str:
    """The row of the network whose batch norms are computed where they are not by themselves."""
    return f"htaf_snn, norm {'apart' if device == 'cpu' else 'within'}, HTAF"


def _networks(
    name: str, width: float, inductor: bool = False, device: str = "cpu"
) -> dict[str, Callable[[], nn.Module]]:
    backend: Backend = "cupy" if device == "cuda" else "cpu"

    def ours(function: str | Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        return functools.partial(_network, name, width, LIFNode, function, backend=backend)

    def theirs(function: str) -> Callable[[], nn.Module]:
        return functools.partial(_network, name, width, host.LIFNode, function)

    def apart() -> nn.Module:
        made = ours("HTAF soft")()
        for norm in [m for m in made.modules() if isinstance(m, AveragedNorm)]:
            revert(norm)
        return made

    def within() -> nn.Module:
        made = ours("HTAF soft")()
        fuse_norms(made, gpu=True)
        return made

    def recomputed() -> nn.Module:
        made = ours("HTAF soft")()
        made.checkpoint_activations()  # type: ignore[operator]  # a network of ours
        return made

    def compiled(function: str | None) -> nn.Module:
        if function is None:
            made = ours("HTAF soft")()
            made.compile()
            return made
        made = theirs(function)()
        for module in made.modules():
            if isinstance(module, host.LIFNode):
                module.compile()
        return made

    with torch.device("meta"):
        recomputes = isinstance(ours("HTAF soft")(), SpikingNetwork)
    networks = {
        "htaf_snn, HTAF": ours("HTAF soft"),
        "htaf_snn, HTAF, half hardened": ours(_half),
        "htaf_snn, HTAF hard": ours("HTAF hard"),
        "htaf_snn, ATan": ours("ATan"),
        other_norms(device): apart if device == "cpu" else within,
        **({"htaf_snn, HTAF, activations recomputed": recomputed} if recomputes else {}),
        "SpikingJelly, ATan": theirs("ATan"),
        "SpikingJelly, HTAF": theirs("HTAF soft"),
    }
    if inductor:
        networks |= {row: functools.partial(compiled, f) for row, f in _COMPILED.items()}
    return {**networks, "ReLU": functools.partial(_network, name, width, nn.ReLU)}


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
        if same not in networks:
            continue
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
