"""What our neurons add to SpikingJelly's: a backend, and a state that stays float32."""

from __future__ import annotations

import math
from typing import Any

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor

from . import backends


class BackendNode(neuron.BaseNode):
    """A SpikingJelly neuron whose time loop runs on a backend of ours.

    A subclass names its charge equation in `charge`, and in `leak` if the fused kernels know it;
    firing, reset, state and the time loop are here. It is listed before SpikingJelly's class of
    the same neuron.
    """

    @property
    def backend(self) -> backends.Backend:
        """Where the time loop runs: "auto", "torch", "cpu" or "cupy"."""
        return self._backend

    @backend.setter
    def backend(self, value: backends.Backend) -> None:
        self._backend = backends.check_backend(value)

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        """The charged potential h, from the input x and the potential v, both [N, *]."""
        raise NotImplementedError

    def leak(self) -> backends.Leak | None:
        """`charge` as the fused kernels know it; None runs on the torch backend."""
        return None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "charge" in vars(cls) and "leak" not in vars(cls):
            cls.leak = BackendNode.leak  # type: ignore[method-assign]  # another charge equation

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[object, ...], **_: object
    ) -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
        spike_seq, v, _v_seq = self._run(inputs[0].unsqueeze(0), states[0])
        return (spike_seq[0],), (v,)

    def multi_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[object, ...], **_: object
    ) -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
        spike_seq, v, _v_seq = self._run(inputs[0], states[0])
        return (spike_seq,), (v,)

    def multi_step_forward(self, x_seq: Tensor, *_args: object, **_kwargs: object) -> Tensor:
        (v,) = self.materialize_states((x_seq,), tuple(self._memories.values()), "m")
        spike_seq, self.v, self.v_seq = self._run(x_seq, v, self.store_v_seq)
        return spike_seq

    def materialize_states(
        self, inputs: tuple[Tensor, ...], states: tuple[object, ...], step_mode: str
    ) -> tuple[object, ...]:
        """SpikingJelly's, except that v is float32, or float64 for a float64 input."""
        x = inputs[0]
        if not x.is_floating_point():
            raise TypeError(
                f"{type(self).__name__} takes floating-point input, not {x.dtype}; "
                "convert it, for example with x.float()"
            )
        if step_mode == "m" and (x.ndim == 0 or x.shape[0] == 0):
            raise ValueError(
                f"{type(self).__name__} with step_mode='m' takes input [T, N, *] with T >= 1; "
                f"the input's shape is {tuple(x.shape)}"
            )
        x = x[0] if step_mode == "m" else x
        wide = torch.promote_types(x.dtype, torch.float32)
        v = states[0]
        if isinstance(v, Tensor) and v.shape == x.shape:
            return (v.to(device=x.device, dtype=wide),)
        value: Any = (self.v_reset or 0.0) if isinstance(v, Tensor) else v
        return (torch.full_like(x, value, dtype=wide, requires_grad=False),)

    def _run(
        self, x_seq: Tensor, v: object, store_v_seq: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        assert isinstance(v, Tensor)
        constants = (self.v_threshold, self.v_reset or 0.0, getattr(self, "tau", 0.0))
        leak = self.leak() if all(isinstance(c, float | int) for c in constants) else None
        dynamics = (self.v_threshold, self.v_reset, self.detach_reset, store_v_seq)
        if backends.choose(self.backend, self.surrogate_function, leak, x_seq) == "torch":
            return backends.reference.multi_step(
                x_seq, v, self.charge, self.surrogate_function, *dynamics
            )
        assert leak is not None
        return backends.fused.multi_step(x_seq, v, leak, self.surrogate_function, *dynamics)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, backend={self.backend!r}"


def finite(name: str, value: float) -> float:
    """``value`` as a float.

    Raises:
        ValueError: it is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"`{name}` (={value}) must be finite")
    return float(value)


def time_constant(name: str, value: float) -> float:
    """``value`` as a float.

    Raises:
        ValueError: it is not finite and above 1.
    """
    if not (math.isfinite(value) and value > 1):
        raise ValueError(
            f"`{name}` (={value}) must be finite and above 1; it is in time steps, "
            "and the potential keeps 1 - 1/tau of itself a step"
        )
    return float(value)
