"""Spike functions to compare HTAF with, beside SpikingJelly's built-in surrogates."""

import functools
import inspect

import torch
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor

from . import functional
from .spike_function import Mode, SpikeFunction


class ScaledSigmoid(SpikeFunction):
    """``sigmoid(beta * x)``, smooth in training and the exact step at inference.

    The paper's baseline for a smooth step. Its slope at 0 is ``beta / 4`` and its derivative
    decays as ``exp(-beta |x|)``.

    Args:
        beta: sharpness, > 0, dimensionless. The paper uses 22.
        mode: "auto", "soft" or "hard"; see `SpikeFunction`.
        learnable: whether beta is trained.
        num_channels, levels: see `SpikeFunction`.
    """

    beta: float = 4.0

    @staticmethod
    def primitive_function(x: Tensor, beta: functional.Parameter) -> Tensor:
        return torch.sigmoid(beta * x.to(functional.compute_dtype(x.dtype))).to(x.dtype)


class StraightThrough(SpikeFunction):
    """The straight-through estimator: the exact step, whose gradient passes where ``|x| <= clip``.

    Mode "hard" by default; its primitive, ``clamp(x, -clip, clip) + 1/2``, is of use as a
    surrogate only.

    Args:
        clip: half-width of the band that lets gradients pass, > 0, dimensionless; the band
            includes its ends. 1 is the choice of the source, for activations of slope 1.
        mode: "hard", "auto" or "soft"; see `SpikeFunction`.

    Raises:
        ValueError: a clip that is not positive and finite, or an unknown mode.

    Source:
        Bengio, Leonard, Courville, arXiv 1308.3432; clipped as in Hubara et al.,
        "Binarized Neural Networks", NeurIPS 2016, section 1.3.
    """

    parameter_names = ("clip",)
    clip: float

    def __init__(self, clip: float = 1.0, mode: Mode = "hard") -> None:
        super().__init__(clip=clip, mode=mode)

    @staticmethod
    def primitive_function(x: Tensor, clip: float) -> Tensor:
        inside = x.abs() <= clip
        return torch.where(inside, x, x.detach().clamp(-clip, clip)) + 0.5


class IntegerSpike(SpikeFunction):
    """The potential, rounded to an integer from 0 to ``levels``, by the straight-through estimator.

    ``round(clamp(x + 1, 0, levels))``, halves up, of x = charged potential - threshold; the
    gradient passes where ``0 <= x + 1 <= levels``. Mode "hard" by default. Of a neuron with a
    threshold of 1 and ``v_reset=None`` it makes I-LIF, SpikingJelly's ``ILIFNode`` (``tau`` 4/3,
    ``decay_input=False``); the ``round(clamp(x, 0, 4)) / 4`` of Spike-Driven Transformer 3 is the
    same, with its 1/4 in the next layer's weights. Beside it `HTAFSpike(levels=4)` rounds down.

    Args:
        levels: the largest output, >= 1.
        mode: "hard", "auto" or "soft"; see `SpikeFunction`.

    Source:
        Luo et al., arXiv 2407.20708 (I-LIF); Yao et al., arXiv 2411.16061 (Spike-Driven
        Transformer 3).
    """

    def __init__(self, levels: int = 4, mode: Mode = "hard") -> None:
        super().__init__(levels=levels, mode=mode)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.5)  # whose steps, at 0, 1, ..., are where x + 1 is halfway

    def _smooth(self, x: Tensor) -> Tensor:
        return (x + 0.5).clamp(0, self.levels)


@functools.cache
def smooth_form(built_in: type[SurrogateFunctionBase]) -> type[SpikeFunction]:
    """A built-in surrogate of SpikingJelly as a spike function that can train smooth.

    Its primitive is the built-in's, its derivative the surrogate gradient, its parameters and
    defaults the same; with the modes and the hardness of `SpikeFunction`.

    Args:
        built_in: the class, for example ``surrogate.ATan``.

    Raises:
        ValueError: it has no primitive, or a parameter that is no positive number.
    """
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(built_in).parameters.items()
        if name != "spiking"
    }
    reason = ""
    if bad := [n for n, value in defaults.items() if not (type(value) is float and value > 0)]:
        reason = f"has a `{bad[0]}` (={defaults[bad[0]]}) that is no positive float"
    else:
        try:
            built_in.primitive_function(torch.zeros(1), **defaults)
        except NotImplementedError:
            reason = "has no primitive"
    if reason:
        raise ValueError(f"{built_in.__name__} {reason}, so it can't train smooth nor be hardened")
    fields = {"__annotations__": dict.fromkeys(defaults, float), **defaults}
    primitive = {"primitive_function": staticmethod(built_in.primitive_function)}
    return type(f"Smooth{built_in.__name__}", (SpikeFunction,), fields | primitive)
