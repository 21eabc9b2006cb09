"""SpikingJelly's integrate-and-fire neurons with a backend: IF, LIF and parametric LIF."""

from collections.abc import Sequence
from typing import Any

from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor

from .base import check_subtracts, finite, time_constant
from .kernels import Backend
from .own import TensorConstants


def _checked(v_threshold: float, v_reset: float | None, function: Any) -> tuple[Any, Any, Any]:
    check_subtracts(v_reset, function)
    return (
        finite("v_threshold", v_threshold),
        None if v_reset is None else finite("v_reset", v_reset),
        surrogate.Sigmoid() if function is None else function,
    )


class IFNode(TensorConstants, neuron.IFNode):
    """Integrate-and-fire: ``h[t] = v[t-1] + x[t]``.

    SpikingJelly's `IFNode`, with its arguments and a backend.

    Args:
        v_threshold: firing threshold.
        v_reset: potential after a spike; None subtracts ``v_threshold`` instead (soft reset), times
            the output where that is an integer (`HTAFSpike(levels=4)`), which needs None.
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
        ValueError: a constant that is not finite or out of its range, or an unknown backend.
        BackendUnavailableError: a backend that cannot run here.
    """

    def __init__(
        self,
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
        shared = _checked(v_threshold, v_reset, surrogate_function)
        super().__init__(*shared, detach_reset, step_mode, store_v_seq)
        self.learn(learn, num_channels)
        self.backend = backend

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        return v + x


class LIFNode(TensorConstants, neuron.LIFNode):
    """Leaky integrate-and-fire, with ``v_rest`` = ``v_reset``, or 0 under soft reset.

    ``h[t] = v[t-1] + (x[t] - (v[t-1] - v_rest)) / tau`` if ``decay_input``, else
    ``h[t] = v[t-1] - (v[t-1] - v_rest) / tau + x[t]``.

    SpikingJelly's `LIFNode`, with its arguments and a backend.

    Args:
        tau: membrane time constant in time steps, > 1.
        decay_input: whether the input is divided by tau too.

    The other arguments, shapes and errors are `IFNode`'s.
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
        own = time_constant("tau", tau), decay_input
        shared = _checked(v_threshold, v_reset, surrogate_function)
        super().__init__(*own, *shared, detach_reset, step_mode, store_v_seq)
        self.learn(learn, num_channels)
        self.backend = backend

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        return functional.lif_charge(x, v, self.tau, self.decay_input, self.v_reset)


class ParametricLIFNode(TensorConstants, neuron.ParametricLIFNode):
    """Leaky integrate-and-fire whose time constant is learned: ``1 / tau = sigmoid(w)``.

    `LIFNode`'s equation, with the parameter ``w`` instead of a constant. SpikingJelly's
    `ParametricLIFNode`, with its arguments and a backend.

    Args:
        init_tau: initial membrane time constant in time steps, > 1.
        decay_input: whether the input is divided by tau too.

    The other arguments, shapes and errors are `IFNode`'s; ``learn`` names constants besides ``w``.

    Source:
        Fang et al., arXiv 2007.05785.
    """

    _scalars = ("w",)

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
        learn: Sequence[str] = (),
        num_channels: int | None = None,
    ) -> None:
        own = time_constant("init_tau", init_tau), decay_input
        shared = _checked(v_threshold, v_reset, surrogate_function)
        super().__init__(*own, *shared, detach_reset, step_mode, store_v_seq)
        self.learn(learn, num_channels)
        self.backend = backend

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        tau, decays = 1 / self.w.sigmoid(), self.decay_input
        return functional.lif_charge(x, v, tau, decays, self.v_reset)
