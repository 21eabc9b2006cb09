"""Any folder of recordings by class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from .definition import EVENT_OPTIONS, FOLDER_OPTIONS, DataConfig, DataSet, Shape, root_of
from .folders import Parts, listed, parts_of
from .framing import Framing
from .recordings import READERS, import_tonic, sensor_in_header
from .sampling import event_splits, framing_for
from .splits import Splits


def _parts(options: DataConfig) -> tuple[Parts, Framing]:
    root = root_of(options, "recordings by class")
    parts = parts_of(root, tuple(READERS))
    if options.split_file is not None:
        parts = listed(parts, root, options.split_file)
    size = options.sensor_size or _common_sensor(parts.files)
    return parts, framing_for((*size, 2), options.format, options)


def _common_sensor(files: list[Path]) -> tuple[int, int]:
    """(W, H) that the files' headers agree on."""
    sizes = {path: sensor_in_header(path) for path in files}
    (common, _), *others = Counter(sizes.values()).most_common()
    if others:
        odd = next(path for path, size in sizes.items() if size == others[0][0])
        raise ValueError(
            f"mixed sensor sizes: {odd} has {_times(others[0][0])}, most others have "
            f"{_times(common)}; keep one, or set `data.sensor_size` to hold all of them"
        )
    if common is None:
        raise ValueError(
            f"{files[0]} does not name its sensor's size; set `data.sensor_size` to (W, H) in "
            "pixels"
        )
    return common


def _times(size: tuple[int, int] | None) -> str:
    return "none in its header" if size is None else f"{size[0]}x{size[1]}"


def _load(options: DataConfig) -> Splits:
    import_tonic()
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
