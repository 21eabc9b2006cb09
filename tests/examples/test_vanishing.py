"""The search for settings in which the paper's vanishing gradients repeat."""

from __future__ import annotations

from pathlib import Path

import pytest
import vanishing
from paper.depth import ACTIVATIONS, Setup, Trained

SETUP = Setup("normal", 1e-2, "sgd", 3.0)


def trained(activation: str, accuracy: float, norm: float, seed: int = 0) -> Trained:
    return Trained(activation, SETUP, seed, [2.0, norm], [1.0, 1.0], accuracy, 0.5, None)


@pytest.mark.parametrize(("accuracy", "norm", "gone"), [(0.1, 1e-6, True), (1.0, 1e-6, False),
                                                        (0.1, 1e-1, False)])  # fmt: skip
def test_a_fitted_network_has_not_lost_its_gradient(
    accuracy: float, norm: float, gone: bool
) -> None:
    assert vanishing.has_vanished(trained("ReLU", accuracy, norm)) is gone


@pytest.mark.parametrize("stays", [vanishing.STAYS, ("ReLU",), tuple(ACTIVATIONS)])
def test_only_the_papers_order_counts(stays: tuple[str, ...]) -> None:
    runs = [
        trained(name, 0.9 if name in stays else 0.1, 1e-9, seed)
        for name in ACTIVATIONS
        for seed in range(3)
    ]
    setting, *cells, verdict = vanishing.row(SETUP, runs)
    assert setting == "normal initial weights, lr 0.01, sgd, inputs times 3"
    assert cells == ["0 of 3, 0.90" if name in stays else "3 of 3, 0.10" for name in ACTIVATIONS]
    assert verdict == ("yes" if stays == vanishing.STAYS else "no")


def test_it_trains_in_every_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    images = vanishing.mnist(shared_data / "mnist_5k")
    assert images.train_x.shape == (4000, 784) and images.test_y.bincount().sum() == 1000
    monkeypatch.setattr(vanishing.rows, "__defaults__", ((SETUP,),))
    path = vanishing.main(["--epochs", "1", "--seeds", "0", "--out", str(tmp_path / "new")])
    head, _, line = path.read_text().splitlines()
    assert head.count("|") == line.count("|") == 8 and "inputs times 3" in line
