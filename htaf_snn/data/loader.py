"""Samples held as arrays, and loading them so that a run can stop at any batch and go on."""

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from spikingjelly.activation_based import encoding
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

from ..arguments import one_of
from ..process import seed_of

Sample = tuple[Tensor, int]  # frames [T, C, H, W] and label
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
        one_of("encoder", self.name, ("direct", "poisson", "latency"))

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

    # Of event recordings alone: of each sample its file's number, events, duration and checksum.
    index: NDArray[np.void] | None = None
    files: Sequence[Path] = ()

    def __init__(
        self, arrays: NDArray[np.generic], labels: NDArray[np.int64], encode: Encoder | Transform
    ) -> None:
        self.arrays, self.labels, self.encode = arrays, labels, encode

    def __getstate__(self) -> dict[str, Any]:
        mapped = isinstance(self.arrays, np.memmap) and isinstance(self.arrays.base, mmap.mmap)
        # another process maps the file anew
        arrays = self.arrays.filename if mapped else self.arrays  # type: ignore[attr-defined]
        return self.__dict__ | {"arrays": arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if not isinstance(state["arrays"], np.ndarray):
            state["arrays"] = np.load(state["arrays"], mmap_mode="r")
        self.__dict__.update(state)

    def __len__(self) -> int:
        return len(self.labels)

    def raw(self, index: int) -> Tensor:
        """A copy of one array, as a tensor."""
        return torch.from_numpy(np.array(self.arrays[index]))

    def drawn(self, index: int, augment: Transform) -> Sample:
        """A training sample, whose array ``augment`` changes at random before it is encoded."""
        return self.encode(augment(self.raw(index))), int(self.labels[index])

    def __getitem__(self, index: int) -> Sample:
        raw, label = self.raw(index), int(self.labels[index])
        if not (isinstance(self.encode, Encoder) and self.encode.name == "poisson"):
            return self.encode(raw), label
        with torch.random.fork_rng(devices=[]):  # what is measured on is the same each time
            torch.default_generator.manual_seed(index)
            return self.encode(raw), label


class Sampler(DistributedSampler[Any]):
    """A sampler of (epoch, index) that can begin within an epoch, once, at ``start``.

    With ``no_single`` a last batch of one sample is left out, as batch norm needs: its sample is
    another in every epoch.
    """

    start = 0

    def __init__(self, dataset: Any, batch_size: int, no_single: bool, **options: Any) -> None:
        super().__init__(dataset, **options)
        if no_single and self.num_samples % batch_size == 1 < self.num_samples:
            self.drop_last = True
            self.num_samples -= 1
            self.total_size -= self.num_replicas

    def __iter__(self) -> Iterator[Any]:
        start, self.start = self.start, 0
        return iter([(self.epoch, index) for index in super().__iter__()][start:])


class TrainLoader(DataLoader[Any]):
    """A loader that goes on within an epoch, with any number of workers.

    Its state is the number of batches that it has handed out; those that workers have made in
    advance do not count, and are made again. (A sample's random changes depend on it and the epoch
    alone.)
    """

    sampler: Sampler
    _start = _yielded = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._yielded, self._start = self._start, 0
        self.sampler.start = self._yielded * (self.batch_size or 1)
        for batch in super().__iter__():
            self._yielded += 1
            yield batch

    def _sizes(self) -> dict[str, int]:
        return {
            "replicas": self.sampler.num_replicas,
            "samples": self.sampler.num_samples,
            "batch_size": self.batch_size or 1,
        }

    def state_dict(self) -> dict[str, int]:
        """Returns the loader's place, which `load_state_dict` takes."""
        return {"epoch": self.sampler.epoch, "batches": self._yielded, **self._sizes()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Lets the next iteration begin after the last batch that was handed out."""
        if "batches" not in state_dict:
            raise ValueError(
                "the checkpoint was written by an earlier version of htaf_snn, whose place within "
                "an epoch is not known here; train anew"
            )
        for name, own in self._sizes().items():
            if state_dict[name] != own:
                raise ValueError(
                    f"the checkpoint was written within an epoch with {state_dict[name]} {name} a "
                    f"process, here there are {own}; go on as it was, or from an epoch's end"
                )
        finished = state_dict["batches"] >= len(self)
        self.sampler.set_epoch(state_dict["epoch"] + finished)
        self._start = self._yielded = 0 if finished else state_dict["batches"]


class Drawn(Dataset[Sample]):
    """Training samples by (epoch, index), changed at random: each by these two and the seed alone.

    So a run that goes on within an epoch draws what it would have drawn; the size of the batches
    and the number of workers change nothing. (What a batch draws, MixUp and CutMix, depends on all
    that are in it.)
    """

    def __init__(self, train: Dataset[Sample], transform: Transform, seed: int) -> None:
        assert isinstance(train, Subset) and isinstance(train.dataset, Samples)
        self.samples, self.indices = train.dataset, train.indices
        self.transform, self.seed = transform, seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        # the CPU's numbers alone: torch.manual_seed takes fifty times as long
        torch.default_generator.manual_seed(seed_of(self.seed, epoch, index))
        return self.samples.drawn(self.indices[index], self.transform)

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Sample]:
        samples = [self[key] for key in keys]
        torch.default_generator.manual_seed(seed_of(self.seed, keys))
        return samples
