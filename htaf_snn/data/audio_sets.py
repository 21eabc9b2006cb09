"""Spoken words as spikes of 700 channels: SHD and SSC, each part of them one HDF5 file."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .definition import EVENT_OPTIONS, SOURCE_OPTIONS, DataConfig, DataSet, Shape, root_of
from .folders import Labelled, Parts
from .framing import Framing
from .readers.hdf5 import CHANNELS, labels_of_many
from .recordings import Format, import_tonic, recordings_in
from .sampling import event_splits, framing_for
from .splits import Splits


@dataclass(frozen=True)
class AudioSet:
    """A published set of spoken words.

    Args:
        source: what it is.
        num_classes: number of words.
        parts: names of the training part, the validation part and the test part, as the files
            have them; None where a validation part is drawn.
        tonic: name of Tonic's class, which downloads it.
    """

    source: str
    num_classes: int
    parts: tuple[str, str | None, str]
    tonic: str


AUDIO_SETS: dict[str, AudioSet] = {
    "shd": AudioSet(
        "Spiking Heidelberg Digits (Cramer et al. 2020), through Tonic; English and German",
        20, ("train", None, "test"), "SHD",
    ),
    "ssc": AudioSet(
        "Spiking Speech Commands (Cramer et al. 2020), through Tonic",
        35, ("train", "valid", "test"), "SSC",
    ),
}  # fmt: skip
_SENSOR_SIZE = (CHANNELS, 1, 1)
_SORTED = Format(sort=True)


def _file(name: str, root: Path, part: str) -> Path:
    """Returns the path where Tonic puts a part, or the root itself."""
    places = [folder / f"{name}_{part}.h5" for folder in (root / AUDIO_SETS[name].tonic, root)]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"no file {places[0]}, nor {places[1]}; unpack {name}_{part}.h5.zip there, or set "
            "data.download=true where there is a network"
        )
    return found


def _framing(options: DataConfig) -> Framing:
    return framing_for(_SENSOR_SIZE, _SORTED, options)


def _framing_and_classes(name: str, options: DataConfig) -> tuple[Framing, list[str]]:
    part = _file(name, root_of(options, name), AUDIO_SETS[name].parts[0])
    return _framing(options), labels_of_many(part)[1]


def _load(name: str, options: DataConfig) -> Splits:
    audio_set = AUDIO_SETS[name]
    root = root_of(options, name)
    if options.download:
        download: Any = getattr(import_tonic().datasets, audio_set.tonic)
        for part in filter(None, audio_set.parts):
            by = {"train": part == "train"} if name == "shd" else {"split": part}
            download(str(root), **by)

    def labelled(part: str) -> Labelled:
        path = _file(name, root, part)
        return recordings_in(path), labels_of_many(path)[0]

    train, validation, test = (p if p is None else labelled(p) for p in audio_set.parts)
    assert train is not None
    parts = Parts(train, validation, test, [])
    return event_splits(parts, _framing(options), audio_set.num_classes, options, root)


def _inspect(name: str, options: DataConfig) -> tuple[Shape, int]:
    return _framing(options).shape, AUDIO_SETS[name].num_classes


def data_sets() -> list[DataSet]:
    """The registered sets of spoken words."""
    return [
        DataSet(
            name,
            "events",
            audio_set.source,
            (1, 1, CHANNELS),
            audio_set.num_classes,
            functools.partial(_load, name),
            functools.partial(_inspect, name),
            EVENT_OPTIONS | SOURCE_OPTIONS,
            functools.partial(_framing_and_classes, name),
        )
        for name, audio_set in AUDIO_SETS.items()
    ]
