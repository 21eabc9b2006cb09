"""SpikingJelly's neurons on our backends: the class of ours that each class becomes."""

import inspect
from typing import Any, NamedTuple

import torch
from spikingjelly.activation_based import base, functional, neuron
from torch import Tensor, nn

from .base import BackendNode
from .classes import ORIGINAL_OF, mixed
from .nodes import IFNode, LIFNode, ParametricLIFNode
from .traced import step_of, with_tensors

_PACKAGE = neuron.__name__

# Constructor arguments without a default, with which a class can be made to be looked at.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "SimpleLIFNode": {"tau": 2.0, "decay_input": True},
    "GatedLIFNode": {"T": 2},
    "LIAFNode": {"act": torch.tanh, "threshold_related": True},
    "STBIFNode": {"q_threshold": 0.5, "level": 4},
    "PSN": {"T": 2},
    "MaskedPSN": {"k": 2, "T": 2},
    "SlidingPSN": {"k": 2},
    "MPBNLIFNode": {"out_features": 2},
}


class _Simple(BackendNode):
    """Runs a `SimpleBaseNode`, whose step is written in place, as a function of its states."""

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **_: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        held = self._memories
        self.__dict__["_memories"] = dict(zip(held, states, strict=True))
        try:
            # The class behind us, whose own loop this is a step of.
            spike = super(BackendNode, self).single_step_forward(inputs[0])
            return (spike,), tuple(self._memories.values())
        finally:
            self.__dict__["_memories"] = held


class ActivationAwareIFNode(BackendNode, neuron.ActivationAwareIFNode):
    """SpikingJelly's, its per-channel threshold and offset shaped outside of the step."""

    def _broadcast_parameter(self, param: Tensor, x: Tensor, name: str) -> Tensor:
        if param.ndim > 1:  # a trace's stand-in
            return param
        return super()._broadcast_parameter(param, x, name)

    def shape_parameter(self, value: Tensor, dimensions: int) -> Tensor:
        if value.numel() == 1:
            return value
        channel = self._canonical_channel_dim(torch.empty([0] * dimensions))  # or raises
        after = dimensions - 1 - channel
        return value.view(-1, *[1] * after)


class OTTTLIFNode(BackendNode, neuron.OTTTLIFNode):
    """SpikingJelly's, which in training puts out a list of the spike and its trace."""

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        made = super().single_step_forward(x, *args, **kwargs)
        return list(made) if isinstance(made, tuple) else made


class GatedLIFNode(BackendNode, neuron.GatedLIFNode):
    """SpikingJelly's, whose parameter of each time step is a second input of the step."""

    inputs = 2

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **_: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        names = ("alpha", "beta", "gamma", "tau", "v_threshold", "linear_decay", "v_subreset")
        x, conduct = inputs
        gates = [getattr(self, name).sigmoid() for name in names]
        spike, v = functional.gated_lif_step(
            x, states[0], states[1], *gates, conduct, self.surrogate_function
        )
        return (spike,), (v, spike)

    def multi_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **_: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        x_seq = inputs[0]
        if x_seq.shape[0] < self.T:
            raise ValueError(
                f"GatedLIFNode has parameters for T = {self.T} steps; the input has "
                f"{x_seq.shape[0]}"
            )
        x_seq = x_seq[: self.T]
        conduct = self.conduct.sigmoid().view(self.T, 1, -1, *[1] * (x_seq.ndim - 3))
        spike = torch.zeros_like(states[0])  # a sequence begins with none
        made = self._run((x_seq, conduct.expand_as(x_seq)), (states[0], spike))
        return made[0], (made[1][0], made[1][0])

    def _run_on_torch(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], *_: Any, **__: Any
    ) -> Any:
        made = neuron.GatedLIFNode.multi_step_functional_forward(self, inputs[:1], states)
        return tuple(o.to(inputs[0].dtype) for o in made[0]), made[1], []

    def shape_parameter(self, value: Tensor, dimensions: int) -> Tensor:
        return value if value.numel() == 1 else value.view(-1, *[1] * (dimensions - 2))


FUSED_OF: dict[type[nn.Module], type[BackendNode]] = {
    neuron.IFNode: IFNode,
    neuron.LIFNode: LIFNode,
    neuron.ParametricLIFNode: ParametricLIFNode,
    neuron.ActivationAwareIFNode: ActivationAwareIFNode,
    neuron.OTTTLIFNode: OTTTLIFNode,
    neuron.GatedLIFNode: GatedLIFNode,
}
ORIGINAL_OF.update((ours, host) for host, ours in FUSED_OF.items())


def is_neuron(module: nn.Module) -> bool:
    """Returns True for a neuron of SpikingJelly's, of ours, or of a subclass."""
    return is_neuron_class(type(module))


def is_neuron_class(found: object) -> bool:
    """Returns True for a class of neurons: SpikingJelly's, ours, or a subclass of one."""
    return (
        isinstance(found, type)
        and issubclass(found, base.MemoryModule | base.MultiStepModule)
        and any(c.__module__.startswith(_PACKAGE) for c in found.__mro__)
    )


def backend_class(host: type[Any]) -> type[BackendNode]:
    """The class of ours for a neuron class: SpikingJelly's, or a subclass of it.

    Raises:
        TypeError: the class has no step to trace, or a time loop of its own.
    """
    if issubclass(host, BackendNode):
        return host
    if host in FUSED_OF:
        return FUSED_OF[host]
    if not issubclass(host, base.MemoryModule):
        raise TypeError("it carries its state outside of SpikingJelly's memories")
    for name in ("forward", "multi_step_forward", "multi_step_functional_forward"):
        owner = next(c for c in host.__mro__ if name in vars(c))
        if not owner.__module__.startswith("spikingjelly."):
            raise TypeError(f"{owner.__name__} defines {name} itself")
    simple = issubclass(host, neuron.SimpleBaseNode)
    if not simple and (
        host.single_step_functional_forward is base.MemoryModule.single_step_functional_forward
    ):
        raise TypeError("it has no single_step_functional_forward")
    return mixed(_Simple if simple else BackendNode, host)  # type: ignore[arg-type]


def why_not(node: nn.Module) -> str | None:
    """Returns the reason why a neuron can't be fused, or None; compiles no kernel."""
    try:
        ours = backend_class(type(node))
    except TypeError as error:
        return str(error)
    twin: Any = with_tensors(list(node.modules()), {})
    twin.__class__ = ours
    return step_of(twin).traced.reason


class Row(NamedTuple):
    """A neuron class of SpikingJelly's: ``reason`` says why it is not fused, None if it is."""

    name: str
    states: int
    learned: int
    reason: str | None


def table() -> list[Row]:
    """Every neuron class of the SpikingJelly that is installed, fused or why not."""
    rows = []
    for name, value in sorted(vars(neuron).items()):
        if not (inspect.isclass(value) and issubclass(value, nn.Module)):
            continue
        try:
            node = value(**_ARGUMENTS.get(name, {}))
        except (TypeError, ValueError, NotImplementedError):
            rows.append(Row(name, 0, 0, _why_not_class(value)))
            continue
        states, learned = getattr(node, "_memories", ()), list(node.parameters())
        rows.append(Row(name, len(states), len(learned), why_not(node)))
    return rows


def neurons() -> str:
    """SpikingJelly's neuron classes, a line each: states, learned parameters, fused or why not."""
    lines = []
    for row in table():
        counts = f"{row.states} states, {row.learned} learned"
        lines.append(f"{row.name:26} {counts:20} {row.reason or 'fused'}")
    return "\n".join(lines)


def _why_not_class(cls: type[nn.Module]) -> str:
    try:
        backend_class(cls)
    except TypeError as error:
        return str(error)
    return "it is a base class, or needs a network for an argument"
