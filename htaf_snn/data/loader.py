"""Loading training samples so that a run can stop at any batch and go on with the next."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

from ..process import seed_of
from .samples import Samples, Transform
from .splits import Sample


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
        samples = copy.copy(train.dataset)
        samples.augment = transform
        self.dataset: Subset[Sample] = Subset(samples, train.indices)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        # the CPU's numbers alone: torch.manual_seed takes fifty times as long
        torch.default_generator.manual_seed(seed_of(self.seed, epoch, index))
        return self.dataset[index]

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Sample]:
        samples = [self[key] for key in keys]
        torch.default_generator.manual_seed(seed_of(self.seed, keys))
        return samples
