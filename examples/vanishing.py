"""In which settings the paper's finding about vanishing gradients repeats.

    python examples/vanishing.py [--mnist FOLDER] --out runs/vanishing

The paper says that in a 256-256-128 network without batch norm gradients vanish for all functions
of one slope but HTAF (2, 11) and ReLU. Its text leaves open how weights begin, the scale of the
images, the optimiser and its rate, and the data; each combination is trained here. A network's
gradient vanished where the first layer's norm ended below a thousandth of what it began with while
less than half of the training images are classified. The table is
``vanishing.md`` in ``--out``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from paper.depth import ACTIVATIONS, Images, Setup, Trained, digits, standardised, train
from tqdm import tqdm

from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.files import write_whole

INITIALS: tuple[Any, ...] = ("torch", "xavier", "normal")
OPTIMIZERS: tuple[Any, ...] = (("adam", 1e-3), ("adam", 1e-2), ("sgd", 1e-2), ("sgd", 1e-1))
SCALES = (0.3, 1.0, 3.0)
SETUPS = tuple(
    Setup(initial, lr, optimizer, scale)
    for initial, (optimizer, lr), scale in product(INITIALS, OPTIMIZERS, SCALES)
)
STAYS = ("HTAF (2, 11)", "ReLU")  # whose gradients do not vanish in the paper


def mnist(folder: Path) -> Images:
    """MNIST's images in a folder of its files."""
    splits = SpikingDataModule(DataConfig("mnist", folder, T=1, augment="", validation=0.0)).splits
    parts: list[Any] = [splits.train, splits.test]
    loaded = [[np.stack(column) for column in zip(*part, strict=True)] for part in parts]
    pixels = [images.reshape(len(images), -1).astype(float) for images, _ in loaded]
    return standardised(*pixels, *(labels for _, labels in loaded))


def has_vanished(run: Trained) -> bool:
    """Returns True if a network's first layer stopped learning before it had fitted its images."""
    return run.train_accuracy < 0.5 and run.first[-1] < 1e-3 * run.first[0]


def row(setup: Setup, runs: Sequence[Trained]) -> list[str]:
    """How many seeds' gradients vanished, by activation, with the median training accuracy."""
    cells, counts = [], {}
    for name in ACTIVATIONS:
        own = [run for run in runs if run.activation == name]
        counts[name] = sum(map(has_vanished, own)) / len(own)
        accuracy = np.median([run.train_accuracy for run in own])
        cells.append(f"{sum(map(has_vanished, own))} of {len(own)}, {accuracy:.2f}")
    most = all(counts[name] > 0.5 for name in counts if name not in STAYS)
    none = all(counts[name] < 0.5 for name in STAYS)
    return [str(setup), *cells, "yes" if most and none else "no"]


def rows(
    images: Images, epochs: int, seeds: Sequence[int], setups: Sequence[Setup] = SETUPS
) -> Iterator[list[str]]:
    """The table's head, and a row a setup; shows progress."""
    yield ["setting", *ACTIVATIONS, "as in the paper"]
    for setup in tqdm(setups, desc="settings", unit="setting"):
        plan = product(ACTIVATIONS, seeds)
        yield row(setup, [train(name, setup, seed, epochs, images) for name, seed in plan])


def main(argv: Sequence[str] | None = None) -> Path:
    """Trains in every setting and writes the table; returns its path."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's files, instead of the digits")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/vanishing"))
    chosen = parser.parse_args(argv)
    images = digits() if chosen.mnist is None else mnist(chosen.mnist)
    head, *found = rows(images, chosen.epochs, chosen.seeds)
    lines = [head, ["---"] * len(head), *found]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    chosen.out.mkdir(parents=True, exist_ok=True)
    path: Path = chosen.out / "vanishing.md"
    write_whole(path, lambda temporary: temporary.write_text(text))
    return path


if __name__ == "__main__":
    print(main())
