"""Loading training samples so that a run can stop at any batch and go on with the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

from ..process import seed_torch
from .samples import Samples
from .splits import Sample


class TrainLoader(DataLoader[Any]):
    """A loader that goes on within an epoch, with any number of workers.

    Its state is the number of batches that it has handed out; those that workers have made in
    advance do not count, and are made again. (A batch's random changes depend on its samples.)
    """

    _start = _yielded = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        sampler = self.sampler
        assert isinstance(sampler, Sampler)
        self._yielded, self._start = self._start, 0
        sampler.start = self._yielded * (self.batch_size or 1)
        for batch in super().__iter__():
            self._yielded += 1
            yield batch

    def _sizes(self) -> dict[str, int]:
        assert isinstance(self.sampler, Sampler)
        return {
            "replicas": self.sampler.num_replicas,
            "samples": self.sampler.num_samples,
            "batch_size": self.batch_size or 1,
        }

    def state_dict(self) -> dict[str, int]:
        """What `load_state_dict` takes."""
        assert isinstance(self.sampler, Sampler)
        return {"epoch": self.sampler.epoch, "batches": self._yielded, **self._sizes()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Lets the next iteration begin after the last batch that was handed out.

        Raises:
            ValueError: the state is of other data, another batch size, or an earlier version.
        """
        assert isinstance(self.sampler, Sampler)
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
        self._start = 0 if finished else state_dict["batches"]
        self._yielded = self._start


class Sampler(DistributedSampler[Any]):
    """A sampler that can begin within an epoch, once, at ``start``."""

    start = 0

    def __iter__(self) -> Iterator[Any]:
        start, self.start = self.start, 0
        return iter(list(super().__iter__())[start:])


class Drawn(Dataset[Sample]):
    """Training samples, changed at random; a batch's changes depend on its samples and the seed.

    So a run that goes on within an epoch draws what it would have drawn, and the number of workers
    changes nothing.
    """

    def __init__(
        self, train: Dataset[Sample], transform: Callable[[Tensor], Tensor], seed: int
    ) -> None:
        assert isinstance(train, Subset) and isinstance(train.dataset, Samples)
        self.dataset = Subset(train.dataset.for_training(transform), train.indices)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        seed_torch(self.seed, indices)
        return [self.dataset[index] for index in indices]
