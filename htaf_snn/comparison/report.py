"""A comparison as a table and as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..files import write_whole
from .run import Run


def group(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs by spike function, in their order."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.spike, []).append(run)
    return groups


def table(runs: Sequence[Run]) -> str:
    """One line a spike function: means over seeds, and the standard deviation of the accuracy."""
    groups = group(runs)
    width = max([len("spike function"), *map(len, groups)])
    lines = [
        f"{'spike function':{width}}  seeds  hard accuracy  soft accuracy  gap (pp)  firing rate"
        "  s/epoch"
    ]
    for spike, members in groups.items():
        hard = np.array([run.hard_accuracy for run in members])
        spread = f"±{hard.std(ddof=1):.4f}" if len(hard) > 1 else ""
        soft, gap, rate, seconds = (
            float(np.mean([getattr(run, name) for run in members]))
            for name in ("soft_accuracy", "gap_pp", "firing_rate", "epoch_seconds")
        )
        lines.append(
            f"{spike:{width}}  {len(members):5}  {f'{hard.mean():.4f}{spread}':>13}  {soft:13.4f}"
            f"  {gap:+8.2f}  {rate:11.4f}  {seconds:7.2f}"
        )
    return "\n".join(lines)


def draw(runs: Sequence[Run], title: str, path: Path) -> None:
    """Learning curves beside the test accuracies, as a PNG at ``path``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    curves, bars = figure.subplots(1, 2, width_ratios=(3, 2))
    groups = group(runs)
    for position, (spike, members) in enumerate(groups.items()):
        color = f"C{position % 10}"
        epochs = [epoch["epoch"] + 1 for epoch in members[0].history]
        accuracy = np.array([[e["val_accuracy"] for e in run.history] for run in members])
        curves.plot(epochs, accuracy.mean(0), color=color, label=spike, marker=".")
        if len(members) > 1:
            curves.fill_between(epochs, accuracy.min(0), accuracy.max(0), color=color, alpha=0.15)
        for marker, name in (("o", "hard_accuracy"), ("D", "soft_accuracy")):
            values = [getattr(run, name) for run in members]
            fill = color if marker == "o" else "none"
            offset = -0.12 if marker == "o" else 0.12
            bars.scatter(
                [position + offset] * len(values), values, marker=marker, s=28,
                facecolors=fill, edgecolors=color, alpha=0.8,
            )  # fmt: skip
            bars.hlines(np.mean(values), position + offset - 0.1, position + offset + 0.1, color)
    curves.set(xlabel="epoch", ylabel="accuracy", title="validation, firing with the exact step")
    curves.legend()
    bars.set(title="test: ● exact step, ◇ as trained")
    bars.set_xticks(range(len(groups)), list(groups), rotation=20, ha="right")
    bars.set_xlim(-0.6, len(groups) - 0.4)
    for axes in (curves, bars):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    write_whole(path, lambda partial: figure.savefig(partial, format="png", dpi=150))
