"""Inspecting a folder of recordings before training: a table and a picture."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..files import write_figure
from .options import Camera, Format
from .readers.columns import sensor_around
from .readers.hdf5 import CHANNELS
from .recordings import Events, extent, files_at, read_recording, recordings_in, sensor_in_header

_MOST_DRAWN = 48
_MOST_OF_A_FILE = 10
_MOST_BAD = 20  # lines of recordings that can't be read
_COLUMNS = 700  # of time, in the picture of a sensor of one row
_LONGEST_S, _SHORTEST_S = 3600, 1e-3  # of a recording, beyond which the time's unit is doubted


@dataclass(frozen=True)
class RecordingSummary:
    """The contents of one recording, or the reason why it can't be read."""

    path: Path
    size: tuple[int, int] | None = None  # (W, H) by its header
    extent: tuple[int, int] = (1, 1)  # (W, H) that its events reach
    events: int = 0  # how many; 0 where they can't be read
    seconds: float = 0.0  # from the first to the last
    on: float = 0.0  # share of ON events
    note: str = ""  # what is wrong or doubtful


def inspect(
    folder: Path,
    out: Path = Path("inspect.png"),
    ordering: str = "auto",
    time_unit: Literal["auto", "us", "ms", "ns", "s"] = "auto",
    sort: bool = False,
    events_path: str | None = None,
    camera: Camera | None = None,
) -> str:
    """A table of the recordings at ``folder``, a line for those alike, and a picture of some.

    Args:
        folder: one file, or a folder that is searched for them.
        out: the picture's file.
        ordering: as ``--data.ordering``.
        time_unit: as ``--data.time_unit``.
        sort: as ``--data.sort``.
        events_path: as ``--data.events_path``.
        camera: as ``--data.camera``.

    Returns:
        the table, and where the picture is.

    Raises:
        FileNotFoundError: no recording there.
    """
    format = Format(
        ordering=ordering, time_unit=time_unit, sort=sort, events_path=events_path, camera=camera
    )
    files = files_at(folder)
    most_of_class = max(1, _MOST_DRAWN // len({file.parent for file in files}))
    drawn: Counter[Path] = Counter()
    alike: dict[object, list[RecordingSummary]] = {}
    pictures: list[tuple[str, NDArray[np.float64]]] = []
    left_out = 0
    for file in files:
        recordings = recordings_in(file)
        left_out += len(recordings[_MOST_OF_A_FILE:])
        for path in recordings[:_MOST_OF_A_FILE]:
            found, events = summarise(path, format)
            alike.setdefault((path.parent, path.suffix, found.size, found.note), []).append(found)
            if events is not None and drawn[path.parent] < most_of_class:
                drawn[path.parent] += 1
                picture = _accumulated(events, found.size or found.extent)
                pictures.append((f"{path.parent.name}/{path.name}", picture))
    return "\n".join(_lines(list(alike.values()), folder, left_out) + _drawn(out, pictures))


def summarise(path: Path, format: Format) -> tuple[RecordingSummary, Events | None]:
    """Reads one recording; its events are None where they can't be read."""
    try:
        size = sensor_in_header(path, format)
        events = read_recording(path, None if size is None else (*size, 2), format)
    except (ValueError, OSError) as error:
        return RecordingSummary(path, note=str(error).removeprefix(f"{path}: ")), None
    seconds = float(events["t"][-1] - events["t"][0]) / 1e6
    on = float(events["p"].mean())
    note = ""
    if not _SHORTEST_S <= seconds <= _LONGEST_S:
        note = "too short or long: is `time_unit` right?"
    elif on in (0, 1) and size != (CHANNELS, 1):
        note = "one polarity only"
    return RecordingSummary(path, size, extent(events), len(events), seconds, on, note), events


def _lines(groups: Sequence[Sequence[RecordingSummary]], folder: Path, left_out: int) -> list[str]:
    good = [group for group in groups if group[0].events]
    bad = [one for group in groups for one in group if not one.events]
    unnamed = [one.extent for group in good for one in group if one.size is None]
    width, height = np.max([(1, 1), *unnamed], axis=0).tolist()
    guess = "{}x{}".format(*sensor_around((width, height)))
    header = ["recording", "sensor", "events", "seconds", "events/s", "ON", "note"]
    rows = [header, *(_row(group, folder, guess) for group in good)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    notes = [f"{_name(one.path, folder)}: {one.note}" for one in bad[:_MOST_BAD]]
    if unnamed:
        notes.append(
            f"? guessed: no file names its sensor, and events reach {width}x{height}; "
            f"--data.sensor_size {guess}, or another, settles it"
        )
    lines += [line for note in notes for line in wrap(note, 80, subsequent_indent="  ")]
    if len(bad) > _MOST_BAD:
        lines.append(f"and {len(bad) - _MOST_BAD} more that can't be read")
    if left_out:
        lines.append(f"and {left_out} more recordings in these files")
    return [*lines, ""]


def _row(group: Sequence[RecordingSummary], folder: Path, guess: str) -> list[str]:
    first = group[0]
    name = _name(first.path, folder)
    if len(group) > 1:
        place = Path(name).parent.as_posix()
        name = f"{folder.name if place == '.' else place}: {len(group)} "
        name += first.path.suffix or "recordings"
    return [
        name,
        f"{guess}?" if first.size is None else "{}x{}".format(*first.size),
        _span([one.events for one in group], "d"),
        _span([one.seconds for one in group], ".6g"),
        _span([one.events / one.seconds for one in group if one.seconds], ".3g"),
        _span([one.on for one in group], ".2f"),
        first.note,
    ]


def _name(path: Path, folder: Path) -> str:
    return path.name if path == folder else str(path.relative_to(folder))


def _span(values: Sequence[float], spec: str) -> str:
    ends = (min(values), max(values)) if values else ()
    return " to ".join(dict.fromkeys(format(end, spec) for end in ends))


def _accumulated(events: Events, size: tuple[int, int]) -> NDArray[np.float64]:
    """ON minus OFF events by pixel, from -1 to 1, of at most 256 pixels a side.

    Of a sensor of one row, by time, from left to right, and channel.
    """
    width, height = size
    x, y = events["x"], events["y"]
    if height == 1:
        t = events["t"] - events["t"][0]
        x, y, width, height = t * _COLUMNS // (t[-1] + 1), width - 1 - x, _COLUMNS, width
    step = math.ceil(max(width, height) / 256)
    picture = np.zeros((math.ceil(height / step), math.ceil(width / step)))
    sign = np.where(events["p"], 1.0, -1.0)
    np.add.at(picture, (y // step, x // step), sign)
    most = np.quantile(np.abs(picture), 0.999) or 1.0
    return np.clip(picture / most, -1, 1)


def _drawn(out: Path, pictures: list[tuple[str, NDArray[np.float64]]]) -> list[str]:
    from matplotlib.figure import Figure

    if not pictures:
        return ["nothing drawn"]
    columns = min(6, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    figure = Figure((2.2 * columns, 2.3 * rows), layout="constrained")
    for number, (name, picture) in enumerate(pictures, 1):
        axis = figure.add_subplot(rows, columns, number)
        axis.axis("off")
        axis.imshow(picture, cmap="RdBu_r", vmin=-1, vmax=1)
        axis.set_title(name[-28:], fontsize=7)
    write_figure(figure, out, dpi=120)
    return [f"{out}: {len(pictures)} recordings, blue OFF, red ON"]
