"""Samples held as arrays, of which each becomes frames when it is asked for."""

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from spikingjelly.activation_based import encoding
from torch import Tensor
from torch.utils.data import Dataset

from ..arguments import one_of
from .splits import Sample

ENCODERS = ("direct", "poisson", "latency")
Transform = Callable[[Tensor], Tensor]


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

    def __call__(self, image: Tensor) -> Tensor:
        x = image.float() / 255
        if self.name == "latency":
            return encoding.LatencyEncoder(self.T).single_step_encode(x)
        x_seq = x.expand(self.T, *x.shape)
        return encoding.PoissonEncoder()(x_seq) if self.name == "poisson" else x_seq


class Samples(Dataset[Sample]):
    """Arrays and labels; an item is (frames [T, C, H, W] float32, label).

    Args:
        arrays: [N, ...], what ``encode`` takes; may lie in a file that is mapped into memory.
        labels: [N].
        encode: what makes frames of one array.
    """

    def __init__(
        self, arrays: NDArray[np.generic], labels: NDArray[np.int64], encode: Encoder | Transform
    ) -> None:
        self.arrays, self.labels, self.encode = arrays, labels, encode
        self.augment: Transform | None = None  # changes a training sample before it is encoded

    def __getstate__(self) -> dict[str, Any]:
        mapped = isinstance(self.arrays, np.memmap) and isinstance(self.arrays.base, mmap.mmap)
        # another process maps the file anew
        arrays = self.arrays.filename if mapped else self.arrays  # type: ignore[attr-defined]
        return self.__dict__ | {"arrays": arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if not isinstance(state["arrays"], np.ndarray):
            state["arrays"] = np.load(state["arrays"], mmap_mode="r")
        self.__dict__.update(state)

    def raw(self, index: int) -> Tensor:
        """A copy of one array, as a tensor."""
        return torch.from_numpy(np.array(self.arrays[index]))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        raw, label = self.raw(index), int(self.labels[index])
        if self.augment is not None:
            return self.encode(self.augment(raw)), label
        if not (isinstance(self.encode, Encoder) and self.encode.name == "poisson"):
            return self.encode(raw), label
        with torch.random.fork_rng(devices=[]):  # what is measured on is the same each time
            torch.default_generator.manual_seed(index)
            return self.encode(raw), label
