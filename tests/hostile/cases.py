"""Generators of bad input: a case is a kind, a number that seeds it, and changes of a good one."""

from __future__ import annotations

import functools
import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest import mock

import lightning as L
import torch

import htaf_snn
from htaf_snn.checkpoint_io import read_checkpoint
from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.training import ModelConfig, SpikingClassifier
from htaf_snn.training.use import _load
from tests.data.files import events
from tests.data.writers import FORMATS
from tests.helpers import command

from . import data_cases
from .outcomes import ACCEPTED, REFUSED, SILENT, TRACEBACK, Change

_GOOD: dict[str, dict[str, Any]] = {
    "data": {"name": "digits", "T": 2, "batch_size": 512},
    "model": {"widths": [4]},
}
_VALUES = (
    "-1", "0", "time", "34x34", "nan", "inf", "1e300", "-1e300", "abc", "", "null", "[]", "{}",
    "{a: 1}", "../..", "$", "#", "9" * 40, "[1,2", "true", "[null]", "htfa",
    "{tau: {class_path: subprocess.Popen}}",
    "[0,0,0]", "'", "é\u202e", "1:2:3", "@", "*a", "&a [*a]", "!!python/object:os.system",
)  # fmt: skip
# Refused, whatever stands beside them.
_BAD = (
    ("model.neuron_options", "{a: 1}"), ("model.width", "1e300"), ("model.spike", "../.."),
    ("model.neuron_options", "{v_treshold: 0.5}"), ("trainer.enable_checkpointing", "false"),
    ("trainer.strategy", "ddp_spawn"), ("trainer.devices", "0"), ("trainer.profiler", "abc"),
    ("trainer.max_time", "-1"), ("checkpoint.mode", "abc"), ("trainer.max_epochs", "0"),
    ("trainer.accumulate_grad_batches", "-1"), ("model.learning_rate", "1e300"),
    ("trainer.gradient_clip_val", "-1"), ("checkpoint.monitor", "nonsense"), ("data.root", "/"),
    ("model.neuron_options", "{tau: {class_path: subprocess.Popen}}"), ("data.T", "0"),
    ("data.camera", "dvs"), ("data.sensor_size", "34"), ("data.split", "time"),
    ("data.validation", "-0.1"), ("model.hardening", "[0.8,0.2]"), ("seed", "-1"), ("ema", "1"),
    ("patience", "0"),
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Args:
        draw: changes, from random numbers.
        run: what comes of the good input with those changes, and what was said.
        share: of all cases.
    """

    draw: Callable[[random.Random], list[Change]]
    run: Callable[[list[Change]], tuple[str, str]]
    share: float


def _ran(*arguments: str | Path) -> tuple[str, str]:
    """A command, which does not get further than the start of a training."""
    begun = mock.Mock(side_effect=_BegunError("begun"))
    with (
        mock.patch.object(L.Trainer, "fit", begun),
        mock.patch("htaf_snn.comparison.compare.check_writable", begun),
        tempfile.TemporaryDirectory() as folder,
    ):
        out = Path(folder, "out")
        done = command(*arguments, "--out", out, check=False)
        left = out.exists()
    if begun.called or not done.returncode:
        return ACCEPTED, ""
    said = done.stderr.strip()
    clear = said and len(said.splitlines()) < 150 and "Traceback" not in said
    if not clear or "fault of htaf-snn" in said or left:
        return TRACEBACK, said[-500:] + (" (left a folder)" if left else "")
    return REFUSED, said.splitlines()[-1]


class _BegunError(ValueError):
    pass


@functools.cache
def _options() -> list[str]:
    names = [f"model.{field.name}" for field in fields(ModelConfig)]
    names += [f"data.{field.name}" for field in fields(DataConfig)]
    names += [f"trainer.{n}" for n in L.Trainer.__init__.__annotations__]
    unreachable = {"trainer.return", "data.download"}
    return sorted({*names, "seed", "ema", "patience", "save_steps", "ckpt_path", "checkpoint.mode",
                   "checkpoint.monitor", "checkpoint.filename"} - unreachable)  # fmt: skip


def _draw_options(draw: random.Random) -> list[Change]:
    some = [
        (draw.choice(_options()), draw.choice(_VALUES)) for _ in range(draw.choice((1, 1, 1, 2, 3)))
    ]
    return [*some, draw.choice(_BAD)] if draw.random() < 0.3 else some


def _judged(outcome: tuple[str, str], changes: list[Change]) -> tuple[str, str]:
    if outcome[0] == ACCEPTED and any(change in _BAD for change in changes):
        last: dict[str, str] = dict(changes)  # a later value of the same option stands
        if any(last[name] == value for name, value in _BAD if name in last):
            return SILENT, "accepted"
    return outcome


def _run_command(changes: list[Change]) -> tuple[str, str]:
    good = ["--data=digits", "--data.T=2", "--data.batch_size=512", "--model.widths=[4]"]
    return _judged(_ran("fit", *good, *(f"--{n}={v}" for n, v in changes)), changes)


def _draw_label(draw: random.Random) -> list[Change]:
    # fmt: off
    words = ("htaf", "atan", ":", "=", "@", ",", "alpha0", "0.67", "learning_rate", "hardening",
             "[0,0.8]", "[", "null", "calibrate", "$", "#", ".", "-1", "nan", "mode", "x.y")
    # fmt: on
    return [draw.choice(words) for _ in range(draw.randint(1, 8))]


def _run_label(changes: list[Change]) -> tuple[str, str]:
    good = ("--data=digits", "--data.T=2", "--data.batch_size=512", "--model.widths=[4]")
    return _ran("compare", *good, f"--spikes={''.join(changes)}")


def _run_yaml(changes: list[Change]) -> tuple[str, str]:
    config: dict[str, dict[str, Any]] = {part: dict(values) for part, values in _GOOD.items()}
    lines: list[tuple[str, str, str]] = []
    for name, value in changes:
        part, _, key = name.rpartition(".")
        config.get(part, {}).pop(key, None)
        lines.append((part, key, value))
    text = ""
    for part in {*config, *(part for part, *_ in lines)} - {""}:
        text += f"{part}:\n"
        text += "".join(f"  {k}: {json.dumps(v)}\n" for k, v in config.get(part, {}).items())
        text += "".join(f"  {key}: {value}\n" for p, key, value in lines if p == part)
    text += "".join(f"{key}: {value}\n" for p, key, value in lines if not p)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c.yaml")
        path.write_text(text, encoding="utf-8")
        return _ran("fit", "--config", path)  # a value that YAML reads otherwise may be good


@functools.cache
def _recordings() -> tuple[SpikingDataModule, dict[str, tuple[str, bytes]]]:
    """One recording in every format: its file's suffix and content."""
    written = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (suffix, write) in FORMATS.items():
            path = Path(folder, f"recording{suffix}")
            write(path, events(300))
            written[name] = suffix, path.read_bytes()
    return SpikingDataModule(DataConfig("nmnist", T=2)), written


def _draw_bytes(draw: random.Random) -> list[Change]:
    name = draw.choice(list(FORMATS))
    size = len(_recordings()[1][name][1])
    edits: list[Change] = [name]
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(size) if draw.random() < 0.5 else draw.randrange(min(size, 200))
        edits.append(draw.choice((("flip", at, draw.randrange(8)), ("set", at, draw.randrange(256)),
                                  ("cut", at, 0), ("double", at, 0))))  # fmt: skip
    return edits


def _edited(data: bytes, edits: list[Change]) -> bytes:
    changed = bytearray(data)
    for what, at, value in edits:
        if what == "cut":
            del changed[at:]
        elif what == "double":
            changed[at:at] = changed[at : at + 64]
        elif at < len(changed):
            changed[at] = changed[at] ^ (1 << value) if what == "flip" else value
    return bytes(changed)


def _run_recording(changes: list[Change]) -> tuple[str, str]:
    names = [change for change in changes if isinstance(change, str)] or ["N-MNIST"]
    data, written = _recordings()
    suffix, content = written[names[0]]
    edits = [change for change in changes if not isinstance(change, str)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"recording{suffix}")
        path.write_bytes(_edited(content, edits))
        try:
            frames = data.read_frames(path)
        except (ValueError, OSError) as error:
            named = path.name in str(error)
            return (REFUSED if named else TRACEBACK), f"{type(error).__name__}: {error}"
    good = bool(frames.isfinite().all()) and bool((frames >= 0).all())
    return (ACCEPTED if good else SILENT), ""


@functools.cache
def _checkpoint() -> bytes:
    data = SpikingDataModule(DataConfig("digits", T=2, batch_size=512))
    model = SpikingClassifier((1, 8, 8), 10, ModelConfig(widths=(4,)))
    trainer = L.Trainer(max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu",
                        enable_model_summary=False, enable_progress_bar=False)  # fmt: skip
    trainer.fit(model, data)
    with tempfile.TemporaryDirectory() as folder:
        trainer.save_checkpoint(Path(folder, "c.ckpt"))
        return Path(folder, "c.ckpt").read_bytes()


_SETTINGS: tuple[Any, ...] = (
    -1, 0, 10**30, 1e300, float("nan"), None, True, "", "abc", "os.system", [], {}, [1, 2, 3],
    {"class_path": "subprocess.Popen", "init_args": {"args": "true"}}, [[[[]]]], "../..",
    {"tau": 0.5}, "venv.__main__.X", (1, 2), b"x",
)  # fmt: skip


def _draw_checkpoint(draw: random.Random) -> list[Change]:
    size = len(_checkpoint())
    if draw.random() < 0.5:
        return [
            ("flip", draw.randrange(size), draw.randrange(8)) for _ in range(draw.randint(1, 3))
        ]
    parts = ("hyper_parameters", "datamodule_hyper_parameters", "sharpness_schedule", "state_dict")
    found = []
    for _ in range(draw.randint(1, 2)):
        part = draw.choice(parts)
        keys = sorted(_content()[part])
        found.append((part, draw.choice([*keys, "unknown"]), draw.choice(_SETTINGS)))
    return found


@functools.cache
def _content() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "c.ckpt").write_bytes(_checkpoint())
        return read_checkpoint(Path(folder, "c.ckpt"))


def _run_checkpoint(changes: list[Change]) -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "crafted.ckpt")
        if all(change[0] == "flip" for change in changes):
            path.write_bytes(_edited(_checkpoint(), changes))
        else:
            content = {k: dict(v) if isinstance(v, dict) else v for k, v in _content().items()}
            for part, key, value in changes:
                content[part][key] = value
            torch.save(content, path)
        try:
            model, _ = _load(path, None, None)
        except (ValueError, OSError) as error:
            named = path.name in str(error)
            return (REFUSED if named else TRACEBACK), f"{type(error).__name__}: {error}"
        expected = _content()["state_dict"]
        same = all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())
        return (ACCEPTED if same else SILENT), "" if same else "other weights"


def _draw_tensor(draw: random.Random) -> list[Change]:
    changes: list[Change] = [
        ("shape", tuple(draw.choice((0, 1, 2, 3, 17)) for _ in range(draw.randint(1, 4))))
    ]
    changes += [
        (
            "dtype",
            draw.choice(
                ("float32", "float64", "bfloat16", "float16", "int64", "bool", "complex64")
            ),
        )
    ]
    for _ in range(draw.randint(0, 3)):
        changes.append(draw.choice((
            ("fill", draw.choice(("nan", "inf", "-inf", "1e38"))), ("layout", "expanded"),
            ("layout", "transposed"), ("layout", "sparse"), ("grad", True), ("mode", "hard"),
            ("step_mode", "s"), ("neuron", draw.choice(("if", "lif", "plif"))),
        )))  # fmt: skip
    return changes


def _run_tensor(changes: list[Change]) -> tuple[str, str]:
    options = dict(changes)
    shape = options.get("shape", (3, 2))
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator) * 2).to(
        getattr(torch, options.get("dtype", "float32"))
    )
    if "fill" in options and x.is_floating_point() and x.numel():
        x.view(-1)[0] = float(options["fill"])
    if options.get("layout") == "expanded":
        x = x.unsqueeze(0).expand(3, *shape)
    elif options.get("layout") == "transposed" and x.ndim > 1:
        x = x.transpose(0, 1)
    elif options.get("layout") == "sparse":
        x = x.to_sparse()
    x.requires_grad_(bool(options.get("grad")) and x.is_floating_point())
    kind = {"if": htaf_snn.IFNode, "plif": htaf_snn.ParametricLIFNode}.get(
        options.get("neuron", ""), htaf_snn.LIFNode
    )
    spike = htaf_snn.HTAFSpike(mode=options.get("mode", "auto"))
    results = []
    for backend in ("auto", "torch"):
        node = kind(
            surrogate_function=spike, step_mode=options.get("step_mode", "m"), backend=backend
        )
        try:
            results.append(node(x).detach().to_dense())
        except (ValueError, TypeError, RuntimeError) as error:
            return REFUSED, f"{type(error).__name__}: {error}"
    fused, reference = results
    if fused.shape != x.shape:
        return SILENT, f"the output's shape is {tuple(fused.shape)}"
    # At the threshold and where a sum overflows, the order of the operations decides.
    tolerance = (
        {"rtol": 0.02, "atol": 0.02}
        if fused.dtype in (torch.bfloat16, torch.float16)
        else {"rtol": 1e-4, "atol": 1e-4}
    )
    differs = ~torch.isclose(fused.double(), reference.double(), equal_nan=True, **tolerance)
    return (
        (SILENT, "differs from the reference")
        if differs.double().sum() > 0.02 * x.numel() + 1
        else (ACCEPTED, "")
    )


KINDS: dict[str, Kind] = {
    "command": Kind(_draw_options, _run_command, 0.05),
    "label": Kind(_draw_label, _run_label, 0.02),
    "yaml": Kind(_draw_options, _run_yaml, 0.05),
    "recording": Kind(_draw_bytes, _run_recording, 0.3),
    "header": Kind(data_cases.draw_header, data_cases.run_header, 0.05),
    "clock": Kind(data_cases.draw_clock, data_cases.run_clock, 0.05),
    "folder": Kind(data_cases.draw_folder, data_cases.run_folder, 0.05),
    "checkpoint": Kind(_draw_checkpoint, _run_checkpoint, 0.1),
    "tensor": Kind(_draw_tensor, _run_tensor, 0.33),
}
