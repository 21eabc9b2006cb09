"""The published sets of recordings: one table."""

from __future__ import annotations

import functools
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .definition import (
    EVENT_OPTIONS,
    SOURCE_OPTIONS,
    DataConfig,
    DataSet,
    Shape,
    root_of,
)
from .digits_events import SIZE as DIGITS_EVENTS_SIZE
from .digits_events import digits_events
from .folders import (
    Labelled,
    Parts,
    class_files,
    classes_in,
    named_files,
)
from .framing import Framing
from .recordings import Format, SensorSize, import_tonic
from .sampling import event_splits, framing_for
from .splits import Splits


@dataclass(frozen=True)
class EventSet:
    """A published set of recordings, where Tonic puts it.

    Args:
        source: what it is.
        sensor_size: (W, H, P).
        classes: names of the class folders, or of the files, in order of their labels; None
            takes the folders found.
        num_classes: how many there must be.
        suffix: of the recordings.
        train: folder below the root.
        test: folder of its test split; None draws one.
        format: of the files.
        tonic: name of Tonic's class, which downloads it; None is built in.
        label_in_file: whether files, not folders, are named after the class.
        complete: recordings of the complete set, if a subset's test split is not to be trusted:
            a smaller one is pooled and split anew.
        first_saccade: microseconds of the first of several saccades; None where there are none.
    """

    source: str
    sensor_size: SensorSize
    classes: tuple[str, ...] | None
    num_classes: int
    suffix: str
    train: str
    test: str | None = None
    format: Format = field(default_factory=Format)
    tonic: str | None = None
    label_in_file: bool = False
    complete: int = 0
    first_saccade: int | None = None


_DIGITS = tuple(string.digits)
_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"

EVENT_SETS: dict[str, EventSet] = {
    "digits_events": EventSet(
        "scikit-learn's real digits before a simulated event camera; built here, nothing to "
        "download",
        (DIGITS_EVENTS_SIZE, DIGITS_EVENTS_SIZE, 2),
        _DIGITS, 10, ".bin", "NMNIST/Train",
        first_saccade=100_000,
    ),
    "nmnist": EventSet(
        "N-MNIST, real event camera (Orchard et al. 2015), through Tonic; complete or a subset",
        (34, 34, 2),
        _DIGITS, 10, ".bin", "NMNIST/Train", "NMNIST/Test",
        tonic="NMNIST", complete=70_000, first_saccade=105_000,
    ),
    "dvs_gesture": EventSet(
        "DVS128 Gesture (Amir et al. 2017), as cut and stored for Tonic; t in steps of 1 ms",
        (128, 128, 2),
        tuple(map(str, range(11))), 11, ".npy",
        "DVSGesture/ibmGestureTrain", "DVSGesture/ibmGestureTest",
        Format(ordering="xypt", t_unit=1000), tonic="DVSGesture", label_in_file=True,
    ),
    "cifar10_dvs": EventSet(
        "CIFAR10-DVS (Li et al. 2017), through Tonic; test split drawn",
        (128, 128, 2),
        tuple(_CIFAR10.split()), 10, ".aedat4", "CIFAR10DVS",
        tonic="CIFAR10DVS",
    ),
    "ncaltech101": EventSet(
        "N-Caltech101 (Orchard et al. 2015), through Tonic, moved to the upper left corner as "
        "there; test split drawn",
        (240, 180, 2),
        None, 101, ".bin", "NCALTECH101/Caltech101",
        format=Format(to_origin=True), tonic="NCALTECH101", first_saccade=100_000,
    ),
    "poker_dvs": EventSet(
        "POKER-DVS (Serrano-Gotarredona and Linares-Barranco 2015), through Tonic",
        (35, 35, 2),
        ("cl", "he", "di", "sp"), 4, ".npy", "POKERDVS/pips_train", "POKERDVS/pips_test",
        Format(ordering="txyp"), tonic="POKERDVS",
    ),
    "asl_dvs": EventSet(
        "ASL-DVS (Bi et al. 2019), through Tonic; 24 letters, without j and z; test split drawn",
        (240, 180, 2),
        tuple("abcdefghiklmnopqrstuvwxy"), 24, ".mat", "ASLDVS",
        format=Format(flip_y=True), tonic="ASLDVS",
    ),
}  # fmt: skip


def _load(name: str, options: DataConfig) -> Splits:
    event_set = EVENT_SETS[name]
    if event_set.tonic is None:
        root = digits_events()
    else:
        root = root_of(options, name)
        if options.download:
            download: Callable[..., Any] = getattr(import_tonic().datasets, event_set.tonic)
            for part in ({},) if event_set.test is None else ({"train": True}, {"train": False}):
                download(str(root), **part)
    framing = _framing(event_set, options)
    train, test = _files(event_set, root, event_set.train), None
    if event_set.test is not None:
        test = _files(event_set, root, event_set.test)
        if len(train[0]) + len(test[0]) < event_set.complete:
            train, test = (train[0] + test[0], train[1] + test[1]), None
    parts = Parts(train, None, test, [])
    return event_splits(parts, framing, event_set.num_classes, options, root)


def _files(event_set: EventSet, root: Path, folder: str) -> Labelled:
    where = root / folder
    if not where.is_dir():
        raise FileNotFoundError(
            f"no folder {where}; `data.root` (={root}) must hold {event_set.train}/"
            + (f" and {event_set.test}/" if event_set.test else "")
            + f" with {'*/' if event_set.label_in_file else ''}"
            + f"<class>{'' if event_set.label_in_file else '/*'}{event_set.suffix}, or set "
            "data.download=true where there is a network"
        )
    if event_set.classes is not None:
        return named_files(where, event_set.suffix, event_set.classes, event_set.label_in_file)
    classes = classes_in(where)
    if len(classes) != event_set.num_classes:
        raise ValueError(f"{where}: {len(classes)} class folders, not {event_set.num_classes}")
    return class_files(where, (event_set.suffix,), classes)


def _framing(event_set: EventSet, options: DataConfig) -> Framing:
    until = event_set.first_saccade if options.first_saccade else None
    return framing_for(event_set.sensor_size, event_set.format, options, until)


def _inspect(name: str, options: DataConfig) -> tuple[Shape, int]:
    event_set = EVENT_SETS[name]
    return _framing(event_set, options).shape, event_set.num_classes


def _framing_and_classes(name: str, options: DataConfig) -> tuple[Framing, list[str]]:
    event_set = EVENT_SETS[name]
    classes = list(event_set.classes or ())
    if not classes and options.root is not None:
        classes = classes_in(options.root.expanduser() / event_set.train)
    return _framing(event_set, options), classes


def data_sets() -> list[DataSet]:
    """The registered published sets."""
    return [
        DataSet(
            name,
            "events",
            s.source,
            (s.sensor_size[2], s.sensor_size[1], s.sensor_size[0]),
            s.num_classes,
            functools.partial(_load, name),
            functools.partial(_inspect, name),
            EVENT_OPTIONS
            | ({"first_saccade"} if s.first_saccade else set())
            | (SOURCE_OPTIONS if s.tonic else set()),
            functools.partial(_framing_and_classes, name),
        )
        for name, s in EVENT_SETS.items()
    ]
