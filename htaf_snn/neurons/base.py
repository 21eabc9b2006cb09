"""The base of our neurons: a backend, and states that stay float32."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from spikingjelly.activation_based import base, neuron
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from ..surrogates.spike_function import say_once
from . import torch_state
from .decide import fused
from .kernels import Backend, check_backend, compiled
from .resolve import Calls, call, resolve
from .traced import register, step_in_graph, step_of, users_classes

_WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}

# The step in parts, of SpikingJelly before 2 and of its SimpleBaseNode.
PARTS = ("neuronal_charge", "neuronal_adaptation", "neuronal_fire", "neuronal_reset")

# What a user's class may change of a call, beside the step itself.
_CALLED = ("forward", "single_step_forward", "multi_step_forward", "materialize_states",
           "multi_step_functional_forward")  # fmt: skip

# outputs, last states, and states after each step (empty if not asked for)
_Run = tuple[tuple[Tensor, ...], tuple[Any, ...], list[Tensor]]


class BackendNode(base.MemoryModule):
    """A SpikingJelly neuron whose time loop runs on a backend of ours.

    Listed before a class of SpikingJelly's, it traces that class's own
    ``single_step_functional_forward`` and runs the fused kernels that are made of it. On the
    backend "torch", SpikingJelly's code runs as it is.
    """

    _takes_parts = False  # whether a user's class may define PARTS
    _steps_singly = False  # whether a user's class redefines the single step, not the sequence

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not (cls._takes_parts or issubclass(cls, neuron.SimpleBaseNode)):
            for owner in users_classes(cls):
                if part := next((name for name in PARTS if name in vars(owner)), None):
                    raise TypeError(
                        f"{owner.__name__} defines {part}, which SpikingJelly 2 does not call; "
                        "define charge(x, v), or step in a htaf_snn.Neuron, or import "
                        "htaf_snn.compat first, under which old classes run"
                    )
        single, multi = (
            next(
                place
                for place, owner in enumerate(cls.__mro__)
                if name in vars(owner) and not owner.__module__.startswith("htaf_snn.")
            )
            for name in ("single_step_functional_forward", "multi_step_functional_forward")
        )
        cls._steps_singly = single < multi

    def _is_called_plainly(self) -> bool:
        """Returns True if `forward` and nothing of a user's decides what a call does."""
        kind, names = type(self), _CALLED
        behind = kind.__mro__[kind.__mro__.index(BackendNode) + 1 :]
        host = next(c for c in behind if "materialize_states" in vars(c))
        return (
            all(getattr(kind, name) is getattr(BackendNode, name) for name in names)
            and not any(name in vars(self) for name in names)
            and host.__module__.startswith("spikingjelly.")
        )

    @property
    def backend(self) -> Backend:
        """The backend of the time loop: "auto", "torch", "cpu" or "cupy"."""
        return self._backend

    @backend.setter
    def backend(self, value: Backend) -> None:
        self._backend = check_backend(value)
        if "_key" not in self.__dict__:
            self.__dict__ |= {"_key": register(self), "_resolved": Calls()}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not is_dynamo_compiling():
            calls, before, fits = self._resolved, None, True
            if calls.waiting is not None:
                (before, own, each), calls.waiting = calls.waiting, None
                if args and (args[0] is own or torch_state.is_view(args[0], own)):
                    fits = args[0].shape[2 if self._step_mode == "m" else 1 :] == each
                else:
                    before = None
            if fits and len(args) == 1 and not kwargs:
                made = call(self, args[0], before)
                if made is not None:
                    return made
            if before is not None:
                normed = before.compute(own).reshape(args[0].shape)
                return self.forward(normed, *args[1:], **kwargs)
        return super().forward(*args, **kwargs)

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        inputs = (x, *args)
        states = self.materialize_states(inputs, tuple(self._memories.values()), "s")
        outputs, states, _ = self._run(tuple(i.unsqueeze(0) for i in inputs), states, **kwargs)
        self._memories.update(zip(self._memories, states, strict=True))
        if getattr(self, "store_v_seq", False):
            self._store(states, False)
        return _one(tuple(o[0] for o in outputs))

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Any:
        inputs = (x_seq, *args)
        states = self.materialize_states(inputs, tuple(self._memories.values()), "m")
        sequences = getattr(self, "store_v_seq", False) or getattr(self, "store_state_seqs", False)
        own = type(self).multi_step_functional_forward
        if own is not BackendNode.multi_step_functional_forward and not sequences:
            outputs, states = self.multi_step_functional_forward(inputs, states, **kwargs)
        else:
            outputs, states, after = self._run(inputs, states, sequences, **kwargs)
            if sequences:
                self._store([*states, *after], True)
        self._memories.update(zip(self._memories, states, strict=True))
        return _one(outputs)

    def _store(self, made: Sequence[Any], sequences: bool) -> None:
        """Keeps what was asked for of the last states and, if there are, of those of each step."""
        after = list(made[len(self._memories) :])
        if not sequences:
            if isinstance(made[0], Tensor) and getattr(self, "store_v_seq", False):
                self._append_v_seq(made[0])
            return
        if getattr(self, "store_v_seq", False):
            self.v_seq = after[0]
        if getattr(self, "store_state_seqs", False):
            self.state_seqs = after

    def multi_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **kwargs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        return self._run(inputs, states, **kwargs)[:2]

    def materialize_states(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], step_mode: str
    ) -> tuple[Any, ...]:
        """SpikingJelly's, except that states are float32, or float64 for a float64 input."""
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
        if not torch.compiler.is_compiling() and torch_state.skips_dispatcher(inputs[0]):
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
        **kwargs: Any,
    ) -> _Run:
        """The sequences [T, N, *] of a call, from states that are tensors."""
        x = inputs[0]
        if kwargs or self._backend == "torch":
            return self._run_on_torch(inputs, states, after, **kwargs)
        compiling = is_dynamo_compiling()
        found = None if compiling else resolve(self, x, True)
        made: Sequence[Tensor]
        if found is not None and found[1][0].takes(states):
            made = found[0].run(found[1], inputs, states, False, after)
        else:
            step = step_in_graph(self) if compiling else step_of(self)
            if not fused(step, self._backend, x, True, states):
                return self._run_on_torch(inputs, states, after, **kwargs)
            parameters = step.parameters(x.ndim - 1)
            made = compiled.neuron(
                inputs, states, parameters, step.numbers, step.traced.program, after
            )
        ends = len(states)
        outputs = len(made) - ends * (2 if after else 1)
        return (
            tuple(made[:outputs]),
            tuple(made[outputs : outputs + ends]),
            list(made[outputs + ends :]),
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

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Passes over the constants of another spike function than this neuron has."""
        function = getattr(self, "surrogate_function", None)
        start = f"{prefix}surrogate_function."
        known = function.state_dict() if isinstance(function, SurrogateFunctionBase) else {}
        for key, value in list(state_dict.items()):
            constant = value.ndim == 0 and value.dtype == torch.float64
            if key.startswith(start) and key.removeprefix(start) not in known and constant:
                del state_dict[key]
                said = "the state dict has constants of other spike functions: passed over"
                say_once(logging.WARNING, said)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_resolved", "_key")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__ |= {"_key": register(self), "_resolved": Calls()}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, backend={self.backend!r}"


def _one(outputs: tuple[Tensor, ...]) -> Any:
    return outputs[0] if len(outputs) == 1 else outputs


def check_subtracts(v_reset: object, function: object) -> None:
    """Raises a ValueError for integer spikes and a reset to a value, which scales by 1 - spike."""
    levels = getattr(function, "levels", 1)
    if v_reset is not None and levels > 1:
        raise ValueError(
            f"`v_reset` (={v_reset}) must be None where the spike function has levels (={levels}): "
            "what is fired is subtracted; with fit, --model.neuron_options '{v_reset: null}'"
        )


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
