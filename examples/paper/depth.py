"""Whether gradients reach the first layer of a fully connected network without batch norm.

Four functions of the same slope at 0, 5.5, and ReLU, on scikit-learn's 8x8 digits: the paper's
experiment on the tail, at a size that trains in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from htaf_snn.surrogates import HTAF, ScaledSigmoid

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "HTAF (2, 11)": lambda: HTAF(2, 11),
    "HTAF (8, 2.75)": lambda: HTAF(8, 2.75),
    "HTAF (11, 2)": lambda: HTAF(11, 2),
    "scaled sigmoid 22": lambda: ScaledSigmoid(22),
    "ReLU": nn.ReLU,
}
SEEDS = (0, 1, 2, 3, 4)
_WIDTHS = (256, 256, 128)
_CLASSES = 10
_BATCH = 64
_TEST_SHARE = 0.25


@dataclass(frozen=True)
class Setup:
    """How a network starts and learns.

    Args:
        initial: "torch", `nn.Linear`'s own (uniform, within 1/sqrt(inputs), biases too), or, with
            biases of zero, "xavier", Glorot's normal weights, or "normal", of deviation 0.1.
        lr: learning rate, > 0.
        optimizer: "adam", or "sgd", with a momentum of 0.9.
        scale: by which the images are multiplied, > 0.
    """

    initial: Literal["torch", "xavier", "normal"]
    lr: float
    optimizer: Literal["adam", "sgd"] = "adam"
    scale: float = 1.0

    def __str__(self) -> str:
        said = f"{self.initial} initial weights, lr {self.lr:g}"
        said += "" if self.optimizer == "adam" else f", {self.optimizer}"
        return said if self.scale == 1 else f"{said}, inputs times {self.scale:g}"


SETUPS = (Setup("torch", 1e-3), Setup("xavier", 1e-3), Setup("torch", 1e-2))


@dataclass(frozen=True)
class Images:
    """Standardised images [N, pixels] float32 and labels [N], apart for training and test."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


@dataclass(frozen=True)
class Trained:
    """One network's run.

    ``first`` and ``last`` are the gradient norms of the first and the last layer's weights, one
    an epoch: the mean over its mini-batches of the Frobenius norm of the loss's gradient. The
    epoch at index 0 makes no update. ``hard_accuracy`` is None for ReLU, which has no step.
    """

    activation: str
    setup: Setup
    seed: int
    first: list[float]
    last: list[float]
    train_accuracy: float  # as trained
    soft_accuracy: float  # on the test images, as trained
    hard_accuracy: float | None  # on the test images, with the exact step


def digits() -> Images:
    """scikit-learn's 1797 handwritten digits, a quarter of them for the test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    return standardised(*train_test_split(x, y, test_size=_TEST_SHARE, stratify=y, random_state=0))


def standardised(
    train_x: np.ndarray, test_x: np.ndarray, train_y: np.ndarray, test_y: np.ndarray
) -> Images:
    """Images whose pixels are standardised by the training images; what never varies is centred."""
    mean, spread = train_x.mean(0), train_x.std(0)
    spread[spread == 0] = 1
    train, test = (
        torch.tensor((images - mean) / spread, dtype=torch.float32) for images in (train_x, test_x)
    )
    return Images(train, torch.tensor(train_y), test, torch.tensor(test_y))


def network(activation: str, setup: Setup, pixels: int = 64) -> nn.Sequential:
    """pixels-256-256-128-10, with ``activation`` after each layer but the last."""
    layers: list[nn.Module] = []
    for inputs, width in pairwise((pixels, *_WIDTHS)):
        layers += [nn.Linear(inputs, width), ACTIVATIONS[activation]()]
    net = nn.Sequential(*layers, nn.Linear(_WIDTHS[-1], _CLASSES))
    if setup.initial != "torch":
        for layer in _linear(net):
            if setup.initial == "xavier":
                nn.init.xavier_normal_(layer.weight)
            else:
                nn.init.normal_(layer.weight, std=0.1)
            nn.init.zeros_(layer.bias)
    return net


def train(activation: str, setup: Setup, seed: int, epochs: int, data: Images) -> Trained:
    """Trains one network and records its gradients.

    Args:
        activation: a name in `ACTIVATIONS`.
        setup: initial weights and learning rate.
        seed: of the initial weights and the data order, which are thus the same for all
            activations.
        epochs: with updates, >= 1.
        data: the images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = network(activation, setup, data.train_x.shape[1])
    order = torch.Generator().manual_seed(seed)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(net.parameters(), setup.lr)
    if setup.optimizer == "sgd":
        optimizer = torch.optim.SGD(net.parameters(), setup.lr, momentum=0.9)
    data = replace(data, train_x=setup.scale * data.train_x, test_x=setup.scale * data.test_x)
    ends = [layer.weight for layer in (_linear(net)[0], _linear(net)[-1])]
    norms = []
    for epoch in range(epochs + 1):
        batches = []
        for index in torch.randperm(len(data.train_x), generator=order).split(_BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(data.train_x[index]), data.train_y[index])
            loss.backward()
            batches.append([float(torch.linalg.vector_norm(_gradient(w))) for w in ends])
            if epoch > 0:
                optimizer.step()
        norms.append(np.mean(batches, axis=0))
    first, last = np.array(norms).T.tolist()
    train_accuracy = _accuracy(net, data.train_x, data.train_y)
    soft = _accuracy(net, data.test_x, data.test_y)
    hard = None if activation == "ReLU" else _accuracy(net.eval(), data.test_x, data.test_y)
    return Trained(activation, setup, seed, first, last, train_accuracy, soft, hard)


def train_all(
    epochs: int, setups: Sequence[Setup] = SETUPS, seeds: Sequence[int] = SEEDS
) -> list[Trained]:
    """Trains every activation under every setup with every seed, showing progress.

    Raises:
        ValueError: ``epochs`` below 1.
    """
    if epochs < 1:
        raise ValueError(f"`epochs` (={epochs}) must be at least 1")
    data = digits()
    plan = list(product(ACTIVATIONS, setups, seeds))
    return [
        train(activation, setup, seed, epochs, data)
        for activation, setup, seed in tqdm(plan, desc="figures: depth", unit="run")
    ]


def table(runs: Sequence[Trained]) -> str:
    """One line a setup and activation: medians over the seeds.

    "start" is before the first update; "ratio" is the first layer's norm over the last layer's,
    in the last epoch. Accuracies: training and soft as trained, hard with the exact step; soft
    and hard on the test images.
    """
    head = (
        f"{'activation':17}  {'norm: start':>11}  {'epoch 1':>8}  {'last':>8}  {'ratio':>8}"
        "  training    soft    hard"
    )
    lines = []
    for setup in dict.fromkeys(run.setup for run in runs):
        lines += ["", str(setup), head]
        for activation in dict.fromkeys(run.activation for run in runs):
            members = [r for r in runs if (r.setup, r.activation) == (setup, activation)]
            first, ratio = first_norms(members), ratios(members)
            hard = [r.hard_accuracy for r in members if r.hard_accuracy is not None]
            lines.append(
                f"{activation:17}  {np.median(first[:, 0]):11.1e}  {np.median(first[:, 1]):8.1e}"
                f"  {np.median(first[:, -1]):8.1e}  {np.median(ratio[:, -1]):8.1e}"
                f"  {np.median([r.train_accuracy for r in members]):8.4f}"
                f"  {np.median([r.soft_accuracy for r in members]):6.4f}"
                f"  {f'{np.median(hard):.4f}' if hard else '-':>6}"
            )
    return "\n".join(lines[1:])


def first_norms(runs: Sequence[Trained]) -> np.ndarray:
    """The first layer's gradient norms, [runs, 1 + epochs]."""
    return np.array([run.first for run in runs])


def ratios(runs: Sequence[Trained]) -> np.ndarray:
    """The first layer's gradient norms over the last layer's, [runs, 1 + epochs].

    NaN where both are zero. A norm alone also falls as a network fits its data; this doesn't.
    """
    with np.errstate(invalid="ignore"):
        ratio: np.ndarray = first_norms(runs) / np.array([run.last for run in runs])
    return ratio


def _linear(net: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in net if isinstance(layer, nn.Linear)]


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None  # after backward
    return weight.grad


def _accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((net(x).argmax(1) == y).double().mean())
