"""The command line `htaf-snn COMMAND`: each command is a function, its options the function's."""

import argparse
import contextlib
import difflib
import functools
import importlib
import inspect
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .arguments import arguments_of, nearest
from .extras import EXTRAS, need
from .process import Stopped, stoppable

# Where each is, and what it does; imported when it is asked for.
COMMANDS: dict[str, tuple[str, str]] = {
    "fit": ("training.fit:fit", "train a network, with logs and checkpoints"),
    "test": ("training.use:test", "measure a checkpoint: hard and soft accuracy, gap, rates"),
    "predict": ("training.predict:predict", "label one event recording, or a folder of them"),
    "gap": ("training.use:gap", "show in which layers a checkpoint loses accuracy at the step"),
    "calibrate": ("training.use:calibrate", "re-estimate batch norm with exact spikes"),
    "export": ("training.use:export", "write the hard network as NIR, ONNX or SpikingJelly's"),
    "compare": ("comparison.compare:command", "train a network with several spike functions"),
    "report": ("comparison:report", "draw the report of a comparison anew"),
    "models": ("models.registry:models", "list the networks"),
    "neurons": ("neurons.host:neurons", "list SpikingJelly's neuron classes: fused, or why not"),
    "data": ("data.module:sets", "list the data sets"),
    "data inspect": ("data.inspection:inspect", "show what recordings hold"),
    "backends": ("neurons.kernels.device:show", "list the neurons' backends and their cache"),
}
_OF_THE_CORE = {"backends", "neurons"}  # need no extra; what options they have are switches


def _parser_class() -> Any:
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        """A parser whose usage is a line, and whose errors name the nearest option."""

        def format_help(self, formatter: Any = None) -> str:
            positionals = [action.dest for action in self._actions if not action.option_strings]
            self.usage = " ".join(["%(prog)s", *positionals, "[options]"])
            return str(super().format_help(formatter))

        def parse_args(self, args: Any = None, *rest: Any, **options: Any) -> Any:
            """Takes a switch alone, as --overwrite, for --overwrite=true."""
            given = list(sys.argv[1:] if args is None else args)
            switches = [a for a in self._actions if getattr(a, "_typehint", None) is bool]
            names = {name for action in switches for name in action.option_strings}
            for i, (arg, after) in enumerate(zip(given, [*given, "--"][1:], strict=True)):
                if arg in names and after.startswith("-"):
                    given[i] = f"{arg}=true"
            return super().parse_args(given, *rest, **options)

        def error(self, message: str, *_: Any) -> Any:
            unknown = re.search(r"[Uu]nrecognized arguments: --([\w.]+)", str(message))
            if unknown:
                known = [a.dest for a in self._actions if a.option_strings]
                close = difflib.get_close_matches(unknown[1], known, 1, cutoff=0.8)
                message = f"{message}. Did you mean --{close[0]}?" if close else message
            print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
            raise SystemExit(2)

    return Parser


def _function(command: str) -> Any:
    module, _, name = COMMANDS[command][0].partition(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), name)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that ``argv`` (``sys.argv`` without the program) names."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["--version"]:
        print(f"htaf-snn {__version__}")
        return
    words = 2 if " ".join(argv[:2]) in COMMANDS else 1
    command, rest = " ".join(argv[:words]), argv[words:]
    if command not in COMMANDS:
        asked_for_help = argv[:1] in (["-h"], ["--help"])
        known = [name for name in COMMANDS if name.startswith(f"{command} ")]
        if argv and not asked_for_help and not known:
            print(f"unknown command {command!r}{nearest(command, list(COMMANDS))}", file=sys.stderr)
        print(_usage(known or list(COMMANDS)), file=sys.stdout if asked_for_help else sys.stderr)
        if not asked_for_help:
            sys.exit(2)
        return
    short = Path(__file__).parent / "help" / f"{command}.txt"  # by tests.help_texts, without torch
    if not {"-h", "--help"}.isdisjoint(rest) and rest[1:] != ["all"] and short.exists():
        print(short.read_text(encoding="utf-8"), end="")
        return
    try:
        with stoppable():
            if command in _OF_THE_CORE:
                _log_to_stderr()
                _show(_run_core(command, rest))
            else:
                need(command if command in EXTRAS else "train")
                configure_logging()
                _show(_run(command, rest))
    except Stopped as stopped:
        print(f"htaf-snn {command}: {stopped}", file=sys.stderr)
        sys.exit(stopped.code)
    except Exception as error:
        if os.environ.get("HTAF_SNN_TRACEBACK"):
            raise
        text = str(error)
        if not isinstance(error, ValueError | OSError | ImportError | RuntimeError):
            text = (
                f"a fault of htaf-snn, {type(error).__name__}: {text}; HTAF_SNN_TRACEBACK=1 shows "
                "where: please report it"
            )
        print(f"htaf-snn {command}: {text}", file=sys.stderr)
        sys.exit(1)


def _run(command: str, args: Sequence[str]) -> Any:
    from jsonargparse import auto_cli, set_parsing_settings

    set_parsing_settings(add_print_completion_argument=True)
    if args[1:] == ["all"] and args[0] in ("-h", "--help"):
        args = args[:1]
    function = _function(command)

    @functools.wraps(function)
    def checked(**options: Any) -> Any:  # their types anew: jsonargparse lets a file's null pass
        return function(**arguments_of(function, options, "option"))

    return auto_cli(
        checked,
        args=_name_shorthand(args),
        parser_class=_parser_class(),
        prog=f"htaf-snn {command}",
        allow_abbrev=False,
    )


def _run_core(command: str, args: Sequence[str]) -> Any:
    parser = argparse.ArgumentParser(
        f"htaf-snn {command}", description=COMMANDS[command][1], allow_abbrev=False
    )
    function = _function(command)
    for name in inspect.signature(function).parameters:
        parser.add_argument(
            f"--{name}", nargs="?", const="true", default="false", choices=("true", "false")
        )
    options = vars(parser.parse_args(args))
    return function(**{name: value == "true" for name, value in options.items()})


def _show(result: Any) -> None:
    """Prints what a command found, a line each as they come; what has an ``error`` is a failure."""
    bad = []
    for found in result if isinstance(result, Iterator) else [result]:
        if error := getattr(found, "error", ""):
            bad.append(error)
        elif str(found):
            print(found, flush=True)
    if bad:
        raise ValueError("\n  ".join([f"{len(bad)} recordings have no label:", *bad]))


def _usage(commands: Sequence[str]) -> str:
    lines = ["usage: htaf-snn COMMAND [options]", "", "commands:"]
    lines += [f"  {name:12} {COMMANDS[name][1]}" for name in commands]
    lines += ["", "htaf-snn COMMAND --help shows a command's options."]
    return "\n".join(lines)


def _name_shorthand(args: Sequence[str]) -> list[str]:
    """Lets ``--data nmnist`` stand for ``--data.name nmnist``."""
    return [re.sub("^--data(?==|$)", "--data.name", arg) for arg in args]


class _ToStderr(logging._StderrHandler):  # type: ignore[name-defined]
    """Writes to what is standard error now, as logging's last resort does, between tqdm's bars."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm = sys.modules.get("tqdm")  # whose bars would be torn by a line
        with tqdm.tqdm.external_write_mode(sys.stderr) if tqdm else contextlib.nullcontext():
            super().emit(record)


def _log_to_stderr() -> None:
    logger = logging.getLogger("htaf_snn")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _ToStderr) for handler in logger.handlers):
        logger.addHandler(_ToStderr())


def configure_logging() -> None:
    """Says on standard error what the library does, and keeps Lightning's notices off it."""
    import lightning  # noqa: F401  # it sets its own log levels, which are ours to choose here

    _log_to_stderr()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Notices for Lightning's own developers, and advice that is wrong for small data on few cores.
    warnings.filterwarnings("ignore", module="lightning", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
