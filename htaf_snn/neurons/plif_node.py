"""The parametric leaky integrate-and-fire neuron."""

from __future__ import annotations

from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor

from .backends import Backend, Leak, call
from .base import BackendNode, finite, time_constant


class ParametricLIFNode(BackendNode, neuron.ParametricLIFNode):
    """Leaky integrate-and-fire whose time constant is learned: ``1 / tau = sigmoid(w)``.

    `LIFNode`'s equation, with the parameter ``w`` instead of a constant. SpikingJelly's
    `ParametricLIFNode`, with its arguments and a backend.

    Args:
        init_tau: initial membrane time constant in time steps, > 1.
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
        ValueError: an init_tau that is not finite and above 1, a threshold or reset that is not
            finite, or an unknown backend.
        BackendUnavailableError: a backend that cannot run here.

    Source:
        Fang et al., arXiv 2007.05785.
    """

    def __init__(
        self,
        init_tau: float = 2.0,
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
            time_constant("init_tau", init_tau),
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
        reciprocal_tau: Tensor = self.w.to(v.dtype).sigmoid()
        leak: Tensor = v - self.v_reset if self.v_reset else v
        if self.decay_input:
            return v + (x - leak) * reciprocal_tau
        return v - leak * reciprocal_tau + x

    def leak(self) -> Leak:
        charge = call.LIF if self.decay_input else call.LIF_INPUT_NOT_DECAYED
        return Leak(charge, learned=self.w.sigmoid())
