"""Figures as files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 300  # of the PNG


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes ``name``.png and ``name``.pdf into ``folder``, each whole or not at all.

    Raises:
        OSError: a file can't be written.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once for all formats
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    write_whole(png, partial(figure.savefig, format="png", dpi=_DPI))
    write_whole(pdf, partial(figure.savefig, format="pdf", metadata={"CreationDate": None}))
    return [png, pdf]
