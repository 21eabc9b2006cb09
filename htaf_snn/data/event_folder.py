"""Any folder of recordings by class."""

import functools
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from .cache import build_once, map_in_order
from .data_set import EVENT_OPTIONS, FOLDER_OPTIONS, DataSet, root_of
from .event_sets import Recordings
from .events import built_of, or_why_not
from .folders import listed, parts_of
from .framing import Framing
from .options import DataConfig, Format, FormatOptions, FramingOptions
from .readers.columns import sensor_around
from .recordings import READERS, extent, read_recording, sensor_in_header

_LARGEST_SENSOR = 1 << 12  # pixels a side
_log = logging.getLogger(__name__)
Result = TypeVar("Result")


class EventFolder(DataSet):
    """The set ``event_folder``: headers or events tell its sensor, folders its classes."""

    def __init__(self) -> None:
        kinds, options = ", ".join(READERS), EVENT_OPTIONS | FOLDER_OPTIONS | {"root"}
        source = f"recordings ({kinds}) in <class>/, or in train/<class>/ and test/<class>/"
        super().__init__("event_folder", "events", source, None, None, options=options)

    def open(self, options: DataConfig) -> Recordings:
        parts = parts_of(root_of(options, "recordings by class"), tuple(READERS))
        if options.split_file is not None:
            parts = listed(parts, options.split_file)
        format = Format(**options.part(FormatOptions))
        given = (part for part in (parts.train, parts.validation, parts.test) if part)
        files = list(dict.fromkeys(path for files, _ in given for path in files))
        size = options.sensor_size or _sensor(files, format, options.skip_bad)
        assert not isinstance(size, str)
        framing = Framing((*size, 2), options.T, format, **options.part(FramingOptions))
        return Recordings(framing, len(parts.classes), options, parts)


def _sensor(files: Sequence[Path], format: Format, skip_bad: bool) -> tuple[int, int]:
    """(W, H) that the files' headers agree on; where none names any, of what the events reach."""

    def each(read: Callable[[Path], Result], desc: str) -> list[tuple[Path, Result]]:
        read_or_not = functools.partial(or_why_not, read, skip_bad)
        found = zip(files, map_in_order(read_or_not, files, desc, "recording"), strict=True)
        return [(path, one) for path, one in found if not isinstance(one, str)]

    def build(folder: Path) -> None:
        sizes = each(functools.partial(sensor_in_header, format=format), "headers")
        (size, _), *others = Counter(one for _, one in sizes).most_common() or [(None, 0)]
        if others:
            other = others[0][0]
            odd = next(path for path, one in sizes if one == other)
            most, has = (f"{s[0]}x{s[1]}" if s else "none in its header" for s in (size, other))
            raise ValueError(
                f"mixed sensor sizes: {odd} has {has}, most others have {most}; keep one, or set "
                "`data.sensor_size` to hold all of them"
            )
        reach = [0, 0]
        if size is None:
            reaches = each(functools.partial(_extent, format), "sensor size")
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
