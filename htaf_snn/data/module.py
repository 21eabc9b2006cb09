"""Any registered data set as a Lightning data module."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..arguments import in_range
from . import augment as augmentation
from . import summary
from .definition import LoadOptions
from .framing import Framing
from .loader import Drawn, Sampler, TrainLoader
from .registry import data_set
from .splits import Sample, Splits, frames_first

_log = logging.getLogger(__name__)
Loader = DataLoader[Any]  # its batches are frames [T, N, C, H, W] and labels [N]


class SpikingDataModule(L.LightningDataModule):
    """Train, validation and test batches of frames [T, N, C, H, W] and labels [N].

    Training batches are the same for the same ``seed`` and epoch. Torch's random numbers are
    seeded for each. With ``mixup`` or ``cutmix`` their labels are probabilities
    [N, num_classes] float32, which `torch.nn.functional.cross_entropy` takes.

    Args:
        name: a data set's name, as ``htaf-snn data`` lists them.
        root: folder of the data, for sets that are not built in.
        T: time steps: bins of a recording, or steps that an image is shown for; >= 1.
        batch_size: samples a batch; >= 1.
        validation: share of the samples held out to choose models, in (0, 1).
        test: share of the samples held out for the test, in (0, 1); without effect where the
            set comes with a test split.
        split_seed: of the draw of the three parts.
        seed: of the order of the training samples, new in each epoch.
        augment: random changes of training samples, between commas, one after the other; all
            frames of a sample alike. Of images and events: shift (by up to the argument
            ``shift``), crop (a shift by up to an eighth of the side), flip (horizontally, half of
            the samples), cutout (a square of a quarter of the area, of half the samples), roll (by
            up to a tenth of the side), rotate (by up to 15 degrees), shear (by up to 15 degrees),
            nda (a flip, then roll, rotation by up to 30 degrees, shear by up to 30 degrees or a
            square hole of a ninth of the area; Li et al., arXiv 2203.06145). Of images alone:
            autoaugment (CIFAR-10's policy up to 64 pixels, ImageNet's above). Of events alone, by
            Tonic: drop (up to 30 % of them), event_drop (Gu et al. 2021), time_jitter (standard
            deviation 1 ms), spatial_jitter (variance 0.5 pixels^2). Empty for none.
        shift: largest random shift by "shift", as a share of the side, in [0, 0.5); 0 leaves
            the samples in place.
        mixup: alpha of MixUp, >= 0; 0 is off. Where CutMix is on too, a batch has one of them.
        cutmix: alpha of CutMix, >= 0; 0 is off.
        encoder: of images: "direct", "poisson" or "latency"; see `Encoder`.
        frames_by: of events: "time", bins of equal length, or "count", of equally many events.
        downsample: of events: pixels of a frame's longer side; None keeps the sensor's.
        first_saccade: of N-MNIST, N-Caltech101 and digits_events: whether to leave out what
            comes after the first saccade (105 ms, 100 ms and 100 ms).
        size: of image_folder: side to which the images are scaled and cropped, in pixels.
        sensor_size: of event_folder: (W, H) in pixels; None takes it from the files' headers.
        ordering: of event_folder: the columns of plain [N, 4] tables, such as txyp; "auto" knows
            time and polarity by their values.
        time_unit: of event_folder: of the files' times, "us", "ms", "ns", "s", or "auto": what
            the format says, else fractions are seconds and whole numbers microseconds.
        sort: of event_folder: whether events that are not in order of time are sorted.
        events_path: of event_folder: the events' name in HDF5 files that have several.
        start: of events: microseconds after the first event that are left out.
        duration: of events: microseconds after ``start`` that are used; None uses all.
        window: of event_folder: microseconds of each of the samples that a recording is cut
            into, which all go into one split; None takes it whole.
        denoise: of events: microseconds within which an event must have another beside it, or is
            left out, by Tonic's filter.
        hot_pixels: of events: events a second above which a pixel is left out.
        skip_bad: of events: whether recordings that can't be read are left out, and listed.
        group: of event_folder: a regular expression that finds subject or session in a
            recording's path (its first group, such as "user(\\d+)"); whole groups are split.
        split_file: of event_folder: lines ``path,part``, with part train, validation or test.
        download: whether Tonic or torchvision may fetch what is missing.
        num_workers: processes that load; 0 loads in this one.

    Raises:
        ValueError: an unknown name, a number out of its range, or an option that does not apply
            to this data set.
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
        augment: str = "shift",
        shift: float = 0.06,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        encoder: Literal["direct", "poisson", "latency"] = "direct",
        frames_by: Literal["time", "count"] = "time",
        downsample: int | None = None,
        first_saccade: bool = False,
        size: int | None = None,
        sensor_size: tuple[int, int] | None = None,
        ordering: str = "auto",
        time_unit: Literal["auto", "us", "ms", "ns", "s"] = "auto",
        sort: bool = False,
        events_path: str | None = None,
        start: int = 0,
        duration: int | None = None,
        window: int | None = None,
        denoise: int | None = None,
        hot_pixels: float | None = None,
        skip_bad: bool = False,
        group: str | None = None,
        split_file: Path | None = None,
        download: bool = False,
        num_workers: int = 0,
    ) -> None:
        values = locals()
        settings = {k: values[k] for k in inspect.signature(SpikingDataModule).parameters}
        super().__init__()
        self.data_set = data_set(name)
        for key, count, least, most in (
            ("T", T, 1, 2**14), ("batch_size", batch_size, 1, 2**16), ("size", size, 1, 2**12),
            ("downsample", downsample, 1, 2**12), ("num_workers", num_workers, 0, 2**8),
            ("seed", seed, 0, 2**32 - 1), ("split_seed", split_seed, 0, 2**32 - 1),
            ("mixup", mixup, 0, 1e3), ("cutmix", cutmix, 0, 1e3),
            *(("sensor_size", side, 1, 2**12) for side in sensor_size or ()),
        ):  # fmt: skip
            if count is not None:
                in_range(key, count, least, most)
        if not (validation > 0 and test > 0 and validation + test < 1):
            raise ValueError(
                f"`validation` (={validation}) and `test` (={test}) must be positive and leave "
                "something to train on"
            )
        if not 0 <= shift < 0.5:
            raise ValueError(f"`shift` (={shift}) must lie in [0, 0.5), a share of the side")
        self._frame_names, event_names = augmentation.parse(augment, self.data_set.kind)
        self.shift, self.mixup, self.cutmix = shift, mixup, cutmix
        self.options = LoadOptions(
            root=None if root is None else Path(root),
            T=T,
            validation=validation,
            test=test,
            split_seed=split_seed,
            download=download,
            encoder=encoder,
            frames_by=frames_by,
            downsample=downsample,
            first_saccade=first_saccade,
            size=size,
            sensor_size=None if sensor_size is None else (sensor_size[0], sensor_size[1]),
            ordering=ordering,
            time_unit=time_unit,
            sort=sort,
            events_path=events_path,
            start=start,
            duration=duration,
            window=window,
            denoise=denoise,
            hot_pixels=hot_pixels,
            skip_bad=skip_bad,
            group=group,
            split_file=None if split_file is None else Path(split_file),
            event_augment=tuple(event_names),
        )
        self.data_set.check(self.options)
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self._splits: Splits | None = None
        paths = {"root": root, "split_file": split_file}
        self.save_hyperparameters(
            settings | {key: None if path is None else str(path) for key, path in paths.items()}
        )

    @functools.cached_property
    def _inspected(self) -> tuple[tuple[int, int, int], int]:
        return self.data_set.inspect(self.options)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a frame; of a folder of files, as their headers say."""
        return self._inspected[0]

    @property
    def num_classes(self) -> int:
        """Number of labels; of a folder of files, of its class folders."""
        return self._inspected[1]

    def read_frames(self, recording: Path) -> Tensor:
        """Frames [T, P, H, W] of an event recording, made as those of this data set.

        Raises:
            ValueError: this is a set of static images, or the recording is damaged.
        """
        return torch.from_numpy(self._framing[0].read(recording)).float()

    @functools.cached_property
    def _framing(self) -> tuple[Framing, list[str]]:
        if self.data_set.framing is None:
            raise ValueError(f"{self.data_set.name} has static images, not event recordings")
        return self.data_set.framing(self.options)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to label other recordings: their framing and the classes."""
        if self.data_set.framing is None:
            return {}
        framing, classes = self._framing
        return {"framing": dataclasses.asdict(framing), "classes": classes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuses to go on with other classes than the checkpoint's.

        Raises:
            ValueError: they differ.
        """
        classes = state_dict.get("classes")
        if classes is not None and classes != self.state_dict().get("classes"):
            raise ValueError(
                f"the checkpoint was trained on the classes {', '.join(classes)}; here they are "
                f"{', '.join(self._framing[1])}"
            )

    def prepare_data(self) -> None:
        self.data_set.load(self.options)  # builds the caches, in one process

    def setup(self, stage: str | None = None) -> None:
        if self._splits is None:
            self._splits = self.data_set.load(self.options)
            if self.data_set.kind == "events" and stage == "fit":
                for line in summary.lines(self._splits):
                    _log.info("%s", line)
                for warning in summary.warnings(self._splits):
                    _log.warning("%s", warning)

    @property
    def splits(self) -> Splits:
        self.setup()
        assert self._splits is not None
        return self._splits

    def train_dataloader(self) -> Loader:
        """Batches in an order that depends on ``seed`` and the epoch alone."""
        trainer = self.trainer
        sampler = Sampler(
            self.splits.train,
            num_replicas=trainer.world_size if trainer else 1,
            rank=trainer.global_rank if trainer else 0,
            seed=1_000_003 * self.seed,  # the sampler adds the epoch
        )
        transform = augmentation.frame_transform(self._frame_names, self.in_shape[1:], self.shift)
        collate: Callable[[list[Sample]], tuple[Tensor, Tensor]] = frames_first
        if self.mixup > 0 or self.cutmix > 0:
            collate = augmentation.Mixing(self.mixup, self.cutmix, self.num_classes)
        loader: Loader = TrainLoader(
            Drawn(self.splits.train, transform, self.seed),
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )
        return loader

    def val_dataloader(self) -> Loader:
        return self._loader(self.splits.validation)

    def test_dataloader(self) -> Loader:
        return self._loader(self.splits.test)

    def _loader(self, dataset: Dataset[Sample]) -> Loader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            collate_fn=frames_first,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )
