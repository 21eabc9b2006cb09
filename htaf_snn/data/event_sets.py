"""The sets of recordings: a table of the published ones, and any folder by class."""

import functools
import json
import logging
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..extras import needed
from .augment import Kind
from .cache import build_once
from .data_set import EVENT_OPTIONS, FOLDER_OPTIONS, DataSet, root_of
from .digits_events import SIZE as DIGITS_EVENTS_SIZE
from .digits_events import digits_events
from .events import Recordings, built_of, read_each
from .folders import (
    FolderParts,
    Labelled,
    class_files,
    classes_in,
    named_files,
    parts_of,
    split_by_file,
)
from .framing import Framing
from .options import DataConfig, Format, FormatOptions, FramingOptions
from .readers.columns import sensor_around
from .readers.hdf5 import CHANNELS, labels_of_many
from .recordings import READERS, SensorSize, extent, naming, read_recording, sensor_in_header

_LARGEST_SENSOR = 1 << 12  # pixels a side
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EventSet(DataSet):
    """A published set of recordings, where Tonic puts it."""

    kind: Kind = "events"
    num_classes: int
    classes: tuple[str, ...] | None = None  # of folders or files, by label; None: as found
    suffix: str = ".bin"  # of the recordings
    train: str  # folder below the root
    test: str | None = None  # folder of its test split; None draws one
    validation: str | None = None  # name of an `AudioSet`'s validation part; None draws one
    format: Format = field(default_factory=Format)  # of the files
    tonic: str | None = None  # name of Tonic's class, which downloads it; None is built in
    label_in_file: bool = False  # whether files, not folders, are named after the class
    complete: int = 0  # recordings of the whole set; of a subset, the test split is drawn anew
    first_saccade: int | None = None  # microseconds; None where there are no saccades

    @property
    def sensor_size(self) -> SensorSize:
        assert self.shape is not None
        return self.shape[2], self.shape[1], self.shape[0]

    def open(self, options: DataConfig) -> Recordings:
        until = self.first_saccade if options.first_saccade else None
        framing = Framing(
            self.sensor_size, options.T, self.format, until, **options.part(FramingOptions)
        )
        find = functools.partial(self.parts, options)
        return Recordings(framing, self.num_classes, options, find)

    def parts(self, options: DataConfig) -> FolderParts:
        """Its files below ``options.root``, fetched where that is allowed."""
        root = self._root(options)
        train = self._labelled(root, self.train)
        test = None if self.test is None else self._labelled(root, self.test)
        if test is not None and len(train[0]) + len(test[0]) < self.complete:
            train, test = (train[0] + test[0], train[1] + test[1]), None
        return FolderParts(root, list(self._classes(root)), train, None, test)

    def _root(self, options: DataConfig) -> Path:
        if self.tonic is None:
            return digits_events()
        root = root_of(options, self.name)
        parts: list[dict[str, Any]] = [{}]
        if self.validation is not None:
            parts = [{"split": name} for name in (self.train, self.validation, self.test)]
        elif self.test is not None:
            parts = [{"train": True}, {"train": False}]
        for part in parts if options.download else ():
            getattr(needed("tonic").datasets, self.tonic)(str(root), **part)
        return root

    def _classes(self, root: Path) -> Sequence[str]:
        return self.classes or classes_in(root / self.train)

    def _labelled(self, root: Path, folder: str) -> Labelled:
        where = root / folder
        if not where.is_dir():
            file = f"*/<class>{self.suffix}" if self.label_in_file else f"<class>/*{self.suffix}"
            folders = " and ".join(f"{part}/" for part in (self.train, self.test) if part)
            raise FileNotFoundError(
                f"no folder {where}; `data.root` (={root}) must hold {folders} with {file}, or set "
                "data.download=true where there is a network"
            )
        classes = self._classes(root)
        if self.classes is not None:
            return named_files(where, self.suffix, classes, self.label_in_file)
        if len(classes) != self.num_classes:
            raise ValueError(f"{where}: {len(classes)} class folders, not {self.num_classes}")
        return class_files(where, (self.suffix,), classes)


@dataclass(frozen=True, kw_only=True)
class AudioSet(EventSet):
    """A published set of spoken words, of which each part is one HDF5 file of many recordings."""

    def parts(self, options: DataConfig) -> FolderParts:
        root = self._root(options)
        train, classes = self._words(root, self.train)
        validation, test = (
            None if part is None else self._words(root, part)[0]
            for part in (self.validation, self.test)
        )
        return FolderParts(root, classes, train, validation, test)

    def _words(self, root: Path, part: str) -> tuple[Labelled, list[str]]:
        """The recordings of a part, in the folder where Tonic puts it or in the root itself."""
        places = [folder / f"{self.name}_{part}.h5" for folder in (root / f"{self.tonic}", root)]
        found = next((path for path in places if path.is_file()), None)
        if found is None:
            raise FileNotFoundError(
                f"no file {places[0]}, nor {places[1]}; unpack {places[0].name}.zip there, or set "
                "data.download=true where there is a network"
            )
        with naming(found):
            labels, classes = labels_of_many(found)
        return ([found / str(number) for number in range(len(labels))], labels), classes


class EventFolder(DataSet):
    """The set ``event_folder``: headers or events tell its sensor, folders its classes."""

    def open(self, options: DataConfig) -> Recordings:
        parts = parts_of(root_of(options, "recordings by class"), tuple(READERS))
        if options.split_file is not None:
            parts = split_by_file(parts, options.split_file)
        format = Format(**options.part(FormatOptions))
        given = (part for part in (parts.train, parts.validation, parts.test) if part)
        files = list(dict.fromkeys(path for files, _ in given for path in files))
        size = options.sensor_size or _sensor(files, format, options.skip_bad)
        assert not isinstance(size, str)
        framing = Framing((*size, 2), options.T, format, **options.part(FramingOptions))
        return Recordings(framing, len(parts.classes), options, parts)


def _sensor(files: Sequence[Path], format: Format, skip_bad: bool) -> tuple[int, int]:
    """(W, H) that the files' headers agree on; where none names any, of what the events reach."""

    def build(folder: Path) -> None:
        read = functools.partial(sensor_in_header, format=format)
        sizes = dict(read_each(read, files, "headers", skip_bad))
        (size, _), *others = Counter(sizes.values()).most_common() or [(None, 0)]
        if others:
            other = others[0][0]
            odd = files[next(number for number, one in sizes.items() if one == other)]
            most, has = (f"{s[0]}x{s[1]}" if s else "none in its header" for s in (size, other))
            raise ValueError(
                f"mixed sensor sizes: {odd} has {has}, most others have {most}; keep one, or set "
                "`data.sensor_size` to hold all of them"
            )
        reach = [0, 0]
        if size is None:
            reached = functools.partial(_extent, format)
            reaches = list(read_each(reached, files, "sensor size", skip_bad))
            reach = np.max([reach, *(one for _, one in reaches)], axis=0).tolist()
            if not 0 < max(reach) <= _LARGEST_SENSOR:
                raise ValueError(
                    f"{files[0]} and {len(files) - 1} others name no sensor size, and their events "
                    f"{'reach {}x{}'.format(*reach) if reaches else 'can not be read'}: set "
                    "`data.sensor_size`, such as 346x260"
                )
        (folder / "sensor.json").write_text(json.dumps([size, reach]))

    folder = build_once(built_of("sensors", files, format, skip_bad), build)
    size, reach = json.loads((folder / "sensor.json").read_text())
    if size is None:
        size = sensor_around((reach[0], reach[1]))
        _log.info(
            "sensor %dx%d: no file names it, and events reach %dx%d; set data.sensor_size if it "
            "is another", *size, *reach,
        )  # fmt: skip
    return size[0], size[1]


def _extent(format: Format, path: Path) -> tuple[int, int]:
    return extent(read_recording(path, format=format))


_DIGITS = tuple(string.digits)
_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_FETCHED = EVENT_OPTIONS | {"root", "download"}
_SACCADES = {"first_saccade"}

EVENT_SETS: dict[str, EventSet] = {
    entry.name: entry
    for entry in (
        EventSet(
            name="digits_events",
            source="scikit-learn's real digits before a simulated event camera; built here, "
            "nothing to download",
            shape=(2, DIGITS_EVENTS_SIZE, DIGITS_EVENTS_SIZE), num_classes=10, classes=_DIGITS,
            train="NMNIST/Train",
            options=EVENT_OPTIONS | _SACCADES, first_saccade=100_000,
        ),
        EventSet(
            name="nmnist",
            source="N-MNIST, real event camera (Orchard et al. 2015), through Tonic; complete or "
            "a subset",
            shape=(2, 34, 34), num_classes=10, classes=_DIGITS,
            train="NMNIST/Train", test="NMNIST/Test",
            tonic="NMNIST", complete=70_000,
            options=_FETCHED | _SACCADES, first_saccade=105_000,
        ),
        EventSet(
            name="dvs_gesture",
            source="DVS128 Gesture (Amir et al. 2017), as cut and stored for Tonic; t in steps of "
            "1 ms",
            shape=(2, 128, 128), num_classes=11, classes=tuple(map(str, range(11))), suffix=".npy",
            train="DVSGesture/ibmGestureTrain", test="DVSGesture/ibmGestureTest",
            format=Format(ordering="xypt", t_unit=1000), label_in_file=True,
            tonic="DVSGesture", options=_FETCHED,
        ),
        EventSet(
            name="cifar10_dvs",
            source="CIFAR10-DVS (Li et al. 2017), through Tonic; test split drawn",
            shape=(2, 128, 128), num_classes=10, classes=tuple(_CIFAR10.split()), suffix=".aedat4",
            train="CIFAR10DVS",
            tonic="CIFAR10DVS", options=_FETCHED,
        ),
        EventSet(
            name="ncaltech101",
            source="N-Caltech101 (Orchard et al. 2015), through Tonic, moved to the upper left "
            "corner as there; test split drawn",
            shape=(2, 180, 240), num_classes=101, train="NCALTECH101/Caltech101",
            format=Format(to_origin=True),
            tonic="NCALTECH101", options=_FETCHED | _SACCADES, first_saccade=100_000,
        ),
        EventSet(
            name="poker_dvs",
            source="POKER-DVS (Serrano-Gotarredona and Linares-Barranco 2015), through Tonic",
            shape=(2, 35, 35), num_classes=4, classes=("cl", "he", "di", "sp"), suffix=".npy",
            train="POKERDVS/pips_train", test="POKERDVS/pips_test",
            format=Format(ordering="txyp"),
            tonic="POKERDVS", options=_FETCHED,
        ),
        EventSet(
            name="asl_dvs",
            source="ASL-DVS (Bi et al. 2019), through Tonic; 24 letters, without j and z; test "
            "split drawn",
            shape=(2, 180, 240), num_classes=24, classes=tuple("abcdefghiklmnopqrstuvwxy"),
            suffix=".mat", train="ASLDVS", format=Format(flip_y=True),
            tonic="ASLDVS", options=_FETCHED,
        ),
        AudioSet(
            name="shd",
            source="Spiking Heidelberg Digits (Cramer et al. 2020), through Tonic; English and "
            "German",
            shape=(1, 1, CHANNELS), num_classes=20, train="train", test="test",
            format=Format(sort=True), tonic="SHD", options=_FETCHED,
        ),
        AudioSet(
            name="ssc",
            source="Spiking Speech Commands (Cramer et al. 2020), through Tonic",
            shape=(1, 1, CHANNELS), num_classes=35, train="train", validation="valid", test="test",
            format=Format(sort=True), tonic="SSC", options=_FETCHED,
        ),
    )
}  # fmt: skip

EVENT_FOLDER = EventFolder(
    "event_folder", "events",
    f"recordings ({', '.join(READERS)}) in <class>/, or in train/<class>/ and test/<class>/",
    None, None, options=EVENT_OPTIONS | FOLDER_OPTIONS | {"root"},
)  # fmt: skip
