"""Neurons of one's own, and constants of a neuron that are numbers or tensors, learned or not."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from ..surrogates.spike_function import filled, take_fields
from .base import BackendNode, finite
from .kernels import Backend
from .traced import channelwise, with_tensors


class TensorConstants(BackendNode):
    """A neuron whose constants, such as ``tau``, may be tensors.

    A tensor of shape [] is one for the layer, [C] one a channel, dimension 1 of the step [N, C, *];
    any other shape broadcasts to the step as in torch.
    """

    _scalars: ClassVar[tuple[str, ...]] = ()  # that SpikingJelly's class learns, of shape []
    _equation = False  # whether a user's class has a charge equation of its own

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "charge" in vars(cls) and not cls.__module__.startswith("htaf_snn."):
            cls._equation = cls._steps_singly = True

    def shape_parameter(self, value: Tensor, dimensions: int) -> Tensor:
        return channelwise(value, dimensions)

    def learn(self, names: Sequence[str], num_channels: int | None = None) -> None:
        """Makes constants learned parameters, with their present values.

        Args:
            names: of the constants, for example ``("tau", "v_threshold")``.
            num_channels: one value a channel instead of one for all.

        Raises:
            ValueError: a name that is no constant of the neuron, or num_channels below 1.
        """
        if num_channels is not None and num_channels < 1:
            raise ValueError(f"`num_channels` (={num_channels}) must be at least 1")
        numbers = [k for k, v in vars(self).items() if type(v) is float and not k.startswith("_")]
        for name in names:
            if name not in numbers:
                raise ValueError(
                    f"`learn` (={tuple(names)!r}) names {name!r}, which is no constant of "
                    f"{type(self).__name__}; it has {', '.join(numbers)}"
                )
            value = self.__dict__.pop(name)
            shape = () if num_channels is None else (num_channels,)
            setattr(self, name, nn.Parameter(torch.full(shape, value)))

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        """The charged potential h, from the input x and the potential v, both [N, *]."""
        raise NotImplementedError

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **kwargs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        if not (self._equation or self._tensors()):
            made: tuple[tuple[Tensor, ...], tuple[Any, ...]]
            made = super().single_step_functional_forward(inputs, states, **kwargs)
            return made
        # SpikingJelly's step takes numbers alone on some of its paths; this is its equation.
        v = states[0]
        h = self.charge(inputs[0], v)
        spike = self.surrogate_function(h - self.v_threshold)
        v = functional.voltage_reset(h, spike, self.v_threshold, self.v_reset, self.detach_reset)
        return (spike,), (v, *states[1:])

    def _tensors(self) -> dict[str, Tensor]:
        """The constants that are tensors, in the place of numbers or of a learned scalar."""
        found = dict(self._parameters) | self._buffers | self.__dict__
        scalar = self._scalars
        return {
            k: v
            for k, v in found.items()
            if isinstance(v, Tensor) and k != "v_seq" and not (k in scalar and v.ndim == 0)
        }

    def _on_torch(self, dimensions: int) -> Any:
        tensors = self._tensors()
        changed = {(0, k): channelwise(v, dimensions) for k, v in tensors.items()}
        return with_tensors(list(self.modules()), changed) if changed else self


class Neuron(TensorConstants, neuron.BaseNode):
    """The base of a neuron of one's own: its states, its constants, and its step.

    ``states`` names the states with their values at rest, ``v`` first; a field with a default,
    ``tau: float = 2.0``, is a constant, which ``__init__`` takes by name; ``step`` is one time
    step in plain torch, elementwise. It is traced with its derivatives, and runs fused on the CPU
    and on CUDA; what can't be fused runs on torch, and says why.

    Args:
        *args: constants, in the order of the fields.
        v_threshold: firing threshold.
        v_reset: potential after a spike, for the step to use; the potential at rest; None means
            that the step resets in another way.
        surrogate_function: the firing function; None is a new `HTAFSpike()`.
        detach_reset: whether no gradient should flow through the reset, for the step to use.
        step_mode: "s" takes one step [N, *], "m" a sequence [T, N, *].
        store_v_seq: whether ``v_seq`` [T, N, *] is kept.
        backend: "auto", "torch", "cpu" or "cupy".
        learn: the names of the constants that are trained.
        num_channels: one learned value a channel (dimension 1) instead of one for all.
        **constants: constants by name.

    Shape:
        input and output [N, *] (step_mode "s") or [T, N, *] ("m").

    Raises:
        TypeError: an unknown constant.
        ValueError: a constant that is not finite, or a name in ``learn`` that is none.
    """

    states: ClassVar[dict[str, float]] = {"v": 0.0}
    fields: ClassVar[dict[str, float]] = {}  # the constants, with their defaults

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        take_fields(cls)

    def __init__(
        self,
        *args: float,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        surrogate_function: surrogate.SurrogateFunctionBase | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        backend: Backend = "auto",
        learn: Sequence[str] = (),
        num_channels: int | None = None,
        **constants: float,
    ) -> None:
        from ..surrogates import HTAFSpike

        values = filled(type(self), args, constants)
        super().__init__(
            finite("v_threshold", v_threshold),
            None if v_reset is None else finite("v_reset", v_reset),
            HTAFSpike() if surrogate_function is None else surrogate_function,
            detach_reset,
            step_mode,
            store_v_seq,
        )
        names = list(self.states)
        if names[:1] != ["v"]:
            raise TypeError(f"`states` of {type(self).__name__} must begin with 'v', not {names}")
        for name, value in self.states.items():
            if name == "v":
                self.set_reset_value("v", value if v_reset is None else self.v_reset)
            else:
                self.register_memory(name, float(value))
        for name, value in values.items():
            setattr(self, name, finite(name, value))
        self.learn(learn, num_channels)
        self.backend = backend

    def step(self, x: Tensor, *states: Any) -> tuple[Tensor, ...]:
        """One time step: the spike and the next states, of the input and the states, all [N, *].

        A pure, elementwise function in plain torch, of these and of ``self``'s constants.
        """
        raise NotImplementedError(f"{type(self).__name__} must define step(self, x, v, ...)")

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **_: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        spike, *made = self.step(inputs[0], *states)
        if len(made) != len(self._memories):
            raise ValueError(
                f"{type(self).__name__}.step returned {len(made)} states after the spike; "
                f"it has {len(self._memories)}: {', '.join(self._memories)}"
            )
        return (spike,), tuple(made)
