"""Writes the help of the longest commands into htaf_snn/help/: ``python -m tests.help_texts``.

It is read from there, so that ``htaf-snn fit --help`` needs neither torch nor an extra. It fits a
screen: the main options, in a sentence each; ``--help all`` shows the others too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import textwrap
import typing
from pathlib import Path
from typing import Any
from unittest import mock

from htaf_snn import cli

FOLDER = Path(cli.__file__).parent / "help"
COMMANDS = ("fit", "compare")
MAIN = {
    "model.model", "model.spike", "model.neuron", "model.recipe", "model.learning_rate",
    "data.name", "data.root", "data.T", "data.batch_size", "data.augment", "trainer.max_epochs",
    "trainer.accelerator", "trainer.devices",
}  # fmt: skip
DETAIL = re.compile(r"\.|^(print_.*|data|model|trainer|checkpoint)$")


def in_short(action: Any) -> str:
    """An option's name, the first sentence about it, its choices and its default."""
    name = next(o for o in action.option_strings if o.startswith("--"))
    text = re.split(r"[.;] |\.$", " ".join(str(action.help).split()))[0].replace("`", "")
    hint = getattr(action, "_typehint", None)
    if typing.get_origin(hint) is typing.Literal:
        text += f": {', '.join(map(str, typing.get_args(hint)))}"
    if action.default not in (None, argparse.SUPPRESS):
        text += f" (default: {action.default})"
    return textwrap.fill(text, 79, initial_indent=f"  {name:22} ", subsequent_indent=25 * " ")


def format_help(parser: Any, _formatter: Any = None) -> str:
    named = [a for a in parser._actions if a.help != argparse.SUPPRESS]
    parser.usage = "%(prog)s [options]"
    lines = [parser.format_usage(), str(parser.description).partition("\n")[0], ""]
    for action in named:
        if action.dest in MAIN or not DETAIL.search(action.dest):
            lines.append(in_short(action))
    lines += ["", f"--help all shows all {len(named)} options, their types and defaults."]
    return "\n".join(lines) + "\n"


def help_of(command: str) -> str:
    """The command's help, of its parser."""
    text, parser = io.StringIO(), cli._parser_class()
    parser.format_help = format_help
    with (
        mock.patch.object(cli, "_parser_class", lambda: parser),
        contextlib.redirect_stdout(text),
        contextlib.suppress(SystemExit),
    ):
        cli._run(command, ["--help"])
    return text.getvalue()


if __name__ == "__main__":
    for name in COMMANDS:
        (FOLDER / f"{name}.txt").write_text(help_of(name), encoding="utf-8")
