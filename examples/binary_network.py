"""Binary networks: weights and activations of one bit, on images.

The sign of a binary layer's inputs and weights is 2 HTAF - 1, smooth at first and hardened in
training; the same of a scaled sigmoid, at the same slopes at 0; or the straight-through estimator's
exact sign with its clipped gradient. In the last fifth of the training all are binary; after it the
weights are packed to one bit each, written, and read back into a network that gives the very same
outputs. The first and the last layer stay real, as is usual.

    python examples/binary_network.py
    python examples/binary_network.py --data mnist --root DIR
    python examples/binary_network.py --data digits
    python examples/binary_network.py --tune
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common.binary import (
    BinaryConv2d,
    ClippedSign,
    SignedSigmoid,
    binary_layers,
    read_signs,
    write_signs,
)
from common.plain import Images, classification_loss, train_plain
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

import htaf_snn
from htaf_snn.comparison import aligned, plots
from htaf_snn.comparison.seed_statistics import estimate
from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.files import write_whole
from htaf_snn.process import seed_torch
from htaf_snn.transfer import accuracy, firing_as_trained

Sign = Callable[[], nn.Module]
Constants = tuple[float, ...]
Labelled = tuple[Tensor, Tensor]  # images [N, C, H, W] and labels [N]
DATA = {  # and where each lies in $HTAF_SNN_DATA
    "fashion_mnist": "fashion_mnist_subset",
    "mnist": "mnist_5k",
    "image_folder": "cifar10_jpeg_subset.tar.xz",
    "digits": None,
}
COUNTS = {"seeds": 3, "epochs": 8, "width": 24}
RATES = (3e-2, 1e-2)  # learning rates that `--tune` tries; the first of equally good ones
BATCH = 64
COLORS = {"HTAF": "#0b3c8c", "scaled sigmoid": "#c0392b", "straight-through": "#7a7a7a"}


class Contender(NamedTuple):
    """A sign, the constants that ``--tune`` tries, and what it chose on Fashion-MNIST."""

    sign: Callable[..., nn.Module]
    candidates: Sequence[Constants]
    constants: Constants
    learning_rate: float


CONTENDERS = {
    "HTAF": Contender(
        partial(htaf_snn.HTAF, signed=True),
        [(0.67, 3), (0.67, 6), (0.67, 12), (2, 6)],
        (0.67, 6),
        3e-2,
    ),
    "scaled sigmoid": Contender(SignedSigmoid, [(2,), (4,), (8,), (12,)], (4,), 3e-2),
    "straight-through": Contender(ClippedSign, [(0.25,), (0.5,), (1,), (2,)], (0.5,), 3e-2),
}


class BinaryNet(nn.Sequential):
    """A real convolution, three binary ones, signs averaged over the image, a real layer.

    Shape:
        ``[N, channels, H, W]`` to logits ``[N, classes]``.
    """

    def __init__(self, channels: int, classes: int, width: int, sign: Sign) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            BinaryConv2d(width, 2 * width, 2, sign),
            nn.BatchNorm2d(2 * width),
            BinaryConv2d(2 * width, 2 * width, 1, sign),
            nn.BatchNorm2d(2 * width),
            BinaryConv2d(2 * width, 2 * width, 1, sign),
            nn.BatchNorm2d(2 * width),
            sign(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, classes),
        )


class Data(NamedTuple):
    """A data set's three parts, without augmentation."""

    train: Labelled
    validation: Labelled
    test: Labelled
    classes: int


def load(name: str, root: Path | None) -> Data:
    """A registered set of images, in memory."""
    module = SpikingDataModule(DataConfig(name, root, T=1, augment=""))
    loaders = (module.train_dataloader(), module.val_dataloader(), module.test_dataloader())
    train, validation, test = (
        (torch.cat([x for x, _ in images]), torch.cat([labels for _, labels in images]))
        for images in (list(Images(loader)) for loader in loaders)
    )
    return Data(train, validation, test, module.num_classes)


def batches(part: Labelled, shuffle: bool = False) -> DataLoader[Any]:
    """Of a part of the data, in a new order each time if ``shuffle``."""
    return DataLoader(TensorDataset(*part), BATCH, shuffle)


class Trained(NamedTuple):
    """A network, and by epoch its validation accuracy (exact, as trained) and its signed weights.

    The weights are those of the first binary layer as the forward pass of training sees them,
    from before the first epoch on.
    """

    net: BinaryNet
    exact: list[float]
    as_trained: list[float]
    weights: list[Tensor]


def build(name: str, constants: Constants, data: Data, options: argparse.Namespace) -> BinaryNet:
    """An untrained network for this data."""
    sign = partial(CONTENDERS[name].sign, *constants)
    channels = data.train[0].shape[1]
    return BinaryNet(channels, data.classes, options.width, sign)


def train(name: str, constants: Constants, learning_rate: float, seed: int, data: Data,
          options: argparse.Namespace, progress: Any) -> Trained:  # fmt: skip
    """Trains a network; its initial weights and its batches depend on the seed alone."""
    seed_torch(seed)
    net = build(name, constants, data, options)
    layers = list(binary_layers(net).values())
    loader, validation = batches(data.train, shuffle=True), batches(data.validation)
    trained = Trained(net, [], [], [])
    steps = itertools.count(1)

    def keep_weights() -> None:
        with torch.no_grad():
            trained.weights.append(layers[0].sign_of_weights(layers[0].weight).flatten())

    def on_step() -> None:
        progress.update()
        for layer in layers:
            layer.clip()
        if next(steps) % len(loader) == 0:
            keep_weights()
            net.eval()
            trained.exact.append(accuracy(net, validation))
            with firing_as_trained(net):
                trained.as_trained.append(accuracy(net, validation))
            net.train()

    keep_weights()
    train_plain(
        net, loader, classification_loss, options.epochs, learning_rate,
        true_gradient=options.true_gradient, on_step=on_step,
    )  # fmt: skip
    net.eval()
    return trained


def tune(data: Data, options: argparse.Namespace, progress: Any) -> dict[str, tuple[Any, ...]]:
    """Each contender's best constants and learning rate, by validation accuracy of one seed."""
    chosen = {}
    for name, contender in CONTENDERS.items():
        found = {}
        for constants, rate in itertools.product(contender.candidates, RATES):
            progress.set_postfix_str(f"tuning {name} {constants}, learning rate {rate}")
            trained = train(name, constants, rate, -1, data, options, progress)
            found[constants, rate] = trained.exact[-1]
            progress.write(f"validation {found[constants, rate]:.4f}  {name} {constants}, {rate}")
        chosen[name] = max(found, key=lambda choice: found[choice])
    return chosen


class Result(NamedTuple):
    """A run's network as trained, its test accuracy and that of its packed file, and bytes."""

    trained: Trained
    accuracy: float
    packed_accuracy: float
    size: int
    packed_size: int


def measure(name: str, constants: Constants, trained: Trained, file: Path, data: Data,
            options: argparse.Namespace) -> Result:  # fmt: skip
    """Writes a trained network, reads its packed file into a new one, and tests both.

    Raises:
        RuntimeError: the two networks' outputs differ.
    """
    size = write_signs(trained.net, file.with_suffix(".npz"), packed=False)
    packed_size = write_signs(trained.net, file.with_suffix(".packed.npz"))
    back = build(name, constants, data, options).eval()
    read_signs(back, file.with_suffix(".packed.npz"))
    x, labels = data.test
    with torch.no_grad():
        logits, packed = trained.net(x), back(x)
    if not logits.equal(packed):
        raise RuntimeError(f"{file}: the packed network's outputs are not those of the unpacked")
    score, packed_score = (float((out.argmax(1) == labels).double().mean())
                           for out in (logits, packed))  # fmt: skip
    return Result(trained, score, packed_score, size, packed_size)


def report(results: dict[str, list[Result]], chosen: dict[str, tuple[Any, ...]]) -> str:
    """A line for each contender, and how far HTAF is ahead."""
    lines: list[tuple[str, ...]] = [
        ("", "test accuracy", "packed", "by seed", "bytes", "packed", "constants, learning rate")
    ]
    for name, runs in results.items():
        scores = [run.accuracy for run in runs]
        packed = estimate([run.packed_accuracy for run in runs])
        by_seed = " ".join(f"{score:.4f}" for score in scores)
        sizes = (f"{runs[0].size}", f"{runs[0].packed_size}")
        constants, rate = chosen[name]
        shown = (f"{estimate(scores):.4f}", f"{packed:.4f}", by_seed, *sizes)
        lines.append((name, *shown, f"{constants}, {rate}"))
    (first, htaf), *others = results.items()
    ahead = {
        name: estimate([100 * (h.accuracy - o.accuracy) for h, o in zip(htaf, runs, strict=True)])
        for name, runs in others
    }
    differences = [f"{first} - {name}, by seed: {pp:+.2f} pp" for name, pp in ahead.items()]
    return "\n".join([aligned(lines), *differences])


def draw(results: dict[str, list[Result]], title: str) -> Figure:
    """Validation accuracy by epoch, and HTAF's weights on their way to -1 and +1."""
    figure = plots.new_figure(2.6, 7.2)
    curves, weights = figure.subplots(1, 2, width_ratios=(3, 2))
    for name, runs in results.items():
        epochs = range(1, len(runs[0].trained.exact) + 1)
        exact = np.array([run.trained.exact for run in runs])
        look = {"color": COLORS[name]}
        curves.plot(epochs, exact.mean(0), label=f"{name}, exact signs", **look)
        curves.fill_between(epochs, exact.min(0), exact.max(0), alpha=0.2, linewidth=0, **look)
        if name == "HTAF":
            soft = np.mean([run.trained.as_trained for run in runs], 0)
            curves.plot(epochs, soft, "--", label="HTAF, as it is trained", **look)
    curves.axvspan(0.8 * len(epochs), len(epochs), color="#f2f2f2", zorder=0)
    curves.set_title(f"{title}: validation accuracy (mean and range over seeds)")
    curves.set_xlabel("epoch; all train exact signs where grey")
    plots.whole_epochs(curves)
    curves.legend(loc="lower right")
    kept = results["HTAF"][0].trained.weights
    for epoch, color in zip((0, len(kept) // 2, len(kept) - 1), ("#7fb3e6", "#2f7fd6", "#0b3c8c"),
                            strict=True):  # fmt: skip
        look = {"color": color, "label": f"after epoch {epoch}" if epoch else "at the start"}
        weights.hist(kept[epoch].numpy(), 41, range=(-1.05, 1.05), histtype="step", **look)
    weights.set_title("HTAF's weights, first binary layer")
    weights.set_xlabel("2 HTAF(latent weight) - 1, as it is trained")
    weights.legend(loc="upper center")
    return figure


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line asks for, and the data."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("HTAF_SNN_DATA", beside))
    add = parser.add_argument
    add("--data", choices=list(DATA), default="fashion_mnist")
    add("--root", type=Path, help=f"of the data; default: its place in {folder}".replace("%", "%%"))
    for name, default in COUNTS.items():
        add(f"--{name}", type=int, default=default, help=f"default: {default}")
    add("--tune", action="store_true", help="choose constants and learning rates on validation")
    add("--true-gradient", action="store_true", help="train without a surrogate to the end")
    add("--out", type=Path, default=Path("runs/binary_network"), help="folder of what is written")
    options = parser.parse_args(argv)
    for name in COUNTS:
        if getattr(options, name) < 1:
            parser.error(f"--{name} (={getattr(options, name)}) must be at least 1")
    place = DATA[options.data]
    if place is None and options.root is not None:
        parser.error(f"--root (={options.root}): {options.data} needs no files; leave it out")
    root = options.root or (folder / place if place else None)
    if root is not None and not root.exists():
        parser.error(
            f"no data at {root}; give --root, their folder, or take --data digits, which need none"
        )
    try:
        options.loaded = load(options.data, root)
    except (OSError, ValueError) as error:
        parser.error(f"--root (={root}): {error}")
    return options


def main() -> None:
    """Trains, packs and tests the networks, prints a table and draws a picture."""
    options = arguments()
    data, out = options.loaded, options.out
    out.mkdir(parents=True, exist_ok=True)
    chosen = {name: (c.constants, c.learning_rate) for name, c in CONTENDERS.items()}
    results: dict[str, list[Result]] = {name: [] for name in CONTENDERS}
    candidates = sum(len(c.candidates) for c in CONTENDERS.values()) * len(RATES)
    runs = options.seeds * len(CONTENDERS) + candidates * options.tune
    per_epoch = math.ceil(len(data.train[1]) / BATCH)
    with tqdm(total=runs * options.epochs * per_epoch) as progress:
        if options.tune:
            chosen = tune(data, options, progress)
        for seed, name in itertools.product(range(options.seeds), CONTENDERS):
            progress.set_postfix_str(f"{name}, seed {seed}")
            constants, rate = chosen[name]
            trained = train(name, constants, rate, seed, data, options, progress)
            file = out / f"{options.data}_{name.lower().replace(' ', '-')}_{seed}"
            results[name].append(measure(name, constants, trained, file, data, options))
    print(f"{options.data}, {options.seeds} seeds x {options.epochs} epochs")
    print(report(results, chosen))
    with plots.drawing():
        path = out / f"{options.data}.png"
        write_whole(path, partial(draw(results, options.data).savefig, format="png", dpi=200))
    print(path)


if __name__ == "__main__":
    main()
