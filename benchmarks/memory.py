"""Memory that one layer of neurons takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm import tqdm

from . import measure
from .layers import Layer, forward_backward, limits, ours, random_input, spikingjelly


def memory(steps: Sequence[int] = (4, 16), elements: int = 4_000_000) -> str:
    """Measures what one LIF layer keeps for its backward pass, and its peak: ours, SpikingJelly's.

    *Kept* are the tensors that autograd saves, each storage once; *beyond x* leaves out the
    layer's input. *Peak* is how much the resident size of a fresh process grows in forward and
    backward, the output and the input's gradient included. On the CPU.

    Args:
        steps: numbers of time steps T, >= 1.
        elements: size of the input [T, N] in float32, in elements; the peak of a small one is
            mostly that of the code.

    Returns:
        a table in bytes an element and time step.

    Raises:
        ValueError: a number below 1, or an input of fewer elements than time steps.
        RuntimeError: a process that measures a peak failed.
    """
    measure.at_least_one("steps", *steps)
    if elements < max(steps):
        raise ValueError(f"`elements` (={elements}) must be at least `steps` (={max(steps)})")
    rows = []
    runs = [(T, layer) for T in steps for layer in _layers()]
    for T, layer in tqdm(runs, desc="memory", unit="layer", disable=None):
        count = T * (elements // T)
        kept, beyond = _kept(layer, T, elements // T)
        peak = measure.in_fresh_process(_peak, layer.name, T, elements // T)
        rows.append(
            [f"{layer.name}, T = {T}", *(f"{size / count:.2f}" for size in (kept, beyond, peak))]
        )
    return "\n\n".join(
        [
            f"LIF layer, bytes an element and time step, {elements} elements of float32, on the "
            f"CPU ({measure.setting()})",
            measure.table(["layer", "kept for backward", "beyond x", "peak"], rows),
        ]
    )


def _layers() -> list[Layer]:
    return [
        ours("HTAF soft", "cpu"),
        ours("ATan", "cpu"),
        spikingjelly("ATan"),
        spikingjelly("HTAF soft"),
        limits()[0],
    ]


def _kept(layer: Layer, steps: int, count: int) -> tuple[int, int]:
    """Bytes that are kept for the backward pass, and those of them that the input doesn't hold."""
    x_seq = random_input(steps, count)[0].requires_grad_()
    storages = measure.kept_for_backward(lambda: layer.build()(x_seq))
    kept = sum(storages.values())
    return kept, kept - storages.get(x_seq.untyped_storage().data_ptr(), 0)


def _peak(name: str, steps: int, count: int) -> int:
    """Growth of this process's resident size, in bytes, at the peak of one large pass."""
    (layer,) = (layer for layer in _layers() if layer.name == name)
    module = layer.build()
    for size in (1, count):  # the first loads what the pass needs
        x_seq = torch.randn(steps, size, requires_grad=True)  # and nothing freed that has room
        grad = torch.ones_like(x_seq)
        before = measure.peak_resident(restart=True)
        result = forward_backward(module, x_seq, grad)
        after = measure.peak_resident()
        del result
    return after - before
