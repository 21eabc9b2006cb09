"""Exporting: make it, run it as its readers will, compare, and only then write it."""

import functools
import importlib
import itertools
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ..arguments import in_range, one_of
from ..energy import operations
from ..extras import need
from ..files import explained, write_whole
from ..neurons.host import is_neuron
from ..transfer import firing_hard
from ..transfer.firing import evaluating
from .plain import Runs, recorded, runs_of

Format = Literal["nir", "onnx", "spikingjelly"]
SUFFIX: dict[Format, str] = {"nir": ".nir", "onnx": ".onnx", "spikingjelly": ".py"}
_PACKAGES: dict[Format, tuple[str, ...]] = {
    "nir": ("nir", "nirtorch", "snntorch"),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "spikingjelly": ("torch",),
}


class Agreement(NamedTuple):
    """The agreement of two runs of one network.

    Args:
        samples: how many were run.
        spikes: share of the neurons' outputs, each step's, that are the same.
        neurons: share of neurons, each sample's, whose outputs are the same at all steps.
        labels: samples that get the same label, of the logits' mean over time.
        logit_difference: the largest between these means.
    """

    samples: int
    spikes: float
    neurons: float
    labels: int
    logit_difference: float


@dataclass(frozen=True)
class Exported:
    """A network that was written, and how what was written agrees with it.

    Args:
        files: what was written.
        reader: what ran the exported network.
        agreement: of that run with the network's own.
        synaptic_operations: of the hard network, a sample.
        energy_nj: of its arithmetic, a sample; see `htaf_snn.energy.operations`.
    """

    files: tuple[Path, ...]
    reader: str
    agreement: Agreement
    synaptic_operations: float
    energy_nj: float

    def __str__(self) -> str:
        found = self.agreement
        return (
            f"run by               {self.reader}, {found.samples} samples of the test split\n"
            f"equal spikes         {found.spikes:.8f} of outputs, {found.neurons:.8f} of neurons\n"
            f"equal labels         {found.labels} of {found.samples}\n"
            f"logits differ by     {found.logit_difference:.3g} at most\n"
            f"synaptic operations  {self.synaptic_operations:.4g} a sample\n"
            f"energy               {self.energy_nj:.4g} nJ a sample, arithmetic at 45 nm\n"
            f"wrote                {', '.join(map(str, self.files))}"
        )


def export(
    net: nn.Module,
    batches: Iterable[Any],
    path: str | Path,
    format: Format,
    *,
    step: bool = False,
    least: float = 0.999,
) -> Exported:
    """Writes the network that fires with the exact step for others to read, once it agrees.

    What is exported is run on all batches as its readers will run it, and compared with ``net``,
    which stays as it is, its neurons at rest.

    | format | files | run by |
    |---|---|---|
    | "nir" | a NIR graph of one step | snnTorch's importer |
    | "onnx" | an ONNX model of T steps, or of one with ``step`` | onnxruntime |
    | "spikingjelly" | Python of SpikingJelly's classes; its weights beside it (``.pt``) | itself |

    Args:
        net: from frames [T, N, *] to logits [T, N, classes].
        batches: frames, all of one T, or tuples whose first element they are.
        path: of the file, which is replaced if it is there.
        format: "nir", "onnx" or "spikingjelly".
        step: whether an ONNX model is of one step, with the neurons' states in and out.
        least: share of equal outputs of neurons, and of equal labels, below which nothing is
            written; in [0, 1].

    Raises:
        ImportError: the format's packages are missing.
        ValueError: the format has no words for a part of the network, which the error names with
            what to do; no batch; a network without neurons; or the two agree less than ``least``.
    """
    one_of("format", format, get_args(Format))
    in_range("least", least, 0, 1)
    if step and format != "onnx":
        raise ValueError(f"`step` is for ONNX; what {format} writes has no fixed number of steps")
    need("export", *_PACKAGES[format])
    path = Path(path)
    frames = (batch if isinstance(batch, Tensor) else batch[0] for batch in batches)
    x_seq = next(frames, None)
    if x_seq is None:
        raise ValueError("`batches` is empty; an export is verified on frames")
    with (
        evaluating(net),
        tempfile.TemporaryDirectory() as folder,
        explained(Path(folder), "free space, or name another folder in TMPDIR"),
    ):
        names = _in_order(net, x_seq)
        made = Path(folder) / f"exported{SUFFIX[format]}"
        writer: Any = importlib.import_module(f".to_{format}", __package__)
        reader, runs = writer.write(net, names, x_seq, made, step)
        with firing_hard(net):
            agreement = _compare(itertools.chain([x_seq], frames), runs_of(net, names), runs)
        if min(agreement.spikes, agreement.labels / agreement.samples) < least:
            raise ValueError(
                f"nothing is written: run by {reader}, what was exported agrees on "
                f"{agreement.spikes:.4%} of the neurons' outputs and {agreement.labels} of "
                f"{agreement.samples} labels; `least` (={least:g}) asks for more"
            )
        cost = operations(net, x_seq)
        files = files_of(format, path)
        for source, target in zip(files_of(format, made), files, strict=True):
            write_whole(target, functools.partial(shutil.copyfile, source))
    return Exported(files, reader, agreement, *cost)


def files_of(format: Format, path: Path) -> tuple[Path, ...]:
    """The files of an export to ``path``, in the order in which they are written."""
    # The weights first, without which the text is of no use.
    return (path.with_suffix(".pt"), path) if format == "spikingjelly" else (path,)


def _in_order(net: nn.Module, x_seq: Tensor) -> list[str]:
    """The names of the network's neurons, in the order in which they run."""
    neurons = [name for name, module in net.named_modules() if is_neuron(module)]
    with torch.no_grad():
        _, outputs = recorded(net, neurons, x_seq[:, :1])
    if not outputs:
        raise ValueError(f"{type(net).__name__} has no neurons; torch's own exporters take it")
    return list(outputs)


def _compare(batches: Iterable[Tensor], one: Runs, other: Runs) -> Agreement:
    """Runs both on every batch, frames [T, N, *]."""
    samples = labels = outputs = equal = neurons = whole = 0
    difference = 0.0
    with torch.no_grad():
        for x_seq in batches:
            (logits, spikes), (others, other_spikes) = one(x_seq), other(x_seq)
            mean, other_mean = logits.mean(0), others.mean(0)
            samples += len(mean)
            labels += int((mean.argmax(-1) == other_mean.argmax(-1)).sum())
            difference = max(difference, float((mean - other_mean).abs().max()))
            for name, seq in spikes.items():
                same = seq == other_spikes[name]
                outputs, equal = outputs + same.numel(), equal + int(same.sum())
                neurons, whole = neurons + same[0].numel(), whole + int(same.all(0).sum())
    return Agreement(samples, equal / outputs, whole / neurons, labels, difference)
