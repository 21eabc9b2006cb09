"""Random changes of training samples, by name; every draw is of torch's random numbers."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from .loader import Sample
from .recordings import Events, SensorSize

Kind = Literal["images", "events"]
EventTransform = Callable[[Events], Events]

_TIME_JITTER_US = 1_000.0  # standard deviation
_SPATIAL_JITTER = 0.5  # variance in pixels^2


def _rolled(frames: Tensor) -> Tensor:
    """Rolls frames by up to a tenth of each side: what leaves one side enters opposite."""
    limits = [round(0.1 * side) for side in frames.shape[-2:]]
    return frames.roll([int(torch.randint(-n, n + 1, ())) for n in limits], dims=(-2, -1))


def _crop(height: int, width: int, share: float) -> Any:
    padding = [round(share * width), round(share * height)]
    return v2.RandomCrop((height, width), padding) if any(padding) else v2.Identity()


def _hole(share: float, p: float) -> Any:
    return v2.RandomErasing(p, scale=(share**2, share**2), ratio=(1, 1))


def _of_frames(height: int, width: int, shift: float) -> dict[str, Any]:
    """The transforms, by name, that change all frames of a sample alike."""
    roll, flip = v2.Lambda(_rolled), v2.RandomHorizontalFlip()
    choices = [roll, v2.RandomRotation(30), v2.RandomAffine(0, shear=30), _hole(1 / 3, 1)]
    policies = v2.AutoAugmentPolicy
    return {
        "shift": _crop(height, width, shift),
        "crop": _crop(height, width, 1 / 8),
        "flip": flip,
        "cutout": _hole(1 / 2, 0.5),
        "roll": roll,
        "rotate": v2.RandomRotation(15),
        "shear": v2.RandomAffine(0, shear=15),
        "nda": v2.Compose([flip, v2.RandomChoice(choices)]),
        "autoaugment": v2.AutoAugment(
            policies.CIFAR10 if max(height, width) <= 64 else policies.IMAGENET
        ),
    }


_FRAMES = tuple(_of_frames(1, 1, 0))
_IMAGES_ONLY = ("autoaugment",)


def _drop(events: Events, rng: np.random.Generator, _: SensorSize) -> Events:
    return np.asarray(events[rng.random(len(events)) >= rng.uniform(0, 0.3)])


def _event_drop(events: Events, rng: np.random.Generator, size: SensorSize) -> Events:
    """Leaves out nothing, or the events of a time, of a box or at random.

    Tonic 1.6's draws the time from 0 on, wherever a recording begins.
    """
    kind = rng.integers(4)
    gone = np.zeros(len(events), bool)
    if kind == 1 and len(events):
        t = events["t"] - events["t"][0]
        share = rng.integers(1, 10) / 10
        start = rng.uniform(0, 1 - share) * t[-1]
        gone = (t >= start) & (t <= start + share * t[-1])
    elif kind == 2:
        share = rng.integers(1, 6) / 20
        gone = ~gone
        for name, side in zip("xy", size, strict=False):
            length = int(share * side)
            start = rng.integers(0, side - length, endpoint=True)
            gone &= (events[name] >= start) & (events[name] < start + length)
    elif kind == 3:
        gone = rng.random(len(events)) < rng.integers(1, 10) / 10
    return np.asarray(events[~gone])


def _time_jitter(events: Events, rng: np.random.Generator, _: SensorSize) -> Events:
    """Tonic's leaves out what becomes negative: of recordings that begin at 0 alone."""
    events = events.copy()
    events["t"] += np.rint(rng.normal(0, _TIME_JITTER_US, len(events))).astype(np.int64)
    return events[np.argsort(events["t"], kind="stable")]


def _spatial_jitter(events: Events, rng: np.random.Generator, size: SensorSize) -> Events:
    """Tonic's truncates, and so moves all events by half a pixel to the upper left."""
    moves = rng.normal(0, _SPATIAL_JITTER**0.5, (2, len(events)))
    x, y = np.rint(np.stack([events["x"], events["y"]]) + moves)
    kept = (x >= 0) & (x < size[0]) & (y >= 0) & (y < size[1])
    events = events[kept]
    events["x"], events["y"] = x[kept], y[kept]
    return events


_OF_EVENTS: dict[str, Callable[[Events, np.random.Generator, SensorSize], Events]] = {
    "drop": _drop,
    "event_drop": _event_drop,
    "time_jitter": _time_jitter,
    "spatial_jitter": _spatial_jitter,
}


def names_for(kind: Kind) -> list[str]:
    """The augmentations of images or of events."""
    if kind == "images":
        return list(_FRAMES)
    return [name for name in (*_FRAMES, *_OF_EVENTS) if name not in _IMAGES_ONLY]


def parse(augment: str, kind: Kind) -> tuple[list[str], list[str]]:
    """The names in ``augment``: those of frames, and those of events."""
    names = [name.strip() for name in augment.split(",") if name.strip()]
    for name in names:
        if name not in names_for(kind):
            raise ValueError(
                f"`augment` (={augment}): no {name!r} for {kind}; there are "
                f"{', '.join(names_for(kind))}"
            )
    return [n for n in names if n in _FRAMES], [n for n in names if n in _OF_EVENTS]


def frame_transform(
    names: Sequence[str], size: tuple[int, int], shift: float
) -> Callable[[Tensor], Tensor]:
    """One after the other of the augmentations that `parse` names, of frames of (H, W) pixels."""
    known = _of_frames(*size, shift)
    return nn.Sequential(*(known[name] for name in names))


def event_transform(names: Sequence[str], frame_size: SensorSize) -> EventTransform | None:
    """The same of events, which are made into frames of that size; None where there is none."""
    return functools.partial(_changed, names, frame_size) if names else None


def _changed(names: Sequence[str], frame_size: SensorSize, events: Events) -> Events:
    rng = np.random.default_rng(int(torch.randint(2**32, ())))
    for name in names:
        events = _OF_EVENTS[name](events, rng, frame_size)
    return events


class Mixing:
    """Collates samples and mixes each with another of the batch, by MixUp or CutMix.

    Where both are on, each batch draws one of them. Of a batch of frames [T, N, C, H, W] all
    time steps are mixed alike, and its labels become probabilities [N, num_classes]. ``mixup`` and
    ``cutmix`` are alpha of their Beta(alpha, alpha); 0 is off.
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
