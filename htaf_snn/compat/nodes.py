"""The old packages' neurons: their arguments, defaults and three-part step, on our backends."""

import inspect
from typing import Any, ClassVar

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor

from ..neurons import traced
from ..neurons.base import PARTS, BackendNode
from ..neurons.classes import ORIGINAL_OF
from ..neurons.host import backend_class
from ..neurons.step.trace import NotElementwiseError
from ..neurons.torch_state import dispatch_modes

_UNUSED = ("cupy_fp32_inference", "lava_s_cale", "monitor_state")  # old arguments without effect


class StandsFor(type):
    """A class whose instances are those of one of SpikingJelly's, too."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) or cls.__subclasscheck__(type(instance))

    def __subclasscheck__(cls, kind: type) -> bool:
        host = vars(cls).get("stands_for", ())
        return super().__subclasscheck__(kind) or issubclass(kind, host)


class BaseNode(BackendNode, neuron.BaseNode, metaclass=StandsFor):
    """The base of the old neurons, whose subclasses may define parts of the step.

    Args:
        *args: in the order of any release; ``step_mode``, ``backend`` and ``store_v_seq`` are told
            by their type.
        backend: "torch" and "cupy" are both "auto"; what the old package had no kernel for
            runs on ours.
        **kwargs: the arguments by name.

    Raises:
        NotImplementedError: the backend "lava".
        TypeError: a ``decay_input`` that is a number, as in calls written before it existed.
    """

    stands_for: ClassVar[Any] = (neuron.BaseNode, neuron.SimpleBaseNode)
    arguments: ClassVar[tuple[str, ...]]
    _takes_parts = True
    takes_v_seq: ClassVar[bool] = True
    is_multi_step: ClassVar[bool] = False
    restores: ClassVar[bool] = False  # whether `reset` undoes a change of v_threshold and v_reset
    supported_backends = ("torch", "cupy")
    jit_hard_reset = staticmethod(neuron.BaseNode.apply_hard_reset)
    jit_soft_reset = staticmethod(neuron.BaseNode.apply_soft_reset)
    v: Any
    v_threshold: Any
    v_reset: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        own = {name for c in traced.users_classes(cls) for name in vars(c)}
        if own.intersection(PARTS) and "single_step_functional_forward" not in own:
            cls.single_step_functional_forward = _step_in_parts
        if "single_step_forward" in own and "multi_step_forward" not in own:
            cls.multi_step_forward = _step_by_step  # type: ignore[method-assign]
        super().__init_subclass__(**kwargs)

    def __init__(self, *args: Any, backend: str = "auto", **kwargs: Any) -> None:
        names = type(self).arguments
        given = dict(zip(names, args, strict=False))
        for value in args[len(names) :]:
            if not isinstance(value, str):
                given["store_v_seq" if isinstance(value, bool) else "lava_s_cale"] = value
            elif value in ("s", "m"):
                given["step_mode"] = value
            else:
                backend = value
        if not self.takes_v_seq:
            given.pop("store_v_seq", None)  # the old `cupy_fp32_inference`, by position
        given |= kwargs
        if not isinstance(given.get("decay_input", True), bool):
            raise TypeError(
                f"`decay_input` (={given['decay_input']}) of {type(self).__name__} must be a bool; "
                "before 0.0.0.0.6 there was none: give the arguments after tau by name"
            )
        if backend == "lava":
            raise NotImplementedError("backend='lava' has no counterpart in SpikingJelly 2")
        for name in _UNUSED:
            given.pop(name, None)
        if given.get("surrogate_function") is None:
            given["surrogate_function"] = surrogate.Sigmoid()  # the old default was one for all
        super().__init__(**given)
        self.backend = "auto" if backend in ("torch", "cupy") else backend  # type: ignore[assignment]
        if self.is_multi_step:
            self.step_mode, self.store_v_seq = "m", True
        self._made_with = self.v_threshold, self.v_reset

    def __reduce_ex__(self, protocol: Any) -> Any:
        return object.__reduce_ex__(self, protocol)  # not as in `host.backend_class`

    def reset(self) -> None:
        super().reset()
        if self.restores:
            self.v_threshold, self.v_reset = self._made_with

    def v_float_to_tensor(self, x: Tensor) -> None:
        if isinstance(self.v, float):
            self.v = torch.full_like(x.data, self.v)

    def neuronal_charge(self, x: Tensor) -> None:
        self.v_float_to_tensor(x)
        self.v = self.charge(x, self.v)

    def neuronal_adaptation(self) -> None:
        """Changes the other states between charge and fire; there are none here."""

    def neuronal_fire(self) -> Tensor:
        return self.surrogate_function(self.v - self.v_threshold)

    def neuronal_reset(self, spike: Tensor) -> None:
        options = self.v_threshold, self.v_reset, self.detach_reset
        self.v = functional.voltage_reset(self.v, spike, *options)


class AdaptBaseNode(BaseNode, neuron.AdaptBaseNode):
    """The old base of neurons with an adaptation current ``w``."""

    stands_for = neuron.AdaptBaseNode
    w: Any

    def neuronal_adaptation(self) -> None:
        self.w = self.w + 1.0 / self.tau_w * (self.a * (self.v - self.v_rest) - self.w)

    def neuronal_reset(self, spike: Tensor) -> None:
        super().neuronal_reset(spike)
        self.w = self.w + self.b * spike


def _step_in_parts(
    self: Any, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **_: Any
) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """One step of a class that defines parts of it, as a function of its states."""
    held = self._memories
    self.__dict__["_memories"] = dict(zip(held, states, strict=True))
    # In a trace, ``self`` is a copy; what the step leaves on it would be lost.
    is_traced = dispatch_modes() and traced._NODES.get(self._key) is not self
    before = traced._signature(self) if is_traced else None
    try:
        self.neuronal_charge(inputs[0])
        self.neuronal_adaptation()
        spike = self.neuronal_fire()
        self.neuronal_reset(spike)
        if is_traced and traced._signature(self) != before:
            raise NotElementwiseError("its step changes attributes that are no memories")
        return (spike,), tuple(self._memories.values())
    finally:
        self.__dict__["_memories"] = held


def _step_by_step(self: Any, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The loop over time of a class that defines the single step."""
    spikes, potentials = [], []
    for x in x_seq:
        spikes.append(self.single_step_forward(x, *args, **kwargs))
        potentials.append(self.v)
    if self.store_v_seq:
        self.v_seq = torch.stack(potentials)
    return torch.stack(spikes)


def _arguments(host: type) -> tuple[str, ...]:
    """The names of a neuron's positional arguments, up to the last that all releases share."""
    names = [*inspect.signature(host).parameters]
    if "detach_reset" not in names:  # LIAFNode passes the rest on
        return (*names[:2], *_arguments(neuron.LIFNode))
    return tuple(names[: names.index("detach_reset") + 1])


BaseNode.arguments = _arguments(neuron.BaseNode)
AdaptBaseNode.arguments = _arguments(neuron.AdaptBaseNode)


def _made(name: str, bases: tuple[type, ...], **own: Any) -> Any:
    """A class of this module, whose objects are pickled by its name."""
    made: Any = StandsFor(name.rpartition("_")[2], bases, own | {"__module__": __name__})
    made.__qualname__ = name
    globals()[name] = made
    return made


ACTIVATION_BASED: dict[str, Any] = {"BaseNode": BaseNode, "AdaptBaseNode": AdaptBaseNode}
for _name in ("IFNode", "LIFNode", "ParametricLIFNode", "QIFNode", "EIFNode", "LIAFNode",
              "KLIFNode", "IzhikevichNode"):  # fmt: skip
    _host = getattr(neuron, _name)
    _base = AdaptBaseNode if _name == "IzhikevichNode" else BaseNode
    _own = _made(
        _name, (_base, backend_class(_host)), stands_for=_host, arguments=_arguments(_host)
    )
    ACTIVATION_BASED[_name], ORIGINAL_OF[_own] = _own, _host

CLOCK_DRIVEN: dict[str, Any] = {
    _name: _made(
        f"ClockDriven_{_name}",
        (ACTIVATION_BASED[_name],),
        stands_for=ACTIVATION_BASED[_name].stands_for,
        restores=True,
        takes_v_seq=False,
    )
    for _name in ("BaseNode", "IFNode", "LIFNode", "ParametricLIFNode", "QIFNode", "EIFNode",
                  "LIAFNode")
}  # fmt: skip


for _name in ("IFNode", "LIFNode", "ParametricLIFNode", "EIFNode"):
    CLOCK_DRIVEN[f"MultiStep{_name}"] = _made(
        f"ClockDriven_MultiStep{_name}", (CLOCK_DRIVEN[_name],), is_multi_step=True
    )
for _name, _class in CLOCK_DRIVEN.items():
    ORIGINAL_OF[_class] = getattr(neuron, _name.removeprefix("MultiStep"))
