"""Data sets by name, which is that on the command line, and any as a Lightning data module."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import lightning as L
import torch
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from ..arguments import by_name_or_path, in_range, typed
from ..checkpoint_io import check_import, checkpoint_errors, read_checkpoint, settings_in
from . import augment as augmentation
from .data_set import DataSet, Opened
from .event_sets import EVENT_FOLDER, EVENT_SETS
from .framing import Shape
from .images import IMAGE_SETS
from .loader import Drawn, Sample, Sampler, TrainLoader
from .options import DataConfig
from .splits import Splits, frames_first, summary_lines, warning_lines

_log = logging.getLogger(__name__)
Loader = DataLoader[Any]  # its batches are frames [T, N, C, H, W] and labels [N]

DATA_SETS: dict[str, DataSet] = {
    entry.name: entry for entry in (*EVENT_SETS.values(), EVENT_FOLDER, *IMAGE_SETS)
}


def sets() -> str:
    """The data sets, a line each: shape of a frame, classes, kind and source."""
    return "\n".join(map(str, DATA_SETS.values()))


def data_set(name: str) -> DataSet:
    """The registered data set of that name, or a `DataSet` of one's own by its import path.

    Raises:
        ValueError: there is none; the message lists the known ones.
    """
    return by_name_or_path("data set", name, DATA_SETS, is_data_set, "htaf_snn.data.DataSet")


def is_data_set(found: object) -> bool:
    return isinstance(found, DataSet)


class SpikingDataModule(L.LightningDataModule):
    """Train, validation and test batches of frames [T, N, C, H, W] and labels [N].

    Training batches are the same for the same ``seed`` and epoch. Torch's random numbers are
    seeded for each. With ``mixup`` or ``cutmix`` their labels are probabilities
    [N, num_classes] float32, which `torch.nn.functional.cross_entropy` takes.

    Args:
        config: which data, and what is made of them.
        seed: of the order of the training samples, new in each epoch.

    Raises:
        ValueError: an unknown name, a number out of its range, or an option that does not apply
            to this data set.
    """

    def __init__(self, config: DataConfig | None = None, seed: int = 0) -> None:
        super().__init__()
        self.config = config or DataConfig()
        self.data_set = data_set(self.config.name)
        self.data_set.check(self.config)
        self._frame_names, _ = augmentation.parse(self.config.augment, self.data_set.kind)
        in_range("seed", seed, 0, 2**32 - 1)
        self.seed = seed
        workers, size = self.config.num_workers, self.config.batch_size
        self._batches: Any = {"batch_size": size, "num_workers": workers,
                              "persistent_workers": workers > 0}  # fmt: skip
        self.save_hyperparameters(self.config.plain() | {"seed": seed})

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # Lightning's options are not for it
        cls, checkpoint_path: Any, root: Path | None = None, allow: str | None = None
    ) -> Any:
        """Builds the data module of a checkpoint of `fit`; nothing is downloaded.

        Args:
            checkpoint_path: a file written by `fit`; each of its settings is checked.
            root: folder of the data, if it has moved.
            allow: module that its data set may be imported from.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a checkpoint of this library, is damaged, or names a data
                set of a module that is neither imported nor allowed.
        """
        path = Path(checkpoint_path)
        return cls.of_checkpoint(read_checkpoint(path), path, root, allow)

    @classmethod
    def of_checkpoint(
        cls, content: dict[str, Any], path: Path, root: Path | None, allow: str | None
    ) -> Self:
        """Builds it from a checkpoint's content, read from ``path``."""
        with checkpoint_errors(path):
            settings = settings_in(content, "datamodule_hyper_parameters")
            check_import("data set", settings.get("name"), is_data_set, allow)
            settings = {"camera": None, "split": "random"} | settings  # earlier ones lack them
            seed = typed("seed", settings.pop("seed", None), int)
            what = "entry of its datamodule_hyper_parameters"
            config = DataConfig.of(settings, what, complete=True)
            # A file from elsewhere has nothing fetched or written.
            return cls(dataclasses.replace(config, download=False, root=root or config.root), seed)

    @functools.cached_property
    def _opened(self) -> Opened:
        return self.data_set.open(self.config)

    @property
    def in_shape(self) -> Shape:
        """(C, H, W) of a frame; of a folder of files, as their headers say."""
        return self._opened.shape

    @property
    def num_classes(self) -> int:
        """Number of labels; of a folder of files, of its class folders."""
        return self._opened.num_classes

    def read_frames(self, recording: Path) -> Tensor:
        """Frames [T, P, H, W] of an event recording, made as those of this data set.

        Raises:
            ValueError: this is a set of static images, or the recording is damaged.
        """
        if self._opened.framing is None:
            raise ValueError(f"{self.data_set.name} has static images, not event recordings")
        return torch.from_numpy(self._opened.framing.read(recording)).float()

    def state_dict(self) -> dict[str, Any]:
        """Returns the framing and the classes, with which a checkpoint labels other recordings."""
        framing = self._opened.framing
        if framing is None:
            return {}
        return {"framing": dataclasses.asdict(framing), "classes": self._opened.classes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuses to go on with other classes than the checkpoint's.

        Raises:
            ValueError: they differ.
        """
        classes = state_dict.get("classes")
        if classes is not None and classes != self.state_dict().get("classes"):
            raise ValueError(
                f"the checkpoint was trained on the classes {', '.join(classes)}; here they are "
                f"{', '.join(self._opened.classes)}"
            )

    def prepare_data(self) -> None:
        """Builds the caches, in one process."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        splits = self.splits
        if self.data_set.kind == "events" and stage == "fit":
            for line in summary_lines(splits):
                _log.info("%s", line)
            for warning in warning_lines(splits):
                _log.warning("%s", warning)

    @functools.cached_property
    def splits(self) -> Splits:
        return self._opened.load()

    @property
    def has_validation(self) -> bool:
        """True if there is a validation part."""
        return len(self.splits.validation) > 0  # type: ignore[arg-type]

    def train_dataloader(self) -> Loader:
        """Batches in an order that depends on ``seed`` and the epoch alone."""
        trainer = self.trainer
        sampler = Sampler(
            self.splits.train,
            self.config.batch_size,
            no_single=self.config.T == 1,  # of which batch norm may see one value a channel
            num_replicas=trainer.world_size if trainer else 1,
            rank=trainer.global_rank if trainer else 0,
            seed=1_000_003 * self.seed,  # the sampler adds the epoch
        )
        transform = augmentation.frame_transform(
            self._frame_names, self.in_shape[1:], self.config.shift
        )
        collate: Callable[[list[Sample]], tuple[Tensor, Tensor]] = frames_first
        if self.config.mixup > 0 or self.config.cutmix > 0:
            collate = augmentation.Mixing(self.config.mixup, self.config.cutmix, self.num_classes)
        drawn = Drawn(self.splits.train, transform, self.seed)
        return TrainLoader(drawn, sampler=sampler, collate_fn=collate, **self._batches)

    def val_dataloader(self) -> Loader:
        return self._loader(self.splits.validation)

    def test_dataloader(self) -> Loader:
        return self._loader(self.splits.test)

    def _loader(self, dataset: Dataset[Sample]) -> Loader:
        # In an order of chance, always the same: a batch of one class has other statistics.
        length = len(dataset)  # type: ignore[arg-type]
        order = torch.randperm(length, generator=torch.Generator().manual_seed(0))
        dataset = Subset(dataset, order.tolist())
        sampler = None
        if self.trainer and self.trainer.world_size > 1:
            world, rank = self.trainer.world_size, self.trainer.global_rank
            if length < world:
                raise ValueError(
                    f"{length} samples to measure on and `trainer.devices` (={world}): "
                    "every device needs one; use fewer devices"
                )
            # Lightning's own choice repeats samples, where there are not as many on every device.
            sampler = UnrepeatedDistributedSampler(dataset, world, rank, shuffle=False)
        return DataLoader(dataset, sampler=sampler, collate_fn=frames_first, **self._batches)
