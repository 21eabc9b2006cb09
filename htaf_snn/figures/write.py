"""Figures by name, drawn and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..arguments import one_of
from . import draw
from .depth import train_all
from .panel import Drawn, save

CURVES: dict[str, Callable[[], Drawn]] = {
    "outputs": draw.outputs,
    "gradient_ratio": draw.gradient_ratio,
    "tail_ratio": draw.tail_ratio,
    "tolerance": draw.tolerance,
}
NAMES = (*CURVES, "depth")


def write(out: Path, names: Sequence[str] = NAMES, epochs: int = 25) -> tuple[list[Path], str]:
    """Draws the paper's figures about HTAF into ``out``, as PNG and PDF, with their data as CSV.

    Args:
        out: folder of the figures; made if absent.
        names: which of `NAMES`.
        epochs: of training for "depth", >= 1.

    Returns:
        the files, and the table of "depth" (empty without it).

    Raises:
        ValueError: an unknown name, or ``epochs`` below 1; before anything is drawn.
        OSError: a file can't be written.

    Source:
        arXiv 2605.11558.
    """
    for name in names:
        one_of("figure", name, NAMES)
    if epochs < 1:
        raise ValueError(f"`epochs` (={epochs}) must be at least 1")
    files, table = [], ""
    for name in dict.fromkeys(names):
        drawn = CURVES[name]() if name in CURVES else draw.gradient_norms(train_all(epochs))
        files += save(drawn, out, name)
        table += drawn.text
    return files, table
