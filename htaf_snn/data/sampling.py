"""From recordings by part to the three parts of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .augment import event_transform, parse
from .definition import DataConfig
from .events import Frames
from .folders import Parts, groups_of
from .framing import Framing
from .recordings import Format, SensorSize
from .splits import Splits, check_labels, split


def framing_for(
    sensor_size: SensorSize, format: Format, options: DataConfig, until: int | None = None
) -> Framing:
    """How recordings become frames under ``options``; ``until`` as `Framing` has it."""
    return Framing(
        sensor_size,
        options.T,
        format,
        options.frames_by,
        options.downsample,
        until,
        options.start,
        options.duration,
        options.window,
        options.denoise,
        options.hot_pixels,
    )


def event_splits(
    parts: Parts, framing: Framing, num_classes: int, options: DataConfig, root: Path
) -> Splits:
    """The three parts as frames; what ``parts`` does not have is drawn of its training part.

    Raises:
        ValueError: a label out of range or too rare, or what `Frames` and `split` refuse.
    """
    given = [part for part in (parts.validation, parts.test) if part is not None]
    if options.window is None:
        check_labels(parts.train[1], num_classes, root, 3 - len(given))
    for part in given:
        check_labels(part[1], num_classes, root, 1)
    transform = event_transform(parse(options.augment, "events")[1], framing.frame_size)
    train = Frames(*parts.train, framing, transform, options.skip_bad)
    validation, test = (
        None if part is None else Frames(*part, framing, skip_bad=options.skip_bad)
        for part in (parts.validation, parts.test)
    )
    check_labels(train.labels, num_classes, root, 3 - len(given))
    groups = None
    if options.group is not None:
        of_file = np.array(groups_of(parts.train[0], root, options.group))
        groups = of_file[train.index["file"]]
    elif options.window is not None:
        groups = train.index["file"]
    return split(
        train,
        train.labels,
        options.validation if validation is None else validation,
        options.test if test is None else test,
        options.split_seed,
        groups,
    )
