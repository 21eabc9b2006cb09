"""The layers that are measured: LIF by us, by SpikingJelly and by snnTorch, and their limits."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from htaf_snn.neurons import Backend, LIFNode, convert
from htaf_snn.surrogates import HTAFSpike
from htaf_snn.surrogates.functional import htaf

FUNCTIONS: dict[str, Callable[[], surrogate.SurrogateFunctionBase]] = {
    "HTAF soft": lambda: HTAFSpike(mode="soft"),
    "HTAF hard": lambda: HTAFSpike(mode="hard"),
    "ATan": surrogate.ATan,
}

_ALPHAS = (HTAFSpike().alpha0, HTAFSpike().alpha1)


@dataclass(frozen=True)
class Layer:
    """A layer of neurons to measure.

    ``function`` names the one of `FUNCTIONS` whose LIF neuron it is; None is another layer.
    """

    name: str
    build: Callable[[], nn.Module]
    dtype: torch.dtype = torch.float32
    function: str | None = None


def ours(function: str, backend: Backend, dtype: torch.dtype = torch.float32) -> Layer:
    """Our LIF neuron."""
    name = f"htaf_snn {backend}, {function}"
    if dtype != torch.float32:
        name += f", {str(dtype).removeprefix('torch.')}"
    return Layer(
        name,
        lambda: LIFNode(surrogate_function=FUNCTIONS[function](), step_mode="m", backend=backend),
        dtype,
        function,
    )


def spikingjelly(function: str) -> Layer:
    """SpikingJelly's own LIF neuron."""
    return Layer(
        f"SpikingJelly, {function}",
        lambda: neuron.LIFNode(surrogate_function=FUNCTIONS[function](), step_mode="m"),
        function=function,
    )


def inductor_lif(function: str) -> Layer:
    """SpikingJelly's equation in a loop over time, compiled by torch's Inductor."""
    return Layer(
        f"Inductor, {function}", lambda: _CompiledLIF(FUNCTIONS[function]()), function=function
    )


_line = itertools.count(1)


class _CompiledLIF(nn.Module):
    def __init__(self, fire: surrogate.SurrogateFunctionBase) -> None:
        super().__init__()

        def run(x_seq: Tensor) -> Tensor:
            v, spikes = torch.zeros_like(x_seq[0]), []
            for x in x_seq:
                h = functional.lif_charge(x, v, 2.0, True, 0.0)
                spikes.append(fire(h - 1.0))
                v = functional.voltage_reset(h, spikes[-1], 1.0, 0.0, False)
            return torch.stack(spikes)

        # Torch counts the compilations of a code object, however many functions share it.
        own = types.FunctionType(
            run.__code__.replace(co_firstlineno=next(_line)),
            globals(),
            "run",
            None,
            run.__closure__,
        )
        self.run = torch.compile(own, dynamic=False, fullgraph=True)

    def forward(self, x_seq: Tensor) -> Tensor:
        spike_seq: Tensor = self.run(x_seq)
        return spike_seq


# Neurons of SpikingJelly's that `convert` fuses, beside LIF, with a smooth HTAF.
ZOO: dict[str, Callable[[surrogate.SurrogateFunctionBase], nn.Module]] = {
    "IF": lambda f: neuron.IFNode(surrogate_function=f),
    "PLIF": lambda f: neuron.ParametricLIFNode(surrogate_function=f),
    "QIF": lambda f: neuron.QIFNode(surrogate_function=f),
    "EIF": lambda f: neuron.EIFNode(surrogate_function=f),
    "Izhikevich": lambda f: neuron.IzhikevichNode(a=0.1, b=0.1, surrogate_function=f),
    "CUBALIF": lambda f: neuron.CUBALIFNode(surrogate_function=f),
    "KLIF": lambda f: neuron.KLIFNode(surrogate_function=f),
    "ComplementaryLIF": lambda f: neuron.ComplementaryLIFNode(surrogate_function=f),
    "RAF": lambda f: neuron.RAFNode(surrogate_function=f),
    "TernaryLIF": lambda f: neuron.TernaryLIFNode(surrogate_function=f),
}


def zoo(name: str, backend: Backend | None) -> nn.Module:
    """A neuron of `ZOO` with soft HTAF: on our backend, or SpikingJelly's own for None."""
    node: Any = ZOO[name](FUNCTIONS["HTAF soft"]())
    node.step_mode = "m"
    return node if backend is None else convert(node, backend)


def flexsn() -> Layer:
    """SpikingJelly's FlexSN, which traces a step into a Triton kernel, running soft HTAF."""
    return Layer("SpikingJelly FlexSN, HTAF soft", _FlexSNLIF, function="HTAF soft")


class _FlexSNLIF(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.node = neuron.FlexSN(_htaf_lif_step, num_states=1, step_mode="m")

    def forward(self, x_seq: Tensor) -> Tensor:
        self.node.reset()
        spike_seq: Tensor = self.node(x_seq)
        return spike_seq


def _htaf_lif_step(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    spike = htaf(h - 1.0, *_ALPHAS)
    return spike, h - spike * h


def limits() -> list[Layer]:
    """Element-wise functions of torch, which have no time loop and keep one tensor."""
    return [Layer("ReLU", nn.ReLU), Layer("sigmoid", nn.Sigmoid)]


def snntorch() -> Layer | None:
    """snnTorch's LIF neuron, or None where it is not installed."""
    if importlib.util.find_spec("snntorch") is None:
        return None
    return Layer("snnTorch, ATan", _SnnTorchLeaky)


class _SnnTorchLeaky(nn.Module):
    """snnTorch's Leaky over time; its equation is near ours, with the reset a step later."""

    def __init__(self) -> None:
        super().__init__()
        snn = importlib.import_module("snntorch")
        atan = importlib.import_module("snntorch.surrogate").atan()
        self.leaky = snn.Leaky(beta=0.5, spike_grad=atan, reset_mechanism="zero")

    def forward(self, x_seq: Tensor) -> Tensor:
        v, spikes = self.leaky.init_leaky(), []
        for x in x_seq:
            spike, v = self.leaky(x, v)
            spikes.append(spike)
        return torch.stack(spikes)


def forward_backward(module: nn.Module, x_seq: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """One pass from a fresh state: the output, and the gradient of ``x_seq``."""
    if isinstance(module, neuron.BaseNode):
        module.reset()
    output = module(x_seq)
    return output, torch.autograd.grad(output, x_seq, grad)[0]


def random_input(steps: int, count: int) -> tuple[Tensor, Tensor]:
    """An input [T, N] that fires now and then, and an output gradient; both exact in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    x_seq = 0.5 + torch.randn(steps, count, generator=generator)
    grad = torch.randn(steps, count, generator=generator)
    return x_seq.bfloat16().float(), grad.bfloat16().float()
