"""Writes the help of the longest commands into htaf_snn/help/: ``python -m tests.help_texts``.

It is read from there, so that ``htaf-snn fit --help`` needs neither torch nor an extra.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from htaf_snn import cli

FOLDER = Path(cli.__file__).parent / "help"
COMMANDS = ("fit", "compare")


def help_of(command: str) -> str:
    """What the command's parser says."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        cli._run(command, ["--help"])
    return text.getvalue()


if __name__ == "__main__":
    for name in COMMANDS:
        (FOLDER / f"{name}.txt").write_text(help_of(name), encoding="utf-8")
