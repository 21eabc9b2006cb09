"""Any registered data set as a Lightning data module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision.transforms import v2

from .registry import LoadOptions, data_set
from .splits import Sample, Splits, frames_first

Loader = DataLoader[Any]  # its batches are frames [T, N, C, H, W] and labels [N]


class _Shifted(Dataset[Sample]):
    """Samples shifted at random by torch's random numbers, with empty pixels moving in."""

    def __init__(self, dataset: Dataset[Sample], shape: tuple[int, int, int], share: float) -> None:
        _, height, width = shape
        padding = [round(share * width), round(share * height)]
        self.dataset = dataset
        self.transform = v2.RandomCrop((height, width), padding) if any(padding) else v2.Identity()

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        frames, label = self.dataset[index]
        return self.transform(frames), label


class SpikingDataModule(L.LightningDataModule):
    """Train, validation and test batches of frames [T, N, C, H, W] and labels [N].

    Args:
        name: a data set's name: digits_events, nmnist, digits, mnist or fashion_mnist.
        root: folder of the data, for sets that are not built in.
        T: time steps: time bins of a recording, or repetitions of a static image; >= 1.
        batch_size: samples a batch; >= 1.
        validation: share of the samples held out to choose models, in (0, 1).
        test: share of the samples held out for the test, in (0, 1); without effect where the
            set comes with a test split.
        split_seed: of the draw of the three parts.
        seed: of the order of the training samples, new in each epoch.
        shift: largest random shift of a training sample, all its frames alike, as a share of
            the side, in [0, 0.5); 0 leaves them in place.
        download: whether Tonic or torchvision may fetch what is missing.
        num_workers: processes that load; 0 loads in this one.

    Raises:
        ValueError: an unknown name, or a number out of its range.
    """

    def __init__(
        self,
        name: str = "digits_events",
        root: Path | None = None,
        T: int = 8,
        batch_size: int = 32,
        validation: float = 0.15,
        test: float = 0.2,
        split_seed: int = 0,
        seed: int = 0,
        shift: float = 0.06,
        download: bool = False,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.data_set = data_set(name)
        if T < 1:
            raise ValueError(f"`T` (={T}) must be at least 1")
        if batch_size < 1:
            raise ValueError(f"`batch_size` (={batch_size}) must be at least 1")
        if not (validation > 0 and test > 0 and validation + test < 1):
            raise ValueError(
                f"`validation` (={validation}) and `test` (={test}) must be positive and leave "
                "something to train on"
            )
        if not 0 <= shift < 0.5:
            raise ValueError(f"`shift` (={shift}) must lie in [0, 0.5), a share of the side")
        self.shift = shift
        self.options = LoadOptions(root, T, validation, test, split_seed, download)
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self._splits: Splits | None = None
        self.save_hyperparameters(
            {
                "name": name,
                "root": None if root is None else str(root),
                "T": T,
                "batch_size": batch_size,
                "validation": validation,
                "test": test,
                "split_seed": split_seed,
                "seed": seed,
                "shift": shift,
                "download": download,
                "num_workers": num_workers,
            }
        )

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a frame."""
        return self.data_set.shape

    @property
    def num_classes(self) -> int:
        return self.data_set.num_classes

    def prepare_data(self) -> None:
        self.data_set.load(self.options)  # builds the caches, in one process

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002  # Lightning names it
        if self._splits is None:
            self._splits = self.data_set.load(self.options)

    @property
    def splits(self) -> Splits:
        self.setup()
        assert self._splits is not None
        return self._splits

    def train_dataloader(self) -> Loader:
        """Batches in an order that depends on ``seed`` and the epoch alone."""
        trainer = self.trainer
        sampler: DistributedSampler[Sample] = DistributedSampler(
            self.splits.train,
            num_replicas=trainer.world_size if trainer else 1,
            rank=trainer.global_rank if trainer else 0,
            seed=1_000_003 * self.seed,  # the sampler adds the epoch
        )
        return self._loader(_Shifted(self.splits.train, self.in_shape, self.shift), sampler)

    def val_dataloader(self) -> Loader:
        return self._loader(self.splits.validation)

    def test_dataloader(self) -> Loader:
        return self._loader(self.splits.test)

    def _loader(
        self, dataset: Dataset[Sample], sampler: DistributedSampler[Sample] | None = None
    ) -> Loader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=frames_first,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )
