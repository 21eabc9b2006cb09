"""Event cameras by name, and the sizes of their sensors."""

from __future__ import annotations

from typing import Literal

Camera = Literal["dvs128", "davis128", "davis208", "davis240", "davis346", "davis640"]

SIZES: dict[str, tuple[int, int]] = {
    "dvs128": (128, 128),
    "davis128": (128, 128),
    "davis208": (208, 192),
    "davis240": (240, 180),
    "davis346": (346, 260),
    "davis640": (640, 480),
    "dvxplorer": (640, 480),
}  # W, H
_OTHERS = ((28, 28), (34, 34), (304, 240), (320, 240), (640, 480), (1280, 720))
_FILLED = 0.9  # of each side, from which on events are taken to be of a known sensor


def named(text: str) -> str | None:
    """The camera whose name the last word of ``text``, such as ``a.b.DAVIS240C``, begins with."""
    word = text.strip().rpartition(".")[2].lower()
    return next((name for name in SIZES if word.startswith(name)), None)


def sensor_around(extent: tuple[int, int]) -> tuple[int, int]:
    """The smallest known (W, H) that events up to ``extent`` nearly fill; else the extent."""
    for size in sorted({*SIZES.values(), *_OTHERS}):
        if all(_FILLED * side <= used <= side for side, used in zip(size, extent, strict=True)):
            return size
    return extent
