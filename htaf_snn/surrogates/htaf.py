"""HTAF as a spike function and as an activation."""

from torch import Tensor

from . import functional
from .spike_function import Mode, SpikeFunction


class HTAFSpike(SpikeFunction):
    """HTAF as the firing function of any SpikingJelly neuron, without a surrogate gradient.

    ``HTAF(x) = sigmoid(alpha1 * tanh(alpha0 * x))`` of the charged potential minus the
    threshold: smooth with its true derivative in training, the exact step at inference.

    The slope at 0 is ``alpha0 * alpha1 / 4``. At the default's, near 1, gradients keep their size
    over 20 layers; at (1.5, 6) they grow by 1.4 to 1.5 a layer. A function so smooth needs the
    step brought in during training, as `SharpnessSchedule` does, or its network loses accuracy
    when it fires. The output leaks ``sigmoid(-alpha1)`` (0.0025 at alpha1 = 6).

    Args:
        alpha0: inner sharpness, > 0, dimensionless; the tail decays as ``exp(-2 alpha0 |x|)``.
        alpha1: outer saturation, > 0, dimensionless.
        mode: "auto", "soft" or "hard"; see `SpikeFunction`.
        learnable: whether alpha0 and alpha1 are trained.
        num_channels: one pair a channel instead of one for all; with ``learnable`` only.
        levels: the largest output, for integer spikes from 0 to it; see `SpikeFunction`.

    Shape:
        input and output ``[N, *]``; ``[N, C, *]`` with ``num_channels`` = C.

    Raises:
        ValueError: an alpha that is not positive and finite, or an unknown mode.

    Source:
        arXiv 2605.11558; see `functional.htaf` on how the formula was established.

    Example:
        ``neuron.LIFNode(surrogate_function=HTAFSpike())``
    """

    parameter_names = ("alpha0", "alpha1")
    alpha0: functional.Parameter
    alpha1: functional.Parameter

    def __init__(
        self,
        alpha0: float = 0.67,
        alpha1: float = 6.0,
        mode: Mode = "auto",
        learnable: bool = False,
        num_channels: int | None = None,
        levels: int = 1,
    ) -> None:
        super().__init__(
            alpha0=alpha0, alpha1=alpha1, mode=mode, learnable=learnable,
            num_channels=num_channels, levels=levels,
        )  # fmt: skip

    primitive_function = staticmethod(functional.htaf)


class HTAF(HTAFSpike):
    """HTAF as an activation for networks without time: binary, Heaviside, concept-bottleneck.

    The same function and modes as `HTAFSpike`, of an input that is not a potential.

    Args:
        alpha0: inner sharpness, > 0, dimensionless.
        alpha1: outer saturation, > 0, dimensionless.
        mode: "auto", "soft" or "hard"; see `SpikeFunction`.
        learnable: whether alpha0 and alpha1 are trained.
        num_channels: one pair a channel instead of one for all; with ``learnable`` only.
        signed: outputs ``2 HTAF - 1`` in (-1, 1), whose hard form is the sign, +1 at exactly 0.

    Shape:
        input and output ``[N, *]``; ``[N, C, *]`` with ``num_channels`` = C.
    """

    def __init__(
        self,
        alpha0: float = 0.67,
        alpha1: float = 6.0,
        mode: Mode = "auto",
        learnable: bool = False,
        num_channels: int | None = None,
        signed: bool = False,
    ) -> None:
        super().__init__(alpha0, alpha1, mode, learnable, num_channels)
        self.signed = signed

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        return 2 * output - 1 if self.signed else output

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, signed={self.signed}"
