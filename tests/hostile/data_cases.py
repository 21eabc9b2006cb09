"""Bad headers, clocks and folders of recordings, whose right reading is known here."""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.data.readers.columns import SIZES
from htaf_snn.data.recordings import Format, read_recording
from htaf_snn.data.splits import chosen_samples
from tests.data.files import events
from tests.data.writers import CLOCKS, FORMATS, SIDE, aedat_2_words

from .outcomes import ACCEPTED, REFUSED, SILENT, TRACEBACK, Change

Outcome = tuple[str, str]


def _asked(read: Callable[[], str], name: str) -> Outcome:
    """Accepted where ``read`` finds nothing wrong; an error must name the file, or an option."""
    try:
        wrong = read()
    except (ValueError, OSError) as error:
        said = str(error)
        clear = (name in said or "`" in said) and len(said) < 2000
        return (REFUSED if clear else TRACEBACK), f"{type(error).__name__}: {said}"
    return (SILENT, wrong) if wrong else (ACCEPTED, "")


# ------------------------------------------------------------------ headers

_CHIPS = {
    "AEChip: ch.unizh.ini.jaer.chip.retina.DVS128": "dvs128",
    "AEChip: eu.seebetter.ini.chips.davis.DAVIS240C": "davis240",
    "AEChip: eu.seebetter.ini.chips.DAViS.DAViS240": "davis240",
    "AEChip: eu.seebetter.ini.chips.davis.Davis346red": "davis346",
    "AEChip: DAVIS640": "davis640",
}
_LINES_2 = (
    *_CHIPS, "AEChip: eu.x.Brand2030", "AEChip:", "Davis208PixelParade.x", "note: DVS128",
    "end of ascii header", "#", "AEChip", "x" * 3000, "HardwareInterface: DAVIS640",
)  # fmt: skip
_EVT2, _EVT3 = (["% evt 2.0", "% format EVT2;height=64;width=64"],
                ["% evt 3.0", "% format EVT3;height=64;width=64"])  # fmt: skip
_LINES_RAW = (
    *_EVT2, *_EVT3, "% integrator_name EVT2 Labs", "% integrator_name evt 3.0", "% evt 2.1",
    "% format EVT21;height=64;width=64", "% geometry 64x64", "% geometry 64", "% width -1", "%",
    "% plugin_name hal_plugin_EVT3", "% format", "% date 2020-01-01 10:00:00",
)  # fmt: skip


def draw_header(draw: random.Random) -> list[Change]:
    raw = draw.random() < 0.5
    lines = [draw.choice(_LINES_RAW if raw else _LINES_2) for _ in range(draw.randint(0, 4))]
    if raw:
        return ["raw", None, *lines]
    return ["aedat", draw.choice((None, *list(SIZES)[:-1])), *lines]


def run_header(changes: list[Change]) -> Outcome:
    """(5, 7) at 9 us in every file; what is read must be that, by the header's own word."""
    if not changes or changes[0] not in ("raw", "aedat"):
        return ACCEPTED, ""  # shrunk to nothing
    kind, word, *lines = changes if len(changes) > 1 else [*changes, None]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"recording.{kind}")
        if kind == "raw":
            body = {
                2: np.array([8 << 28, 1 << 28 | 9 << 22 | 5 << 11 | 7], "<u4"),
                3: np.array([8 << 12, 6 << 12 | 9, 7, 2 << 12 | 1 << 11 | 5], "<u2"),
            }[3 if {*lines} & {*_EVT3} else 2]
            path.write_bytes("".join(f"{one}\n" for one in lines).encode() + body.tobytes())
            told = {3 if one in _EVT3 else 2 for one in lines if one in (*_EVT2, *_EVT3)}
            true, format = len(told) == 1, Format()
        else:
            end = next((i for i, one in enumerate(lines) if one.startswith("end of")), len(lines))
            named = {_CHIPS[one] for one in lines[:end] if one in _CHIPS}
            camera = named.pop() if named else word
            width, height = SIZES[camera or "dvs128"]
            x, y = width - 1 - 5, height - 1 - 7
            address = y << 8 | x << 1 if camera == "dvs128" else y << 22 | x << 12 | 1 << 11
            aedat_2_words(path, [(address, 9)], *lines[: end + 1])
            true, format = camera is not None and not named, Format(camera=word)

        def read() -> str:
            found = [tuple(map(int, one)) for one in read_recording(path, format=format)]
            return "" if true and found == [(5, 7, 9, 1)] else f"{found}, header true: {true}"

        return _asked(read, path.name)


# ------------------------------------------------------------------ clocks


def draw_clock(draw: random.Random) -> list[Change]:
    name = draw.choice(list(CLOCKS))
    clock = 1 << CLOCKS[name][2]
    steps = [draw.choice((1, 50, clock // 200, clock // 20, clock // 3))] * draw.randint(1, 80)
    steps = [draw.randint(0, step) for step in steps]
    return [name, draw.choice((0, clock // 2 - 9, clock - 9, draw.randrange(clock))), *steps]


def run_clock(changes: list[Change]) -> Outcome:
    """Times that run through the clock's range, which are read as they are or not at all."""
    numbers = [change for change in changes if isinstance(change, int)]
    name = next((change for change in changes if isinstance(change, str)), ".dat")
    if not numbers:
        return ACCEPTED, ""
    suffix, write, _ = CLOCKS[name]
    times = np.cumsum(np.array(numbers, np.int64))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"recording{suffix}")
        write(path, times)

        def read() -> str:
            found = read_recording(path)["t"]
            # a silence as long as the whole range leaves no trace
            lost = np.diff(found) != np.diff(times)
            return f"{found.tolist()[:9]}" if (lost & (np.diff(times) < _SEEN)).any() else ""

        return _asked(read, path.name)


_SEEN = 1 << 18  # us of silence within which even the shortest clock's end is seen


# ------------------------------------------------------------------ folders


@functools.cache
def _roots() -> dict[str, Path]:
    """Folders of recordings: a recording a class, several, several formats, with parts."""
    made = {}
    layouts = {"one": (1, [""], ["npz"]), "many": (6, [""], ["N-MNIST"]),
               "formats": (3, [""], ["AEDAT 2.0", "EVT3, faery"]),
               "parts": (2, ["train", "test"], ["npz"])}  # fmt: skip
    for layout, (count, parts, formats) in layouts.items():
        made[layout] = Path(tempfile.mkdtemp())
        for part in parts:
            for number, name in enumerate(("cat", "dog")):
                (made[layout] / part / name).mkdir(parents=True)
                for i in range(count):
                    suffix, write = FORMATS[formats[i % len(formats)]]
                    columns = events(600, (SIDE, SIDE), seed=10 * number + i)
                    write(made[layout] / part / name / f"{i}{suffix}", columns)
    return made


_SETTINGS: dict[str, tuple[Any, ...]] = {
    "split": ("time", "random"), "validation": (0, 0.2, 0.5, -0.1, 0.01), "test": (0.2, 0.4, 0.9),
    "window": (50_000, 20_000, 1, 10**9, 0), "T": (1, 2, 7, 600, 10_000),
    "sensor_size": ("128x128", "(128, 128)", "[346,260]", "34x34", "128", "0x0", (128, 128)),
    "camera": ("dvs128", "davis240", "x"), "frames_by": ("count", "time"),
    "downsample": (16, 128, 200), "denoise": (1, 10**6), "hot_pixels": (1e-9, 1e9),
    "start": (0, 10**5, 10**7, -1), "duration": (10**5, 1), "skip_bad": (True,),
    "group": (r"(\d)", "x", "("), "ordering": ("txyp", "typx"), "time_unit": ("ms", "s"),
    "augment": ("event_drop,spatial_jitter", ""), "sort": (True,),
}  # fmt: skip


def draw_folder(draw: random.Random) -> list[Change]:
    names = draw.sample(list(_SETTINGS), draw.randint(1, 5))
    if draw.random() < 0.5:
        names = list(dict.fromkeys([*names, "window", "split"]))
    return [draw.choice(sorted(_roots())), *((n, draw.choice(_SETTINGS[n])) for n in names)]


def _in_order(seen: dict[tuple[int, int], int], train: Any) -> bool:
    """Whether each recording's training windows come first, with a gap behind them."""
    frames = train.dataset
    for file in np.unique(frames.index["file"]):
        own = np.flatnonzero(frames.index["file"] == file)
        parts = [seen.get((id(frames), int(i)), -1) for i in own]  # -1: in none
        if [p for p in parts if p >= 0] != sorted(p for p in parts if p >= 0):
            return False
        if set(parts) - {0} and parts.index(-1) != parts.count(0):
            return False
    return True


def run_folder(changes: list[Change]) -> Outcome:
    """Parts that are apart, in order of time where asked, of frames that have all events."""
    root = _roots()[next((change for change in changes if isinstance(change, str)), "many")]
    options: dict[str, Any] = dict(change for change in changes if isinstance(change, tuple))

    def read() -> str:
        data = SpikingDataModule(DataConfig("event_folder", root, **{"T": 2} | options))
        data.setup()
        seen: dict[tuple[int, int], int] = {}  # sample: its part's number
        for number, (_, samples, chosen) in enumerate(chosen_samples(data.splits)):
            frames: Any = samples
            if len(chosen) == 0:
                continue
            kept = frames.arrays[chosen]
            counted = kept.reshape(len(kept), -1).sum(1, dtype=np.int64)
            if not np.array_equal(counted, frames.index["events"][chosen]):
                return "events are lost or doubled"
            if any(seen.setdefault((id(samples), int(i)), number) != number for i in chosen):
                return "a sample in two parts"
        if options.get("split") == "time" and not _in_order(seen, data.splits.train):
            return "not in order of time, or without a gap"
        if options.get("validation") == 0 and data.has_validation:
            return "validation"
        x_seq, _ = next(iter(data.train_dataloader()))
        return "" if bool(x_seq.isfinite().all()) and x_seq.shape[0] == data.config.T else "frames"

    return _asked(read, root.name)
