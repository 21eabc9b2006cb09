"""Static images as frames over time."""

from __future__ import annotations

from dataclasses import dataclass

from spikingjelly.activation_based import encoding
from torch import Tensor

from ..arguments import one_of

ENCODERS = ("direct", "poisson", "latency")


@dataclass(frozen=True)
class Encoder:
    """Frames [T, C, H, W] float32 of a uint8 image [C, H, W], intensity 0 to 255 as 0 to 1.

    Args:
        name: "direct" shows the image unchanged at every step; "poisson" fires a spike at each
            step with the intensity as its probability; "latency" fires one spike a pixel, the
            earlier the brighter (intensity 1 at the first step, 0 at the last). The latter two
            are SpikingJelly's encoders.
        T: time steps, >= 1.

    Raises:
        ValueError: an unknown name.
    """

    name: str
    T: int

    def __post_init__(self) -> None:
        one_of("encoder", self.name, ENCODERS)

    @property
    def random(self) -> bool:
        """True if the same image gives other frames each time."""
        return self.name == "poisson"

    def __call__(self, image: Tensor) -> Tensor:
        x = image.float() / 255
        if self.name == "latency":
            x_seq: Tensor = encoding.LatencyEncoder(self.T).single_step_encode(x)
        else:
            x_seq = x.expand(self.T, *x.shape)
        if self.name == "poisson":
            x_seq = encoding.PoissonEncoder()(x_seq)
        return x_seq
