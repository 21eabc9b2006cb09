"""The leaky integrate-and-fire neuron."""

from __future__ import annotations

from collections.abc import Sequence

from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor

from .backends import Backend
from .base import finite, time_constant
from .dynamics import TensorConstants


class LIFNode(TensorConstants, neuron.LIFNode):
    """Leaky integrate-and-fire, with ``v_rest`` = ``v_reset``, or 0 under soft reset.

    ``h[t] = v[t-1] + (x[t] - (v[t-1] - v_rest)) / tau`` if ``decay_input``, else
    ``h[t] = v[t-1] - (v[t-1] - v_rest) / tau + x[t]``.

    SpikingJelly's `LIFNode`, with its arguments and a backend.

    Args:
        tau: membrane time constant in time steps, > 1.
        decay_input: whether the input is divided by tau too.
        v_threshold: firing threshold.
        v_reset: potential after a spike; None subtracts ``v_threshold`` instead (soft reset).
        surrogate_function: the firing function, of ``h - v_threshold``: `HTAFSpike` or any
            other; None is SpikingJelly's default, a new ``Sigmoid()``.
        detach_reset: whether no gradient flows through the spike that resets.
        step_mode: "s" takes one step [N, *], "m" a sequence [T, N, *].
        store_v_seq: whether ``v_seq`` [T, N, *] is kept.
        backend: "auto", "torch", "cpu" or "cupy".
        learn: the names of constants that are trained, such as ``("v_threshold",)``.
        num_channels: one learned value a channel (dimension 1) instead of one for all.

    Shape:
        input and output [N, *] (step_mode "s") or [T, N, *] ("m").

    Raises:
        ValueError: a tau that is not finite and above 1, a threshold or reset that is not
            finite, or an unknown backend.
        BackendUnavailableError: a backend that cannot run here.
    """

    def __init__(
        self,
        tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        surrogate_function: surrogate.SurrogateFunctionBase | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        backend: Backend = "auto",
        learn: Sequence[str] = (),
        num_channels: int | None = None,
    ) -> None:
        super().__init__(
            time_constant("tau", tau),
            decay_input,
            finite("v_threshold", v_threshold),
            None if v_reset is None else finite("v_reset", v_reset),
            surrogate.Sigmoid() if surrogate_function is None else surrogate_function,
            detach_reset,
            step_mode,
            store_v_seq,
        )
        self.learn(learn, num_channels)
        self.backend = backend

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        h: Tensor = functional.lif_charge(x, v, self.tau, self.decay_input, self.v_reset)
        return h
