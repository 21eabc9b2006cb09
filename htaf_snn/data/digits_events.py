"""`digits_events`: scikit-learn's handwritten digits, seen by a simulated event camera.

The digits are real (UCI optical digits, 8x8, 1797 of them); the camera is not. Each digit is
upscaled and moved along three saccades, as N-MNIST's were before a real sensor (Orchard et al.,
Front. Neurosci. 9:437, 2015), and every pixel fires an event each time its log intensity has
changed by its threshold. The recordings are written in N-MNIST's own file format.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from ..files import cache_folder
from .cache import build_once

SIZE = 28  # pixels a side
VERSION = 1  # of the simulation; part of the folder's name
_DIGIT_SIZE = 20  # pixels a side, of the upscaled digit
_SACCADES = ((2.0, 4.0), (2.0, -4.0), (-4.0, 0.0))  # (dx, dy) in pixels, one after the other
_SACCADE_US = 100_000
_STEP_US = 5_000
_THRESHOLD = 0.3  # of the natural logarithm of the intensity
_MISMATCH = 0.05  # relative standard deviation of the threshold from pixel to pixel
_DARK = 0.1  # intensity of the background; a full stroke adds 1

Events = dict[str, NDArray[np.int64]]  # of one recording: x, y, t (microseconds), p


def digits_events() -> Path:
    """The folder of the recordings, built on the first call, in the user's cache."""
    return build_once(cache_folder() / f"digits_events-v{VERSION}", _build)


def _build(folder: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(10):
        (folder / "NMNIST" / "Train" / str(label)).mkdir(parents=True)
    recordings = simulate(digits.images / 16)
    for index, (events, label) in enumerate(zip(recordings, digits.target, strict=True)):
        path = folder / "NMNIST" / "Train" / str(label) / f"{index:05d}.bin"
        path.write_bytes(encode(events))


def simulate(images: NDArray[np.float64]) -> list[Events]:
    """The events, by time, of an ideal event camera before which each image makes three saccades.

    ``images`` are [N, 8, 8], from 0 (background) to 1 (stroke).
    """
    zoom = _DIGIT_SIZE / images.shape[-1]
    border = (SIZE - _DIGIT_SIZE) // 2
    scene = np.pad(
        ndimage.zoom(images, (1, zoom, zoom), order=1, grid_mode=True, mode="nearest"),
        ((0, 0), (border, border), (border, border)),
    )
    rng = np.random.default_rng(VERSION)
    threshold = _THRESHOLD * (1 + _MISMATCH * rng.standard_normal((SIZE, SIZE)))

    before = reference = _log_intensity(scene, 0.0, 0.0)
    found: list[NDArray[np.int64]] = []
    bar = tqdm(_path(), desc="digits_events: simulating", unit="step", disable=None)
    for step, (dx, dy) in enumerate(bar):
        now = _log_intensity(scene, dx, dy)
        crossed = ((now - reference) / threshold).astype(np.int64)  # signed, towards zero
        for level in range(1, int(np.abs(crossed).max(initial=0)) + 1):
            at = n, y, x = np.nonzero(np.abs(crossed) >= level)
            sign = np.sign(crossed[at])
            target = reference[at] + sign * level * threshold[y, x]
            change = now[at] - before[at]
            fraction = np.divide(
                target - before[at], change, np.zeros_like(change), where=change != 0
            )
            fraction = np.clip(fraction, 0, 1)
            t = np.round((step + fraction) * _STEP_US).astype(np.int64)
            found.append(np.stack([n, t, y, x, (sign > 0).astype(np.int64)]))
        reference = reference + crossed * threshold
        before = now

    columns = np.concatenate(found, axis=1)
    n, t, y, x, _ = columns
    columns = columns[:, np.lexsort((x, y, t, n))]
    bounds = np.searchsorted(columns[0], np.arange(1, len(images)))
    parts = np.split(columns[1:], bounds, axis=1)
    return [dict(zip("tyxp", part, strict=True)) for part in parts]


def encode(events: Events) -> bytes:
    """N-MNIST's file format: 5 bytes an event, x, y, then p and t in 1 + 23 bits."""
    t = events["t"]
    data = np.stack(
        [events["x"], events["y"], events["p"] << 7 | t >> 16, t >> 8 & 255, t & 255], axis=1
    )
    return data.astype(np.uint8).tobytes()


def _path() -> list[tuple[float, float]]:
    """The scene's offset in pixels at the end of each step."""
    steps = _SACCADE_US // _STEP_US
    offsets, x, y = [], 0.0, 0.0
    for dx, dy in _SACCADES:
        offsets += [(x + dx * i / steps, y + dy * i / steps) for i in range(1, steps + 1)]
        x, y = x + dx, y + dy
    return offsets


def _log_intensity(scene: NDArray[np.float64], dx: float, dy: float) -> NDArray[np.float64]:
    # centred: the path spans 0 to 4 pixels both ways
    shifted = ndimage.shift(scene, (0, dy - 2, dx - 2), order=1)
    return np.asarray(np.log(_DARK + shifted))
