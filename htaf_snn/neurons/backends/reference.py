"""The reference: the definition of a neuron's dynamics, which other backends are tested against."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def multi_step(
    x_seq: Tensor,
    v: Tensor,
    charge: Callable[[Tensor, Tensor], Tensor],
    fire: Callable[[Tensor], Tensor],
    v_threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    store_v_seq: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Runs a neuron over time: charge -> fire -> reset, step by step.

    ``h[t] = charge(x[t], v[t-1])``, ``s[t] = fire(h[t] - v_threshold)``, then the hard reset
    ``v[t] = (1 - s[t]) h[t] + s[t] v_reset``, or the soft one ``v[t] = h[t] - s[t] v_threshold``
    if ``v_reset`` is None. A smooth spike resets smoothly.

    Args:
        x_seq: input current.
        v: membrane potential before the first step; its dtype is that of the computation.
        charge: ``(x, v) -> h``.
        fire: the spike function, of ``h - v_threshold``.
        v_threshold: firing threshold.
        v_reset: potential after a spike, or None.
        detach_reset: whether no gradient flows through the spike that resets.
        store_v_seq: whether ``v_seq`` is returned too.

    Shape:
        ``x_seq`` [T, N, *] with T >= 1, ``v`` [N, *].

    Returns:
        ``spike_seq`` [T, N, *] in the dtype of ``x_seq``; ``v`` [N, *] after the last step;
        ``v_seq`` [T, N, *] after each step, or None.
    """
    spikes, potentials = [], []
    for x in x_seq:
        h = charge(x.to(v.dtype), v)
        spike = fire(h - v_threshold)
        reset = spike.detach() if detach_reset else spike
        v = h - reset * v_threshold if v_reset is None else (1.0 - reset) * h
        if v_reset:
            v = v + reset * v_reset
        spikes.append(spike.to(x_seq.dtype))
        if store_v_seq:
            potentials.append(v)
    return torch.stack(spikes), v, torch.stack(potentials) if store_v_seq else None
