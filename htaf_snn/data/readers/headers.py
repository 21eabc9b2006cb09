"""Headers of recordings: lines of text, and the cameras and sizes that they name."""

from typing import BinaryIO

_LONGEST_LINE = 1 << 16
_CONTROLS = set(range(32)) - set(b"\t\r")
_READ = ("evt", "format", "geometry", "width", "height")  # of what `fields_of` finds

SIZES: dict[str, tuple[int, int]] = {
    "dvs128": (128, 128),
    "davis128": (128, 128),
    "davis208": (208, 192),
    "davis240": (240, 180),
    "davis346": (346, 260),
    "davis640": (640, 480),
    "dvxplorer": (640, 480),
}  # (W, H) of cameras
_OTHERS = ((28, 28), (34, 34), (304, 240), (320, 240), (640, 480), (1280, 720))
_FILLED = 0.9  # of each side, from which on events are taken to be of a known sensor


def text_header(file: BinaryIO, mark: bytes, last: tuple[bytes, ...]) -> list[str]:
    """Reads the lines that begin with ``mark``, up to one of ``last``; the file stands after them.

    An event may begin with the byte of ``mark``: a line of text has no control characters, and
    ends as the first one does.
    """
    lines: list[bytes] = []
    while not lines or lines[-1].strip().lower() not in last:
        at, line = file.tell(), file.readline(_LONGEST_LINE)
        end = b"\r\n" if lines and lines[0].endswith(b"\r\n") else b"\n"
        is_text = line.endswith(end) and not set(line[: -len(end)]) & _CONTROLS
        if not (line.startswith(mark) and is_text):
            file.seek(at)
            break
        lines.append(line)
    return [line.decode("latin-1").strip() for line in lines]


def fields_of(lines: list[str]) -> dict[str, str]:
    """Keys and values of a header's lines, such as ``% format EVT3;height=720;width=1280``."""
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.lstrip("%# ").replace(":", " ").partition(" ")
        first, *more = value.split(";")
        for name, _, one in ((key, "", first), *(pair.partition("=") for pair in more)):
            name, one = name.lower().strip(), one.strip()
            if found.setdefault(name, one) != one and name in _READ:
                raise ValueError(f"its header names {name} {found[name]}, and {one}")
    return found


def size_in(fields: dict[str, str]) -> tuple[int, int] | None:
    """(W, H) that a header's fields name, or None."""
    width, _, height = fields.get("geometry", "").replace(",", "x").partition("x")
    sides = fields.get("width", width).strip(), fields.get("height", height).strip()
    return (int(sides[0]), int(sides[1])) if all(map(str.isdecimal, sides)) else None


def camera_named(text: str) -> str | None:
    """The camera whose name the last word of ``text``, such as ``a.b.DAVIS240C``, begins with."""
    word = text.strip().rpartition(".")[2].lower()
    return next((name for name in SIZES if word.startswith(name)), None)


def sensor_around(extent: tuple[int, int]) -> tuple[int, int]:
    """The smallest known (W, H) that events up to ``extent`` nearly fill; else the extent."""
    for size in sorted({*SIZES.values(), *_OTHERS}):
        if all(_FILLED * side <= used <= side for side, used in zip(size, extent, strict=True)):
            return size
    return extent
