"""From recordings by part to the three parts of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .augment import event_transform, parse
from .definition import DataConfig
from .events import Frames
from .folders import Parts, groups_of
from .framing import Framing, FramingOptions
from .recordings import Format, SensorSize
from .splits import Splits, check_labels, split, split_in_time


def framing_for(
    sensor_size: SensorSize, format: Format, options: DataConfig, until: int | None = None
) -> Framing:
    """Returns the `Framing` under ``options``."""
    return Framing(sensor_size, options.T, format, until, **options.part(FramingOptions))


def event_splits(
    parts: Parts, framing: Framing, num_classes: int, options: DataConfig, root: Path
) -> Splits:
    """The three parts as frames; what ``parts`` does not have is drawn of its training part.

    Raises:
        ValueError: a label out of range or too rare, or what `Frames` and `split` refuse.
    """
    given = [part for part in (parts.validation, parts.test) if part is not None]
    drawn = (parts.validation is None and options.validation > 0) + (parts.test is None)
    if options.window is None:
        check_labels(parts.train[1], num_classes, root, 1 + drawn)
    for part in given:
        check_labels(part[1], num_classes, root, 1)
    transform = event_transform(parse(options.augment, "events")[1], framing.frame_size)
    train = Frames(*parts.train, framing, transform, options.skip_bad)
    validation, test = (
        share if part is None else Frames(*part, framing, skip_bad=options.skip_bad)
        for part, share in ((parts.validation, options.validation), (parts.test, options.test))
    )
    check_labels(train.labels, num_classes, root, 1 + drawn)
    recordings = train.index["file"]
    if options.split == "time":
        return split_in_time(train, recordings, train.files, validation, test)
    groups = recordings if options.window is not None else None
    if options.group is not None:
        groups = np.array(groups_of(parts.train[0], root, options.group))[recordings]
    return split(train, train.labels, validation, test, options.split_seed, groups)
