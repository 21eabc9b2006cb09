"""Any folder of recordings by class."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from pathlib import Path

from .cache import file_stamp
from .definition import EVENT_OPTIONS, FOLDER_OPTIONS, DataConfig, DataSet, Shape, root_of
from .events import extent_of, or_why_not
from .folders import Parts, listed, parts_of
from .framing import Framing
from .readers.cameras import sensor_around
from .recordings import READERS, Format, sensor_in_header
from .sampling import event_splits, framing_for
from .splits import Splits

_log = logging.getLogger(__name__)


def _parts(options: DataConfig) -> tuple[Parts, Framing]:
    root = root_of(options, "recordings by class")
    parts = parts_of(root, tuple(READERS))
    if options.split_file is not None:
        parts = listed(parts, root, options.split_file)
    size = options.sensor_size
    if size is None:
        files = tuple(dict.fromkeys(parts.files))
        stamps = tuple(map(file_stamp, files))
        size = _sensor(files, stamps, options.format, options.skip_bad)
    assert not isinstance(size, str)
    return parts, framing_for((*size, 2), options.format, options)


@functools.lru_cache(maxsize=8)
def _sensor(
    files: tuple[Path, ...], _stamps: tuple[object, ...], format: Format, skip_bad: bool
) -> tuple[int, int]:
    """(W, H) that the files' headers agree on; where none names any, of what the events reach."""
    read = functools.partial(sensor_in_header, format=format)
    found = ((path, or_why_not(read, path, skip_bad)) for path in files)
    sizes = {path: size for path, size in found if not isinstance(size, str)}
    (common, _), *others = Counter(sizes.values()).most_common() or [(None, 0)]
    if others:
        odd = next(path for path, size in sizes.items() if size == others[0][0])
        raise ValueError(
            f"mixed sensor sizes: {odd} has {_times(others[0][0])}, most others have "
            f"{_times(common)}; keep one, or set `data.sensor_size` to hold all of them"
        )
    if common is not None:
        return common
    extent = extent_of(files, format, skip_bad)
    size = sensor_around(extent)
    _log.info(
        "sensor %dx%d: no file names it, and events reach %dx%d; set data.sensor_size if it is "
        "another", *size, *extent,
    )  # fmt: skip
    return size


def _times(size: tuple[int, int] | None) -> str:
    return "none in its header" if size is None else f"{size[0]}x{size[1]}"


def _load(options: DataConfig) -> Splits:
    parts, framing = _parts(options)
    root = root_of(options, "recordings by class")
    return event_splits(parts, framing, len(parts.classes), options, root)


def _inspect(options: DataConfig) -> tuple[Shape, int]:
    parts, framing = _parts(options)
    return framing.shape, len(parts.classes)


def _framing_and_classes(options: DataConfig) -> tuple[Framing, list[str]]:
    parts, framing = _parts(options)
    return framing, parts.classes


def data_sets() -> list[DataSet]:
    """The one registered set."""
    return [
        DataSet(
            "event_folder",
            "events",
            f"recordings ({', '.join(READERS)}) in <class>/, or in train/<class>/ and "
            "test/<class>/",
            None,
            None,
            _load,
            _inspect,
            EVENT_OPTIONS | FOLDER_OPTIONS | {"root"},
            _framing_and_classes,
        )
    ]
