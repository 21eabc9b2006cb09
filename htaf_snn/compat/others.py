"""The old packages' surrogates and layers, where SpikingJelly 2's are not the same."""

from functools import partialmethod
from typing import Any, ClassVar

import torch
from spikingjelly.activation_based import layer, surrogate
from torch import Tensor

from .nodes import StandsFor


class SurrogateFunctionBase(surrogate.SurrogateFunctionBase, metaclass=StandsFor):
    """The old base of surrogates: ``alpha`` first, and passed on by position."""

    stands_for: ClassVar[Any] = surrogate.SurrogateFunctionBase

    def __init__(self, alpha: Any = None, spiking: Any = True, **named: Any) -> None:
        if isinstance(alpha, bool):  # SpikingJelly 2 has ``spiking`` first
            alpha, spiking = None, alpha
        super().__init__(spiking, **({} if alpha is None else {"alpha": alpha}), **named)

    def forward(self, x: Tensor) -> Tensor:
        function = self.spiking_function if self.spiking else self.primitive_function
        return function(x, *self._sg_params.values())


class MultiArgsSurrogateFunctionBase(SurrogateFunctionBase):
    """The old base of surrogates that keep their parameters themselves."""

    def __init__(self, spiking: bool, *_: Any, **__: Any) -> None:
        super().__init__(spiking=spiking)


class ATan(surrogate.ATan):
    """SpikingJelly's, which before 0.0.0.0.6 could be learned."""

    def __init__(self, alpha: float = 2.0, spiking: bool = True, learnable: bool = False) -> None:
        if learnable:
            raise NotImplementedError(
                "ATan(learnable=True) has no counterpart in SpikingJelly 2; use "
                "htaf_snn.surrogates.baselines.smooth_form(surrogate.ATan)"
                "(mode='hard', learnable=True)"
            )
        super().__init__(alpha, spiking)


class _LeakyStep(torch.autograd.Function):
    """The step, with the slope 1/w within w of 0 and c outside; SpikingJelly 2 has 1/(2w)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: float, c: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.constants = w, c
        return surrogate.heaviside(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,), (w, c) = ctx.saved_tensors, ctx.constants
        return grad * torch.where(x.abs() < w, 1 / w, c), None, None


class PiecewiseLeakyReLU(surrogate.PiecewiseLeakyReLU):
    """SpikingJelly's, with the gradient that it had."""

    @staticmethod
    def spiking_function(x: Tensor, w: float, c: float) -> Tensor:
        return _LeakyStep.apply(x, w, c)


class SeqToANNContainer(layer.SeqToANNContainer):
    """SpikingJelly's, which reads checkpoints and code from before 0.0.0.0.8: ``.module``."""

    @property
    def module(self) -> Any:
        return self[0] if len(self) == 1 else self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        old, new = f"{prefix}module.", prefix + ("0." if len(self) == 1 else "")
        for key in [k for k in state_dict if k.startswith(old)]:
            state_dict[new + key.removeprefix(old)] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


class MultiStepDropout(layer.Dropout):
    """Dropout of a sequence, with one mask for all steps."""

    __init__ = partialmethod(layer.Dropout.__init__, step_mode="m")


class MultiStepDropout2d(layer.Dropout2d):
    """Dropout of whole channels of a sequence, with one mask for all steps."""

    __init__ = partialmethod(layer.Dropout2d.__init__, step_mode="m")


def set_backend(net: torch.nn.Module, backend: str, instance: Any = (torch.nn.Module,)) -> None:
    """Sets the backend of a network's neurons; "cupy" is "auto", which chooses by device."""
    for module in net.modules():
        if isinstance(module, instance) and hasattr(module, "backend"):
            module.backend = "auto" if backend == "cupy" else backend


def cext_node(base: Any) -> Any:
    """A neuron of ``spikingjelly.cext.neuron``: its surrogate is a name, and tau 100."""
    defaults: dict[str, Any] = {"surrogate_function": "ATan", "alpha": 2.0}
    if "tau" in base.arguments:
        defaults["tau"] = 100.0
    names = [name for name in base.arguments if name != "decay_input"]
    names.insert(names.index("surrogate_function") + 1, "alpha")

    class Node(base):
        def __init__(self, *args: Any, detach_input: bool = False, **kwargs: Any) -> None:
            if detach_input:
                raise NotImplementedError(f"detach_input of {base.__name__} has no counterpart")
            given = defaults | dict(zip(names, args, strict=False)) | kwargs
            chosen = getattr(surrogate, given.pop("surrogate_function"))
            given["surrogate_function"] = chosen(given.pop("alpha"))
            super().__init__(**given)

    Node.__name__ = Node.__qualname__ = base.__name__
    return Node
