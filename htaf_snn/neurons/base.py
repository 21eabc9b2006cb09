"""What our neurons add to SpikingJelly's: a backend, and states that stay float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from spikingjelly.activation_based import base
from torch import Tensor

from .backends import Backend, check_backend, modes, normed, operators, plan
from .norm import Normalised

_WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}

# outputs, last states, and states after each step (empty if not asked for)
_Run = tuple[tuple[Tensor, ...], tuple[Any, ...], list[Tensor]]


class BackendNode(base.MemoryModule):
    """A SpikingJelly neuron whose time loop runs on a backend of ours.

    Listed before a class of SpikingJelly's, it traces that class's own
    ``single_step_functional_forward`` and runs the fused kernels that are made of it. On the
    backend "torch", SpikingJelly's code runs as it is.
    """

    _steps_singly = False  # whether a user's class redefines the single step, not the sequence

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        single, multi = (
            next(
                place
                for place, owner in enumerate(cls.__mro__)
                if name in vars(owner) and not owner.__module__.startswith("htaf_snn.")
            )
            for name in ("single_step_functional_forward", "multi_step_functional_forward")
        )
        cls._steps_singly = single < multi

    @property
    def backend(self) -> Backend:
        """Where the time loop runs: "auto", "torch", "cpu" or "cupy"."""
        return self._backend

    @backend.setter
    def backend(self, value: Backend) -> None:
        self._backend = check_backend(value)
        self._key = plan.register(self)

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        inputs, waiting = _taken((x, *args))
        states = self.materialize_states(inputs, tuple(self._memories.values()), "s")
        outputs, states, _ = self._run(
            tuple(i.unsqueeze(0) for i in inputs), states, waiting=waiting, **kwargs
        )
        self._memories.update(zip(self._memories, states, strict=True))
        if getattr(self, "store_v_seq", False) and isinstance(states[0], Tensor):
            self._append_v_seq(states[0])
        return _one(tuple(o[0] for o in outputs))

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Any:
        inputs, waiting = _taken((x_seq, *args))
        states = self.materialize_states(inputs, tuple(self._memories.values()), "m")
        stores_v = getattr(self, "store_v_seq", False)
        stores_all = getattr(self, "store_state_seqs", False)
        own = type(self).multi_step_functional_forward
        if own is not BackendNode.multi_step_functional_forward and not (stores_v or stores_all):
            if waiting is not None:
                inputs = (waiting.value(), *inputs[1:])
            outputs, states = self.multi_step_functional_forward(inputs, states, **kwargs)
        else:
            outputs, states, after = self._run(
                inputs, states, stores_v or stores_all, waiting, **kwargs
            )
            if stores_v:
                self.v_seq = after[0]
            if stores_all:
                self.state_seqs = after
        self._memories.update(zip(self._memories, states, strict=True))
        return _one(outputs)

    def multi_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **kwargs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        inputs, waiting = _taken(inputs)
        return self._run(inputs, states, waiting=waiting, **kwargs)[:2]

    def materialize_states(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], step_mode: str
    ) -> tuple[Any, ...]:
        """SpikingJelly's, except that states are float32, or float64 for a float64 input."""
        inputs, _ = _taken(inputs)
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
        if x.dtype in _WIDE:  # as for a float32 input of that shape
            wide = torch.zeros((), dtype=_WIDE[x.dtype], device=x.device).expand(x.shape)
            inputs = (wide, *inputs[1:])
        one = inputs[0][0] if step_mode == "m" else inputs[0]
        rest = self._memories_rv.values()
        states = tuple(
            r
            if isinstance(s, Tensor) and s.shape != one.shape and isinstance(r, int | float)
            else s
            for s, r in zip(states, rest, strict=True)
        )
        if not torch.compiler.is_compiling() and modes.plain(inputs[0]):
            # A number is kept for the backward pass, not a tensor full of it.
            states = tuple(
                torch.full((), s, dtype=one.dtype, device=one.device).expand(one.shape)
                if isinstance(s, int | float)
                else s
                for s in states
            )
        return tuple(super().materialize_states(inputs, states, step_mode))

    def _run(
        self,
        inputs: tuple[Tensor, ...],
        states: tuple[Any, ...],
        after: bool = False,
        waiting: Normalised | None = None,
        **kwargs: Any,
    ) -> _Run:
        x = inputs[0]
        own = None
        if not kwargs and self._backend != "torch":
            compiling = torch.compiler.is_dynamo_compiling()
            own = plan.plan_in_graph(self) if compiling else plan.plan(self)
        if own is None or not plan.fused(own, self._backend, inputs, states):
            if waiting is not None:
                inputs = (waiting.value().view_as(x), *inputs[1:])
            return self._run_on_torch(inputs, states, after, **kwargs)
        program, parameters = own.traced.program, plan.parameters_of(own, x)
        assert program is not None
        if waiting is not None and not self._takes_norm(waiting, program, x):
            inputs, waiting = (waiting.value().view_as(x), *inputs[1:]), None
        if waiting is None:
            made = operators.neuron(inputs, states, parameters, own.numbers, program, after)
        else:
            norm = waiting.norm.norm(x)
            made = normed.norm_neuron(inputs, states, parameters, own.numbers, program, after, norm)
        count, ends = len(made), len(states)
        outputs = count - ends * (2 if after else 1)
        return (
            tuple(made[:outputs]),
            tuple(made[outputs : outputs + ends]),
            list(made[outputs + ends :]),
        )

    def _takes_norm(self, waiting: Normalised, program: str, x: Tensor) -> bool:
        """Whether the kernel computes a norm that waits; its channels must be the neurons' too."""
        return waiting.norm.multi_step == (self.step_mode == "m") and (
            x.is_cuda or plan.normed_obstacle(program, x.dtype) is None
        )

    def _run_on_torch(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], after: bool, **kwargs: Any
    ) -> _Run:
        """The definition: SpikingJelly's own code, step by step where a sequence is asked for."""
        x = inputs[0]
        node = self._on_torch(x.ndim - 1)
        outputs: Sequence[Tensor]
        kept: list[list[Tensor]] = []
        if after or node is not self or self._steps_singly:
            steps = []
            for t in range(x.shape[0]):
                one = tuple(i[t].to(states[0].dtype) for i in inputs)
                made, states = node.single_step_functional_forward(one, states, **kwargs)
                steps.append(made)
                kept.append(list(states))
            outputs = [torch.stack(seq) for seq in zip(*steps, strict=True)]
        else:
            outputs, states = super().multi_step_functional_forward(inputs, states, **kwargs)
        after_seq = [torch.stack(seq) for seq in zip(*kept, strict=True)] if after else []
        return tuple(o.to(x.dtype) for o in outputs), states, after_seq

    def _on_torch(self, _dimensions: int) -> Any:
        """The node that steps on torch for a step of so many dimensions: this one."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_plan", "_key")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._key = plan.register(self)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, backend={self.backend!r}"


def _taken(inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Normalised | None]:
    """The inputs, a norm's own in the place of its output where that waits to be computed."""
    first = inputs[0]
    if type(first) is not Normalised:
        return inputs, None
    if first.known is not None:
        return (first.known, *inputs[1:]), None
    return (first.x, *inputs[1:]), first


def _one(outputs: tuple[Tensor, ...]) -> Any:
    return outputs[0] if len(outputs) == 1 else outputs


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
