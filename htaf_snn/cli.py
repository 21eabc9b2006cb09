"""The command line: `htaf-snn COMMAND`, a dict from a command's name to its function."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from ._version import __version__
from .arguments import nearest
from .extras import EXTRAS, need
from .stopping import Stopped, stoppable


def fit(args: Sequence[str]) -> None:
    """train a network, with logs and checkpoints"""
    from .training import fit as module

    module.fit(args)


def test(args: Sequence[str]) -> None:
    """measure a checkpoint on the test split: hard and soft accuracy, gap, firing rates"""
    from jsonargparse import auto_cli

    from .training import use

    metrics = auto_cli(use.test, args=list(args), prog="htaf-snn test")
    print(f"hard accuracy  {metrics['hard_accuracy']:.4f}")
    print(f"soft accuracy  {metrics['soft_accuracy']:.4f}")
    print(f"transfer gap   {metrics['gap_pp']:+.2f} pp")
    print(f"firing rate    {metrics['firing_rate']:.4f}")
    for name, rate in metrics.items():
        if name.startswith("firing_rate/"):
            print(f"  {name.removeprefix('firing_rate/'):14} {rate:.4f}")


def gap(args: Sequence[str]) -> None:
    """show in which layers a checkpoint loses accuracy at the exact step"""
    from jsonargparse import auto_cli

    from .training import use

    found = auto_cli(use.gap, args=list(args), prog="htaf-snn gap")
    width = max([len("layer"), *(len(layer.name) for layer in found.layers)])
    print(
        f"{'layer':{width}}  soft rate  hard rate  difference  uncertain  hard accuracy  gap (pp)"
    )
    print(f"{'none':{width}} {found.soft_accuracy:57.4f}")
    for layer in found.layers:
        print(
            f"{layer.name:{width}}  {layer.soft_rate:9.4f}  {layer.hard_rate:9.4f}"
            f"  {layer.difference:10.4f}  {layer.uncertain:9.4f}  {layer.hard_accuracy:13.4f}"
            f"  {layer.gap_pp:+8.2f}"
        )
    print(f"gap {found.gap_pp:+.2f} pp, most of it born in {found.born_in or 'no layer'}")


def calibrate(args: Sequence[str]) -> None:
    """re-estimate a checkpoint's batch norm with exact spikes"""
    from jsonargparse import auto_cli

    from .training import use

    print(auto_cli(use.calibrate, args=list(args), prog="htaf-snn calibrate"))


def export(args: Sequence[str]) -> None:
    """write a checkpoint's hard network as NIR, ONNX or plain SpikingJelly, verified"""
    from jsonargparse import auto_cli

    from .training import use

    made = auto_cli(use.export, args=list(args), prog="htaf-snn export")
    found = made.agreement
    print(f"run by               {made.reader}, {found.samples} samples of the test split")
    print(f"equal spikes         {found.spikes:.8f} of outputs, {found.neurons:.8f} of neurons")
    print(f"equal labels         {found.labels} of {found.samples}")
    print(f"logits differ by     {found.logit_difference:.3g} at most")
    print(f"synaptic operations  {made.synaptic_operations:.4g} a sample")
    print(f"energy               {made.energy_nj:.4g} nJ a sample, arithmetic at 45 nm")
    print(f"wrote                {', '.join(map(str, made.files))}")


def predict(args: Sequence[str]) -> None:
    """label one event recording, or a folder of them"""
    from jsonargparse import auto_cli

    from .training import use

    bad = []
    for found in auto_cli(use.predict, args=list(args), prog="htaf-snn predict"):
        if found.error:
            bad.append(found.error)
            continue
        at = f"  at {found.start / 1e6:.3f} s" if found.windowed else ""
        print(f"{found.path}{at}  {found.name}  confidence {found.confidence:.4f}")
    if bad:
        raise ValueError("\n  ".join([f"{len(bad)} recordings have no label:", *bad]))


def compare(args: Sequence[str]) -> None:
    """train the same network with several spike functions and compare them"""
    import shlex

    from . import comparison
    from .comparison.compare import options as options_of
    from .comparison.compare import studies as studies_of

    options = options_of(args, compare.__doc__)
    how = {
        "workers": options.workers,
        "ray_address": options.ray_address,
        "command": shlex.join(["htaf-snn", "compare", *args]),
    }
    studies = studies_of(options)
    try:
        comparison.compare(studies, options.out, **how)
        if options.sensitivity:
            grid = [comparison.sensitivity(study) for study in studies]
            comparison.compare(grid, options.out / "sensitivity", **how)
    except Stopped as stopped:
        stopped.advice = f"stopped; the same command goes on, with --out {options.out}"
        raise
    comparison.report(options.out)
    print((options.out / "table.txt").read_text(), end="")
    print(
        f"{options.out}/: report.html, figures/, table.csv, table.tex, results.json, checkpoints/"
    )
    print(f"next: open {options.out / 'report.html'}")


def report(args: Sequence[str]) -> None:
    """draw the report of a comparison anew, from its results.json"""
    from jsonargparse import auto_cli

    from . import comparison

    print(auto_cli(comparison.report, args=list(args), prog="htaf-snn report"))


def data(args: Sequence[str]) -> None:
    """list the data sets, or (data inspect FOLDER) what recordings hold"""
    from jsonargparse import ArgumentParser, auto_cli

    from .data import DATA_SETS

    if args[:1] == ["inspect"]:
        from .data import inspection

        print(auto_cli(inspection.inspect, args=list(args[1:]), prog="htaf-snn data inspect"))
        return

    ArgumentParser(prog="htaf-snn data", description=data.__doc__).parse_args(list(args))
    for entry in DATA_SETS.values():
        shape = "x".join(map(str, entry.shape or ())) or "by file"
        classes = "by folder" if entry.num_classes is None else entry.num_classes
        print(f"{entry.name:14} {shape:9} {classes!s:>9} classes  {entry.kind}: {entry.source}")


def backends(args: Sequence[str]) -> None:
    """list the neurons' backends, available or why not, and the kernel cache"""
    from jsonargparse import ArgumentParser

    from .neurons.backends import compiler, report

    parser = ArgumentParser(prog="htaf-snn backends", description=backends.__doc__)
    parser.add_argument("--clear-cache", action="store_true", help="remove the compiled kernels")
    if parser.parse_args(list(args)).clear_cache:
        print(f"removed {report.clear_cache()} kernels")
    for name, status in report.backends().items():
        print(f"{name:6} {'available' if status.available else 'not available'}: {status.detail}")
    count, size = report.cache_size()
    print(f"cache  {compiler.kernel_folder()}: {count} kernels, {size / 2**20:.1f} MiB")


def neurons(args: Sequence[str]) -> None:
    """list SpikingJelly's neuron classes: fused, or why not"""
    from jsonargparse import ArgumentParser

    from .neurons.zoo import table

    ArgumentParser(prog="htaf-snn neurons", description=neurons.__doc__).parse_args(list(args))
    for row in table():
        counts = f"{row.states} states, {row.learned} learned"
        print(f"{row.name:26} {counts:20} {'fused' if row.reason is None else row.reason}")


def models(args: Sequence[str]) -> None:
    """list the networks: name, parameters, frame sizes in pixels, where they are published"""
    from jsonargparse import ArgumentParser

    from .models import MODELS

    ArgumentParser(prog="htaf-snn models", description=models.__doc__).parse_args(list(args))
    print(f"{'name':34} {'parameters':>10}  {'pixels':9}  source")
    for model in MODELS.values():
        sides = (
            f"from {model.smallest_side}"
            if model.largest_side is None
            else f"{model.smallest_side} to {model.largest_side}"
        )
        print(f"{model.name:34} {model.parameters() / 1e6:8.2f} M  {sides:9}  {model.source}")


def bench(args: Sequence[str]) -> None:
    """measure speed and memory side by side: bench neuron, train, memory or data"""
    from jsonargparse import auto_cli

    from . import bench as benchmarks

    functions: list[Any] = [
        benchmarks.neuron,
        benchmarks.train,
        benchmarks.memory,
        benchmarks.data,
    ]
    print(auto_cli(functions, args=list(args), prog="htaf-snn bench"))


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "fit": fit,
    "test": test,
    "predict": predict,
    "gap": gap,
    "calibrate": calibrate,
    "export": export,
    "compare": compare,
    "report": report,
    "models": models,
    "neurons": neurons,
    "data": data,
    "backends": backends,
    "bench": bench,
}


class _ToStderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what is standard error now, which a caller may have redirected meanwhile."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        pass


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that ``argv`` (``sys.argv`` without the program) names."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["--version"]:
        print(f"htaf-snn {__version__}")
        return
    if not argv or argv[0] not in COMMANDS:
        asked_for_help = argv[:1] in (["-h"], ["--help"])
        if argv and not asked_for_help:
            print(f"unknown command {argv[0]!r}{nearest(argv[0], list(COMMANDS))}", file=sys.stderr)
        print(_usage(), file=sys.stdout if asked_for_help else sys.stderr)
        if not asked_for_help:
            sys.exit(2)
        return
    command, *rest = argv
    try:
        with stoppable():
            need(command if command in EXTRAS else "train")
            configure_logging()
            COMMANDS[command](_name_shorthand(rest))
    except Stopped as stopped:
        print(f"htaf-snn {command}: {stopped}", file=sys.stderr)
        sys.exit(stopped.code)
    except Exception as error:
        if os.environ.get("HTAF_SNN_TRACEBACK"):
            raise
        expected = isinstance(error, ValueError | OSError | ImportError | RuntimeError)
        print(f"htaf-snn {command}: {error if expected else _fault(error)}", file=sys.stderr)
        sys.exit(1)


def _fault(error: Exception) -> str:
    return (
        f"a fault of htaf-snn, {type(error).__name__}: {error}; HTAF_SNN_TRACEBACK=1 shows where: "
        "please report it"
    )


def _usage() -> str:
    lines = ["usage: htaf-snn COMMAND [options]", "", "commands:"]
    lines += [f"  {name:9} {function.__doc__}" for name, function in COMMANDS.items()]
    lines += ["", "htaf-snn COMMAND --help shows a command's options."]
    return "\n".join(lines)


def _name_shorthand(args: Sequence[str]) -> list[str]:
    """Lets ``--data nmnist`` stand for ``--data.name nmnist``."""
    return [
        arg.replace("--data", "--data.name", 1)
        if arg == "--data" or arg.startswith("--data=")
        else arg
        for arg in args
    ]


def configure_logging() -> None:
    """Says on standard error what the library does, and keeps Lightning's notices off it."""
    import lightning  # noqa: F401  # it sets its own log levels, which are ours to choose here

    from .yaml_text import guard_jsonargparse

    guard_jsonargparse()

    logger = logging.getLogger("htaf_snn")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _ToStderr) for handler in logger.handlers):
        logger.addHandler(_ToStderr())
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Notices for Lightning's own developers, and advice that is wrong for small data on few cores.
    warnings.filterwarnings("ignore", module="lightning", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
