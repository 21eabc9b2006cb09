"""Random changes of training samples, by name; every draw is of torch's random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from .recordings import Events, SensorSize, import_tonic
from .splits import Sample

Kind = Literal["images", "events"]
EventTransform = Callable[[Events], Events]

_TIME_JITTER_US = 1_000.0  # standard deviation
_SPATIAL_JITTER = 0.5  # variance in pixels^2


class RandomRoll(v2.Transform):
    """Rolls frames by up to ``share`` of height and width: what leaves one side enters opposite."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, frames: Tensor) -> Tensor:
        limits = [round(self.share * side) for side in frames.shape[-2:]]
        shifts = [int(torch.randint(-limit, limit + 1, ())) for limit in limits]
        return frames.roll(shifts, dims=(-2, -1))


def _shift(height: int, width: int, share: float) -> Any:
    padding = [round(share * width), round(share * height)]
    return v2.RandomCrop((height, width), padding) if any(padding) else v2.Identity()


def _hole(share: float, p: float) -> Any:
    return v2.RandomErasing(p, scale=(share**2, share**2), ratio=(1, 1))


def _autoaugment(height: int, width: int, _: float) -> Any:
    small = max(height, width) <= 64
    policy = v2.AutoAugmentPolicy.CIFAR10 if small else v2.AutoAugmentPolicy.IMAGENET
    return v2.AutoAugment(policy)


def _nda(_height: int, _width: int, _share: float) -> Any:
    choices = [
        RandomRoll(0.1),
        v2.RandomRotation(30),
        v2.RandomAffine(0, shear=30),
        _hole(1 / 3, 1),
    ]
    return v2.Compose([v2.RandomHorizontalFlip(), v2.RandomChoice(choices)])


# Each is built from height, width and `shift`, and changes all frames of a sample alike.
_OF_FRAMES: dict[str, Callable[[int, int, float], Any]] = {
    "shift": _shift,
    "crop": lambda height, width, _: v2.RandomCrop(
        (height, width), [round(width / 8), round(height / 8)]
    ),
    "flip": lambda *_: v2.RandomHorizontalFlip(),
    "cutout": lambda *_: _hole(1 / 2, 0.5),
    "roll": lambda *_: RandomRoll(0.1),
    "rotate": lambda *_: v2.RandomRotation(15),
    "shear": lambda *_: v2.RandomAffine(0, shear=15),
    "nda": _nda,
    "autoaugment": _autoaugment,
}
_IMAGES_ONLY = ("autoaugment",)

# Each is built from the size of the frames that the events are made into.
_OF_EVENTS: dict[str, Callable[[Any, SensorSize], EventTransform]] = {
    "drop": lambda transforms, _: transforms.DropEvent(p=(0.0, 0.3)),
    "event_drop": lambda transforms, size: transforms.EventDrop(size),
    "time_jitter": lambda transforms, _: transforms.TimeJitter(
        _TIME_JITTER_US, clip_negative=True, sort_timestamps=True
    ),
    "spatial_jitter": lambda transforms, size: transforms.SpatialJitter(
        size, _SPATIAL_JITTER, _SPATIAL_JITTER, clip_outliers=True
    ),
}


def names_for(kind: Kind) -> list[str]:
    """The augmentations of images or of events."""
    if kind == "images":
        return list(_OF_FRAMES)
    return [name for name in _OF_FRAMES if name not in _IMAGES_ONLY] + list(_OF_EVENTS)


def parse(augment: str, kind: Kind) -> tuple[list[str], list[str]]:
    """The names in ``augment``: those of frames, and those of events.

    Raises:
        ValueError: a name that is unknown or of the other kind of data.
    """
    names = [name.strip() for name in augment.split(",") if name.strip()]
    for name in names:
        if name not in names_for(kind):
            raise ValueError(
                f"`augment` (={augment}): no {name!r} for {kind}; there are "
                f"{', '.join(names_for(kind))}"
            )
    return [n for n in names if n in _OF_FRAMES], [n for n in names if n in _OF_EVENTS]


def frame_transform(
    names: Sequence[str], size: tuple[int, int], shift: float
) -> Callable[[Tensor], Tensor]:
    """One after the other of the augmentations of frames or images.

    Args:
        names: as `parse` gives them.
        size: (H, W) in pixels.
        shift: largest shift of "shift", as a share of the side.
    """
    steps = [_OF_FRAMES[name](*size, shift) for name in names]
    transform: Callable[[Tensor], Tensor] = v2.Compose(steps) if steps else v2.Identity()
    return transform


class EventChanges:
    """One after the other of the augmentations of events, by Tonic; it can be pickled.

    Args:
        names: as `parse` gives them.
        frame_size: (W, H, P) of the frames that the events are made into.
    """

    def __init__(self, names: Sequence[str], frame_size: SensorSize) -> None:
        transforms = import_tonic().transforms
        self.steps = [_OF_EVENTS[name](transforms, frame_size) for name in names]

    def __call__(self, events: Events) -> Events:
        # Tonic draws from numpy's global generator: seeded here from torch's, then put back.
        before = np.random.get_state()  # noqa: NPY002
        np.random.seed(int(torch.randint(2**32, ())))  # noqa: NPY002
        try:
            for step in self.steps:
                events = step(events)
        finally:
            np.random.set_state(before)  # noqa: NPY002
        return events


def event_transform(names: Sequence[str], frame_size: SensorSize) -> EventTransform | None:
    """The augmentations of events; None where there is none."""
    return EventChanges(names, frame_size) if names else None


class Mixing:
    """Collates samples and mixes each with another of the batch, by MixUp or CutMix.

    Where both are on, each batch draws one of them. Of a batch of frames [T, N, C, H, W] all
    time steps are mixed alike, and its labels become probabilities [N, num_classes].

    Args:
        mixup: alpha of MixUp's Beta(alpha, alpha); 0 is off.
        cutmix: alpha of CutMix's; 0 is off.
        num_classes: number of labels.
    """

    def __init__(self, mixup: float, cutmix: float, num_classes: int) -> None:
        pairs = ((v2.MixUp, mixup), (v2.CutMix, cutmix))
        self.transform = v2.RandomChoice(
            [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in pairs if alpha > 0]
        )

    def __call__(self, batch: list[Sample]) -> tuple[Tensor, Tensor]:
        frames, labels = zip(*batch, strict=True)
        video = tv_tensors.Video(torch.stack(frames))  # [N, T, C, H, W]
        mixed, probabilities = self.transform(video, torch.tensor(labels))
        x_seq: Tensor = mixed.as_subclass(Tensor).transpose(0, 1).contiguous()
        return x_seq, probabilities
