"""Old SpikingJelly code, unchanged, on SpikingJelly 2 and on our neurons.

``import htaf_snn.compat`` before the old code, or ``python -m htaf_snn.compat train.py --args``;
then ``spikingjelly.clock_driven`` and ``spikingjelly.cext.neuron`` (0.0.0.0.12) can be imported,
and ``spikingjelly.activation_based`` takes ``backend=`` (0.0.0.0.14). What has no counterpart
raises a NotImplementedError that names it. Imports `neurons` and `surrogates`.
"""

import importlib
import sys
import types
from typing import Any, NoReturn

import torch
from spikingjelly.activation_based import base, layer

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


# What SpikingJelly 2 has not, or not as both old packages have it; and what 0.0.0.0.12 has besides.
SHARED: dict[str, dict[str, Any]] = {
    "base": {"SingleModule": base.SingleStepModule},
    "functional": {"set_backend": others.set_backend},
    "layer": {"SeqToANNContainer": others.SeqToANNContainer},
    "neuron": ACTIVATION_BASED,
    "surrogate": {
        one.__name__: one
        for one in (
            others.SurrogateFunctionBase, others.MultiArgsSurrogateFunctionBase, others.ATan,
            others.PiecewiseLeakyReLU,
        )
    },
}  # fmt: skip
CLOCK_DRIVEN_ALONE: dict[str, dict[str, Any]] = {
    "layer": {
        "MultiStepDropout": others.MultiStepDropout,
        "MultiStepDropout2d": others.MultiStepDropout2d,
        "MultiStepTemporalWiseAttention": layer.TemporalWiseAttention,
        "MultiStepThresholdDependentBatchNorm1d": layer.ThresholdDependentBatchNorm1d,
        "MultiStepThresholdDependentBatchNorm2d": layer.ThresholdDependentBatchNorm2d,
        "MultiStepThresholdDependentBatchNorm3d": layer.ThresholdDependentBatchNorm3d,
    },
    "neuron": {**CLOCK_DRIVEN, "check_backend": lambda _: None},
}


def _add(path: str, names: dict[str, Any]) -> None:
    module: Any = types.ModuleType(path, "SpikingJelly's old module, by htaf_snn.compat.")
    vars(module).update(names, __path__=[])
    sys.modules[path] = module
    parent, _, child = path.rpartition(".")
    setattr(sys.modules[parent], child, module)


def install() -> None:
    """Makes the old modules and arguments known; the import does, and once is enough."""
    if _OLD in sys.modules:
        return
    spike_function_names()  # of SpikingJelly's own classes, found once
    _add(_OLD, {})
    _add(_EXTENSION, {})
    for name in _MODULES:
        new = importlib.import_module(f"{_NEW}.{name}")
        gone = {old: _gone(old, instead) for old, instead in GONE.get(name, {}).items()}
        vars(new).update(gone | SHARED.get(name, {}))
        public = {key: value for key, value in vars(new).items() if not key.startswith("__")}
        _add(f"{_OLD}.{name}", public | CLOCK_DRIVEN_ALONE.get(name, {}))
    _add(f"{_OLD}.accelerating", {"add": torch.add, "sub": torch.sub, "mul": torch.mul})
    extension = {
        form: others.cext_node(CLOCK_DRIVEN[form])
        for name in ("IFNode", "LIFNode", "ParametricLIFNode")
        for form in (name, f"MultiStep{name}")
    }
    _add(f"{_EXTENSION}.neuron", extension | {"BaseNode": CLOCK_DRIVEN["BaseNode"]})


install()
