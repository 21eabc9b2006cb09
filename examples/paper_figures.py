"""The figures of arXiv 2605.11558 about HTAF: its curves, its bound, gradients without batch norm.

    python examples/paper_figures.py --out figures

draws each as PNG, PDF and the CSV of its numbers. ``--only outputs,gradient_ratio,tail_ratio,
tolerance`` takes seconds; "depth" trains 75 small networks, minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from paper import draw
from paper.depth import train_all
from paper.panel import Drawn, save

from htaf_snn.arguments import one_of

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


def main() -> None:
    """Draws what the command line asks for."""
    parser = argparse.ArgumentParser(description="The paper's figures about HTAF.")
    parser.add_argument("--out", type=Path, default=Path("runs/figures"), help="their folder")
    parser.add_argument("--epochs", type=int, default=25, help="of training, for depth")
    parser.add_argument("--only", default=",".join(NAMES), help="which, separated by commas")
    options = parser.parse_args()
    try:
        files, table = write(options.out, options.only.split(","), options.epochs)
    except ValueError as error:
        parser.error(str(error))
    if table:
        print(table)
    print(f"{options.out}/: {', '.join(path.name for path in files)}")


if __name__ == "__main__":
    main()
