"""What a folder of recordings holds: a table and a picture, before anything is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..arguments import one_of
from .readers.columns import UNITS, Format
from .readers.hdf5 import CHANNELS
from .recordings import (
    READERS,
    Events,
    file_of,
    read_recording,
    recordings_in,
    sensor_in_header,
)

_MOST_DRAWN = 48
_MOST_OF_A_FILE = 10
_COLUMNS = 700  # of time, in the picture of a sensor of one row
_LONGEST_S, _SHORTEST_S = 3600, 1e-3  # of a recording, beyond which the time's unit is doubted


@dataclass(frozen=True)
class Found:
    """What one recording holds, or why it can't be read.

    Args:
        path: of the file.
        size: (W, H) by its header, or None.
        events: as read; None where they can't be.
        note: what is wrong or doubtful; empty otherwise.
    """

    path: Path
    size: tuple[int, int] | None
    events: Events | None
    note: str = ""


def inspect(
    folder: Path,
    out: Path | None = None,
    ordering: str = "auto",
    time_unit: str = "auto",
    sort: bool = False,
    events_path: str | None = None,
) -> str:
    """A table of the recordings at ``folder``, and a picture of them.

    Args:
        folder: one file, or a folder that is searched for them.
        out: the picture's file; ``inspect.png`` in the working folder unless it is given.
        ordering: as ``--data.ordering``.
        time_unit: as ``--data.time_unit``.
        sort: as ``--data.sort``.
        events_path: as ``--data.events_path``.

    Returns:
        the table, and where the picture is.

    Raises:
        FileNotFoundError: no recording there.
    """
    one_of("`time_unit`", time_unit, ["auto", *UNITS])
    format = Format(ordering=ordering, time_unit=time_unit, sort=sort, events_path=events_path)
    files = [folder]
    if folder.is_dir():
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in READERS and p.is_file())
    if not files or not file_of(files[0]).is_file():
        raise FileNotFoundError(f"no event recording ({', '.join(READERS)}) at {folder}")
    out = Path("inspect.png") if out is None else out
    rows: list[list[str]] = []
    pictures: list[tuple[str, NDArray[np.float64]]] = []
    for file in files:
        recordings = recordings_in(file)
        for path in recordings[:_MOST_OF_A_FILE]:
            found = look(path, format)
            rows.append(_row(found, folder))
            if found.events is not None and len(pictures) < _MOST_DRAWN:
                pictures.append((path.name, _accumulated(found)))  # the events need not be kept
        if len(recordings) > _MOST_OF_A_FILE:
            rows.append([f"and {len(recordings) - _MOST_OF_A_FILE} more", *[""] * 6])
    if pictures:
        _draw(out, pictures)
    drawn = f"{out}: {len(pictures)} recordings, blue OFF, red ON" if pictures else "nothing drawn"
    return f"{_table(rows)}\n\n{drawn}"


def look(path: Path, format: Format) -> Found:
    """Reads one recording."""
    try:
        size = sensor_in_header(path)
        events = read_recording(path, None if size is None else (*size, 2), format)
    except (ValueError, OSError) as error:
        return Found(path, None, None, str(error).removeprefix(f"{path}: "))
    seconds = (events["t"][-1] - events["t"][0]) / 1e6
    note = ""
    if not _SHORTEST_S <= seconds <= _LONGEST_S:
        note = f"lasts {seconds:g} s: is `time_unit` right?"
    elif (events["p"].all() or not events["p"].any()) and size != (CHANNELS, 1):
        note = "one polarity only"
    elif size is None:
        note = "no sensor size in the file: set `data.sensor_size`"
    return Found(path, size, events, note)


def _row(found: Found, folder: Path) -> list[str]:
    name = found.path.name if found.path == folder else str(found.path.relative_to(folder))
    if found.events is None:
        return [name, "", "", "", "", "", found.note]
    events = found.events
    seconds = (events["t"][-1] - events["t"][0]) / 1e6
    size = found.size or _extent(events)
    return [
        name,
        f"{size[0]}x{size[1]}" if found.size else f"at least {size[0]}x{size[1]}",
        f"{len(events)}",
        f"{seconds:.6g}",
        f"{len(events) / seconds:.3g}" if seconds else "",
        f"{events['p'].mean():.2f}",
        found.note,
    ]


def _table(rows: list[list[str]]) -> str:
    header = ["recording", "sensor", "events", "seconds", "events/s", "ON", "note"]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    )


def _extent(events: Events) -> tuple[int, int]:
    return int(events["x"].max()) + 1, int(events["y"].max()) + 1


def _accumulated(found: Found) -> NDArray[np.float64]:
    """ON minus OFF events by pixel, from -1 to 1, of at most 256 pixels a side.

    Of a sensor of one row, by time, from left to right, and channel.
    """
    assert found.events is not None
    width, height = found.size or _extent(found.events)
    x, y = found.events["x"], found.events["y"]
    if height == 1:
        t = found.events["t"] - found.events["t"][0]
        x, y, width, height = t * _COLUMNS // (t[-1] + 1), width - 1 - x, _COLUMNS, width
    step = math.ceil(max(width, height) / 256)
    picture = np.zeros((math.ceil(height / step), math.ceil(width / step)))
    sign = np.where(found.events["p"], 1.0, -1.0)
    np.add.at(picture, (y // step, x // step), sign)
    most = np.quantile(np.abs(picture), 0.999) or 1.0
    return np.clip(picture / most, -1, 1)


def _draw(out: Path, pictures: list[tuple[str, NDArray[np.float64]]]) -> None:
    from matplotlib.figure import Figure

    columns = min(6, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    figure = Figure((2.2 * columns, 2.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, (name, picture) in zip(axes, pictures, strict=False):
        axis.imshow(picture, cmap="RdBu_r", vmin=-1, vmax=1)
        axis.set_title(name[-28:], fontsize=7)
    figure.savefig(out, dpi=120)
