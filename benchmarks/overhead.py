"""What a layer costs beside its arithmetic: time on a tiny input, and Python frames."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import Tensor, nn
from tqdm import tqdm

from htaf_snn.neurons import LIFNode, convert
from htaf_snn.surrogates import HTAFSpike

from . import measure

_SHAPE = (4, 2, 64)  # of the input, [T, N, C]


def overhead(rounds: int = 15) -> str:
    """Times forward and backward of layers on a tiny input, where the way to a kernel is all.

    CPU time of one thread; every layer runs once a round, in turn.

    Args:
        rounds: number of rounds that medians are taken over, >= 1.

    Returns:
        a table: microseconds, their ratio to ReLU's, and the Python frames of one pass.

    Raises:
        ValueError: ``rounds`` is below 1.
    """
    measure.at_least_one("rounds", rounds)
    torch.manual_seed(0)
    x_seq = torch.randn(_SHAPE)
    tasks = {name: _pass(make(), x_seq, before) for name, (make, before) in _layers().items()}
    with tqdm(total=rounds, desc="overhead", unit="round") as progress:
        timings = measure.interleave(tasks, rounds, [1], progress)
    limit = timings[measure.LIMIT, 1].cpu
    rows = [
        [name, f"{t.cpu * 1e6:.1f}", f"{t.cpu / limit:.2f}", f"{frames(tasks[name])}"]
        for (name, _), t in timings.items()
    ]
    header = ["layer", "us", f"/ {measure.LIMIT}", "frames"]
    title = f"forward + backward on {list(_SHAPE)}, 1 thread, CPU time ({measure.setting()})"
    return f"{title}\n{measure.table(header, rows)}"


def _lif(**options: Any) -> LIFNode:
    return LIFNode(surrogate_function=HTAFSpike(mode="soft"), step_mode="m", **options)


def _layers() -> dict[str, tuple[Callable[[], nn.Module], Callable[[Any, int], None] | None]]:
    """Layers by name, and what is done to each before a pass."""

    def harden(node: Any, count: int) -> None:
        node.surrogate_function.hardness = 0.1 + 1e-6 * count

    def norm(fused: bool) -> nn.Module:
        net = nn.Sequential(layer.BatchNorm1d(_SHAPE[2], step_mode="m"), _lif())
        return convert(net, fuse_norm=True) if fused else net

    channels = _SHAPE[2]
    return {
        measure.LIMIT: (nn.ReLU, None),
        "LIF": (_lif, None),
        "LIF, hardness set before each pass": (_lif, harden),
        "LIF, learned tau and threshold a channel": (
            lambda: _lif(learn=("tau", "v_threshold"), num_channels=channels),
            None,
        ),
        "batch norm": (lambda: layer.BatchNorm1d(channels, step_mode="m"), None),
        "batch norm and LIF, apart": (lambda: norm(False), None),
        "batch norm and LIF, fused": (lambda: norm(True), None),
        measure.BASELINE: (
            lambda: neuron.LIFNode(surrogate_function=surrogate.ATan(), step_mode="m"),
            None,
        ),
    }


def _pass(
    module: nn.Module, x_seq: Tensor, before: Callable[[Any, int], None] | None
) -> Callable[[], None]:
    grad = torch.randn_like(x_seq)
    nodes: list[Any] = [m for m in module.modules() if isinstance(m, neuron.BaseNode)]
    count = 0

    def run() -> None:
        nonlocal count
        for node in nodes:
            node.reset()
        if before is not None:
            count += 1
            before(module, count)
        module(x_seq.detach().requires_grad_()).backward(grad)

    return run


def frames(run: Callable[[], None]) -> int:
    """How many Python functions ``run`` calls, itself included."""
    found = 0

    def seen(_frame: object, event: str, _argument: object) -> None:
        nonlocal found
        found += event == "call"

    run()
    sys.setprofile(seen)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found
