"""The hard network as Python of SpikingJelly's own classes, with its weights beside it."""

import inspect
import math
import re
import runpy
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, fx, nn

from .._version import __version__
from .plain import Runs, flat_name, plain, runs_of

_PACKAGES = {
    "torch.nn": "nn",
    "spikingjelly.activation_based.layer": "layer",
    "spikingjelly.activation_based.neuron": "neuron",
    "spikingjelly.activation_based.surrogate": "surrogate",
}
_TEXT = '''\
"""A spiking network, written by htaf_snn {version}; it needs torch and spikingjelly alone.

    net = load()  # with the weights of the file beside this one, in eval()
    functional.reset_net(net)
    labels = net(x_seq).mean(0).argmax(-1)  # x_seq {shape}
"""

from pathlib import Path

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
{layers}

{forward}

def load(weights=Path(__file__).with_suffix(".pt")):
    net = Net()
    net.load_state_dict(torch.load(weights, weights_only=True))
    functional.reset_net(net)
    return net.eval()
'''


def source(flat: fx.GraphModule, x_seq: Tensor) -> str:
    """A module's text, whose `load` builds the network and reads its weights."""
    layers = [
        f"        self.{name} = {_call(name, module)}" for name, module in flat.named_children()
    ]
    code = flat.graph.python_code("self")
    forward = re.sub(r"; +\w+( = \w+)* = None\b.*$", "", code.src.strip(), flags=re.MULTILINE)
    foreign = [n for n in code.globals if n != "torch" and re.search(rf"\b{n}\b", forward)]
    if foreign:
        raise ValueError(
            f"the network calls {', '.join(foreign)}, which torch does not have; export it to ONNX"
        )
    return _TEXT.format(
        version=__version__,
        shape="[T, N, " + ", ".join(map(str, x_seq.shape[2:])) + "]",
        layers="\n".join(layers),
        forward="\n".join("    " + line if line else line for line in forward.splitlines()),
    )


def _call(name: str, module: Any) -> str:
    where = f"{type(module).__module__}."
    package = next((p for path, p in _PACKAGES.items() if where.startswith(f"{path}.")), None)
    if package is None:
        raise ValueError(f"{name} is a {type(module).__name__}, which is not SpikingJelly's")
    arguments = [
        f"{parameter}={_written(f'{name}.{parameter}', _value(module, parameter))}"
        for parameter in _parameters(type(module))
        if parameter not in ("device", "dtype")
    ]
    return f"{package}.{type(module).__name__}({', '.join(arguments)})"


def _parameters(cls: type) -> list[str]:
    """A constructor's parameters, and its bases' where it passes others on to them."""
    names: dict[str, None] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        kinds = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        passes = [p for p in kinds if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        names |= dict.fromkeys(p.name for p in kinds if p not in passes and p.name != "self")
        if not passes:
            break
    return list(names)


def _value(module: Any, parameter: str) -> Any:
    if parameter == "init_tau" and isinstance(module, neuron.ParametricLIFNode):
        return 1 / module.w.sigmoid().item()
    if not hasattr(module, parameter):
        raise ValueError(
            f"{type(module).__name__} does not keep its argument `{parameter}`; export to ONNX"
        )
    value = getattr(module, parameter)
    return value is not None if parameter == "bias" else value


def _written(name: str, value: Any) -> str:
    if isinstance(value, nn.Module):
        return _call(name, value)
    if isinstance(value, tuple | list):
        return "(" + "".join(f"{_written(name, one)}, " for one in value).rstrip() + ")"
    if type(value) not in (int, float, bool, str, type(None)) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise ValueError(f"{name} is {value!r}, which can't be written down; export it to ONNX")
    return repr(value)


def write(
    net: nn.Module, names: list[str], x_seq: Tensor, path: Path, _step: bool
) -> tuple[str, Runs]:
    """Writes the text and, beside it, the weights; returns the runs of what they make."""
    flat = plain(net)
    torch.save(flat.state_dict(), path.with_suffix(".pt"))
    path.write_text(source(flat, x_seq))
    made: nn.Module = runpy.run_path(str(path))["load"]()
    return "SpikingJelly alone", runs_of(made, names, flat_name)
