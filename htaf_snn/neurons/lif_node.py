"""The leaky integrate-and-fire neuron."""

from __future__ import annotations

from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor

from .backends import Backend, Leak, call
from .base import BackendNode, finite, time_constant


class LIFNode(BackendNode, neuron.LIFNode):
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
        self.backend = backend

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        leak: Tensor = v - self.v_reset if self.v_reset else v
        h: Tensor
        h = v + (x - leak) / self.tau if self.decay_input else v - leak / self.tau + x
        return h

    def leak(self) -> Leak:
        charge = call.LIF if self.decay_input else call.LIF_INPUT_NOT_DECAYED
        return Leak(charge, 1 / self.tau)
