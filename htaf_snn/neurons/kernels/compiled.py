"""The fused neuron as torch operators, for torch.compile and all that looks at operations.

`htaf_snn::neuron` and its gradient have fake and autograd implementations. A program travels as
text here, and here alone. For the backward pass the inputs alone are kept.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..step.graph import Program, Scope, decode
from .layer import KERNELS, TWICE, Layer, saved
from .layout import dense

_library = torch.library.Library("htaf_snn", "DEF")
_library.define(
    "neuron(Tensor[] x, Tensor[] states, Tensor[] parameters, float[] constants, str program, "
    "bool sequences) -> Tensor[]"
)
_library.define(
    "neuron_backward(Tensor?[] grads, Tensor[] x, Tensor[] states, Tensor[] parameters, "
    "float[] constants, str program) -> Tensor[]"
)

neuron = torch.ops.htaf_snn.neuron.default
_backward = torch.ops.htaf_snn.neuron_backward.default


class _Call:
    """A `Layer` for one call, with the operator's arguments as it takes them."""

    def __init__(
        self, x: Sequence[Tensor], states: Sequence[Tensor], parameters: Sequence[Tensor],
        constants: Sequence[float], text: str,
    ) -> None:  # fmt: skip
        program = decode(text)
        read: list[Tensor | None] = []  # None: a number of the CPU's, which is packed
        numbers = list(constants)
        for k, (parameter, scope) in enumerate(zip(parameters, program.parameters, strict=True)):
            packed = scope == Scope.LAYER and parameter.device.type == "cpu"
            packed = packed and k not in program.learned
            read.append(None if packed else parameter)
            if scope == Scope.LAYER:
                numbers.append(float(parameter) if packed else 0.0)
        self.layer = _layer(program, x[0], read)
        self.head = self.layer.head(numbers)
        self.tensors = [*x, *states, *(p for p in read if p is not None)]
        self.kept = [k for k, p in enumerate(read) if p is not None]


_layers: dict[Any, Layer] = {}
_MOST_LAYERS = 256


def _layer(program: Program, x: Tensor, read: Sequence[Tensor | None]) -> Layer:
    """The layer for inputs of a kind, made once."""
    kinds = (None if t is None else (t.shape, t.stride(), t.dtype, t.device) for t in (x, *read))
    key = (program, torch.get_num_threads(), *kinds)
    layer = _layers.get(key)
    if layer is None:
        if len(_layers) >= _MOST_LAYERS:
            _layers.clear()
        layer = _layers[key] = Layer(program, x, True, read)
    return layer


def _neuron(x: Sequence[Tensor], *arguments: Any) -> list[Tensor]:
    *description, sequences = arguments
    call = _Call(x, *description)
    return list(call.layer.forward(call.tensors, call.head, False, sequences))


def _neuron_backward(
    grads: Sequence[Tensor | None], x: Sequence[Tensor], states: Sequence[Tensor], *rest: Any
) -> list[Tensor]:
    call = _Call(x, states, *rest)
    found = call.layer.backward(grads, call.tensors, call.head, False)
    first = len(x) + len(states)
    learned = [found[first + call.kept.index(k)] for k in call.layer.program.learned]
    return [*found[:first], *learned]  # type: ignore[list-item]


def _fake_neuron(
    x: Sequence[Tensor], states: Sequence[Tensor], _p: Any, _c: Any, program: str, sequences: bool
) -> list[Tensor]:
    first = dense(x[0])
    made = [torch.empty_like(first) for _ in range(decode(program).outputs)]
    made += [torch.empty_like(first[0], dtype=s.dtype) for s in states]
    return made + ([torch.empty_like(first, dtype=s.dtype) for s in states] if sequences else [])


def _fake_neuron_backward(
    _g: Any, x: Sequence[Tensor], states: Sequence[Tensor], parameters: Sequence[Tensor], _c: Any,
    program: str,
) -> list[Tensor]:  # fmt: skip
    first = dense(x[0])
    made = [torch.empty_like(first, dtype=t.dtype) for t in x]
    made += [torch.empty_like(first[0], dtype=s.dtype) for s in states]
    return made + [torch.empty_like(parameters[k]) for k in decode(program).learned]


def _save(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG001  # torch's names
    x, states, parameters, *ctx.description, _ = inputs
    states = [s.clone() if s.is_inference() else s for s in states]  # which autograd can't keep
    ctx.counts = len(x), len(x) + len(states)
    ctx.save_for_backward(*x, *states, *parameters)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grads: list[Tensor | None]) -> Any:
    (first, second), (constants, program) = ctx.counts, ctx.description
    tensors = saved(ctx, grads)
    groups = [list(tensors[:first]), list(tensors[first:second]), list(tensors[second:])]
    found = _backward(grads, *groups, constants, program)
    learned = dict(zip(decode(program).learned, found[second:], strict=True))
    of_parameters = [learned.get(k) for k in range(len(groups[2]))]
    # torch takes a gradient for each tensor of a list, so that an empty list has an empty one
    of_constants: Any = None if constants else []
    return found[:first], found[first:second], of_parameters, of_constants, None, None


def _refuse(ctx: Any, *grads: Any) -> Any:  # noqa: ARG001  # torch's names
    raise RuntimeError(TWICE)


for _device in KERNELS:
    _library.impl("neuron", _neuron, _device.upper())
    _library.impl("neuron_backward", _neuron_backward, _device.upper())
torch.library.register_fake("htaf_snn::neuron", _fake_neuron, lib=_library)
torch.library.register_fake("htaf_snn::neuron_backward", _fake_neuron_backward, lib=_library)
torch.library.register_autograd("htaf_snn::neuron", _gradients, setup_context=_save, lib=_library)
torch.library.register_autograd("htaf_snn::neuron_backward", _refuse, lib=_library)
