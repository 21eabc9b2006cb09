"""Old SpikingJelly code, unchanged, on SpikingJelly 2 and on our neurons.

``import htaf_snn.compat`` before the old code, or ``python -m htaf_snn.compat train.py --args``;
then ``spikingjelly.clock_driven`` and ``spikingjelly.cext.neuron`` (0.0.0.0.12) can be imported,
and ``spikingjelly.activation_based`` takes ``backend=`` (0.0.0.0.14). What has no counterpart
raises a NotImplementedError that names it.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any, NoReturn

import torch

from ..surrogates.registry import spike_function_names
from . import others
from .nodes import ACTIVATION_BASED, CLOCK_DRIVEN

_NEW, _OLD, _EXTENSION = (
    f"spikingjelly.{name}" for name in ("activation_based", "clock_driven", "cext")
)
_MODULES = ("base", "encoding", "functional", "layer", "monitor", "neuron", "rnn", "surrogate")

# What SpikingJelly 2 does not have, and what to use instead.
GONE: dict[str, dict[str, str]] = {
    "base": {"check_backend_library": "htaf_snn.backends()"},
    "functional": {
        **dict.fromkeys(
            ("fuse_convbn2d", "fused_conv2d_weight_of_convbn2d", "fused_conv2d_bias_of_convbn2d",
             "scale_fused_conv2d_weight_of_convbn2d", "scale_fused_conv2d_bias_of_convbn2d"),
            "torch.nn.utils.fusion.fuse_conv_bn_eval",
        ),
        **dict.fromkeys(
            ("fptt_online_training", "fptt_online_training_init_w_ra"), "functional.detach_net"
        ),
        "set_monitor": "monitor.AttributeMonitor",
        "spike_cluster": "",
    },
    "layer": {
        "AXAT": "", "ChannelsPool": "torch.nn.MaxPool3d", "DCT": "",
        "ConvBatchNorm2d": "torch.nn.Sequential",
        "STDPLearner": "spikingjelly.activation_based.learning.STDPLearner",
    },
    "monitor": {"Monitor": "monitor.OutputMonitor", "unpack_len1_tuple": ""},
    "neuron": {
        "AdaptiveBaseNode": "activation_based.neuron.AdaptBaseNode",
        "GeneralNode": "htaf_snn.Neuron", "MultiStepGeneralNode": "htaf_snn.Neuron",
    },
    "surrogate": {"check_cuda_grad": "htaf_snn.backends()"},
}  # fmt: skip


def _gone(name: str, instead: str) -> type:
    """A class that can be imported, and raises where it is used."""

    def __new__(_cls: type, *_: Any, **__: Any) -> NoReturn:
        remedy = f"; use {instead}" if instead else ""
        raise NotImplementedError(f"{name} has no counterpart in SpikingJelly 2{remedy}")

    return type(name, (), {"__new__": __new__})


def _shared(name: str) -> dict[str, Any]:
    """Returns the names of a module that both old packages have and SpikingJelly 2 has not."""
    new = importlib.import_module(f"{_NEW}.{name}")
    made: dict[str, Any] = {
        gone: _gone(gone, instead) for gone, instead in GONE.get(name, {}).items()
    }
    if name == "functional":
        made["set_backend"] = others.set_backend
    elif name == "base":
        made["SingleModule"] = new.SingleStepModule
    elif name == "layer":
        made["SeqToANNContainer"] = others.SeqToANNContainer
    elif name == "neuron":
        made |= ACTIVATION_BASED
    elif name == "surrogate":
        classes = (others.SurrogateFunctionBase, others.MultiArgsSurrogateFunctionBase,
                   others.ATan, others.PiecewiseLeakyReLU)  # fmt: skip
        made |= {one.__name__: one for one in classes}
    return made


def _clock_driven(name: str) -> dict[str, Any]:
    """Returns the further names of a module of 0.0.0.0.12."""
    new = importlib.import_module(f"{_NEW}.{name}")
    if name == "neuron":
        return {**CLOCK_DRIVEN, "check_backend": lambda _: None}
    if name != "layer":
        return {}
    norms = [f"ThresholdDependentBatchNorm{d}d" for d in (1, 2, 3)]
    same = {f"MultiStep{one}": getattr(new, one) for one in (*norms, "TemporalWiseAttention")}
    return same | {one: getattr(others, one) for one in ("MultiStepDropout", "MultiStepDropout2d")}


def _cext_neuron() -> dict[str, Any]:
    names = ("IFNode", "LIFNode", "ParametricLIFNode")
    return {
        form: others.cext_node(CLOCK_DRIVEN[form])
        for name in names
        for form in (name, f"MultiStep{name}")
    } | {"BaseNode": CLOCK_DRIVEN["BaseNode"]}


def table(names: dict[str, dict[str, list[str]]]) -> str:
    """Returns a Markdown table of what old names become, by module.

    Args:
        names: those of `install`'s two packages, by package and module.
    """
    rows = ["| old module | the same | on our nodes, or as they were | raises; use instead |"]
    rows.append("|---|---|---|---|")
    for package, modules in names.items():
        for name, old in modules.items():
            gone = GONE.get(name, {})
            own = {**_shared(name), **(_clock_driven(name) if package == _OLD else {})}
            kept = [f"`{one}`" for one in old if one not in own]
            ours = [f"`{one}`" for one in old if one in own and one not in gone]
            left = [f"`{one}`" + (f": `{gone[one]}`" if gone[one] else "")
                    for one in old if one in gone]  # fmt: skip
            cells = [f"`{package.rpartition('.')[2]}.{name}`",
                     *(", ".join(cell) for cell in (kept, ours, left))]  # fmt: skip
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


_undo: list[tuple[Any, str, Any]] = []
_ABSENT = object()


def _put(owner: Any, name: str, value: Any) -> None:
    _undo.append((owner, name, vars(owner).get(name, _ABSENT)))
    setattr(owner, name, value)


def _add(path: str, names: dict[str, Any]) -> None:
    module: Any = types.ModuleType(path, "SpikingJelly's old module, by htaf_snn.compat.")
    vars(module).update(names, __path__=[])
    sys.modules[path] = module
    parent, _, child = path.rpartition(".")
    _put(sys.modules[parent], child, module)


def install() -> None:
    """Makes the old modules and arguments known; the import does, and once is enough."""
    if _undo:
        return
    spike_function_names()  # of SpikingJelly's own classes, found once
    importlib.import_module(_NEW)
    _add(_OLD, {})
    _add(_EXTENSION, {})
    for name in _MODULES:
        new, own = importlib.import_module(f"{_NEW}.{name}"), _shared(name)
        for key, value in own.items():
            _put(new, key, value)
        public = {key: value for key, value in vars(new).items() if not key.startswith("__")}
        _add(f"{_OLD}.{name}", {**public, **_clock_driven(name)})
    plain = {"add": torch.add, "sub": torch.sub, "mul": torch.mul}
    _add(f"{_OLD}.accelerating", plain)
    _add(f"{_EXTENSION}.neuron", _cext_neuron())


def uninstall() -> None:
    """Takes back what `install` did; objects made meanwhile stay as they are."""
    while _undo:
        owner, name, value = _undo.pop()
        if value is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, value)
    for path in [p for p in sys.modules if p.startswith((_OLD, _EXTENSION))]:
        del sys.modules[path]


install()
