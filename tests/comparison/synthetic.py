"""Runs that no network made, with the shape of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from htaf_snn.comparison.results import Epoch, Run

MODEL = {"name": "vgg", "hardening": [0.0, 0.8], "recipe": "hardened"}
LAYERS = ("conv1", "conv2", "conv3", "conv4", "linear")

# Hard accuracy, gap in pp and gradient gain a layer.
CONTENDERS = {
    "htaf": (0.951, 0.05, 1.0),
    "htaf@hardening=null": (0.945, 1.2, 1.05),
    "htaf:mode=hard": (0.944, 0.0, 0.95),
    "scaled_sigmoid:beta=4": (0.930, 3.1, 0.8),
    "straight_through": (0.921, 0.0, 1.5),
    "atan": (0.947, 0.0, 0.7),
    "sigmoid": (0.946, 0.0, 0.75),
    "piecewise_quadratic": (0.940, 0.0, 0.6),
    "leaky_k_relu": (0.912, 0.0, 1.3),
    "erf": (0.943, 0.0, 0.7),
    "soft_sign": (0.938, 0.0, 0.65),
    "super_spike": (0.935, 0.0, 0.4),
}


def make_run(**changes: Any) -> Run:
    """A run with two epochs of history; ``changes`` replaces fields."""
    history = [make_epoch(epoch, 0.5 + epoch / 10) for epoch in range(2)]
    run = Run(
        data="digits",
        spike="htaf",
        seed=0,
        hard_accuracy=0.9,
        soft_accuracy=0.9,
        gap_pp=0.0,
        hard_loss=0.3,
        soft_loss=0.3,
        val_accuracy=0.9,
        firing_rate=0.1,
        firing_rate_by_layer=dict.fromkeys(LAYERS, 0.1),
        outputs=[0.9, *[0.0] * 48, 0.1],
        synaptic_operations=2.5e6,
        energy_nj=2250.0,
        seconds=61.0,
        trained_accuracy=0.9,
        history=history,
        settings={"epochs": 2, "data": {"name": "digits", "T": 4}, "model": MODEL},
        versions={"python": "3.11.2", "torch": "2.9.0"},
    )
    return replace(run, **changes)


def three_runs() -> list[Run]:
    """Two seeds of HTAF, with gaps, and one of ATan."""
    return [
        make_run(seed=0, hard_accuracy=0.9, gap_pp=2.0),
        make_run(seed=1, hard_accuracy=0.8, gap_pp=1.0),
        make_run(spike="atan", hard_accuracy=0.7),
    ]


def make_epoch(epoch: int, val_accuracy: float, gain: float = 1.0) -> Epoch:
    return Epoch(
        epoch=epoch,
        train_loss=2.3 * (1 - val_accuracy) + 0.1,
        train_accuracy=min(1.0, val_accuracy + 0.02),
        val_loss=2.3 * (1 - val_accuracy) + 0.2,
        val_accuracy=val_accuracy,
        gradient_norms={
            layer: gain ** (len(LAYERS) - i) / (1 + 0.3 * epoch) for i, layer in enumerate(LAYERS)
        },
    )


def make_runs(
    data: str = "nmnist",
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    contenders: Sequence[str] = tuple(CONTENDERS),
    epochs: int = 12,
) -> list[Run]:
    """Runs of each contender and seed, with courses and noise as of a small network."""
    rng = np.random.default_rng(0)
    difficulty = {seed: rng.normal(0, 0.002) for seed in seeds}
    runs = []
    for spike in contenders:
        level, gap, gain = CONTENDERS.get(spike, (0.9, 0.5, 1.0))
        for seed in seeds:
            hard = round(level + difficulty[seed] + rng.normal(0, 0.004), 4)
            gap_pp = round(gap * rng.uniform(0.8, 1.2), 2)
            course = hard - 0.5 * np.exp(-np.arange(epochs) / 2) + rng.normal(0, 0.006, epochs)
            rates = 0.08 + 0.12 * np.exp(-np.arange(len(LAYERS)) / 2) + rng.normal(0, 0.006, 5)
            smooth = gap_pp > 0
            inside = 0.06 * np.exp(-np.minimum(np.arange(50), np.arange(50)[::-1]) / 3) + 1e-4
            outputs = inside if smooth else np.zeros(50)
            outputs = outputs * rng.uniform(0.9, 1.1)
            outputs[-1] += 0.1
            outputs[0] += 1 - outputs.sum()
            runs.append(
                make_run(
                    data=data,
                    spike=spike,
                    seed=seed,
                    hard_accuracy=hard,
                    soft_accuracy=hard + gap_pp / 100,
                    trained_accuracy=hard + gap_pp / 100 + 0.01,
                    gap_pp=gap_pp,
                    val_accuracy=hard,
                    firing_rate=float(rates.mean()),
                    firing_rate_by_layer=dict(zip(LAYERS, map(float, rates), strict=True)),
                    outputs=[float(share) for share in outputs],
                    synaptic_operations=float(2.5e7 * rates.mean()),
                    energy_nj=float(2.25e4 * rates.mean()),
                    history=[make_epoch(e, float(a), gain) for e, a in enumerate(course)],
                    settings={
                        "epochs": epochs,
                        "data": {"name": data, "T": 4, "batch_size": 64},
                        "model": MODEL
                        | {
                            "widths": [16, 32, 64],
                            "lr": 2e-3,
                            "hardening": None if "=null" in spike else [0.0, 0.8],
                        },
                    },
                )
            )
    return runs
