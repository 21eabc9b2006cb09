"""The fused neuron as torch operators: `htaf_snn::neuron` and its gradient.

Registered with fake and autograd implementations, so `torch.compile`, activation checkpointing and
DDP treat it as any operator. For the backward pass it keeps its inputs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import cpu, cuda, modes
from .call import Call, dense, like, make_call, parameter_gradients
from .program import decode

_library = torch.library.Library("htaf_snn", "DEF")
_library.define(
    "neuron(Tensor[] x, Tensor[] states, Tensor[] parameters, float[] numbers, str program, "
    "bool sequences) -> Tensor[]"
)
_library.define(
    "neuron_backward(Tensor?[] grads, Tensor[] x, Tensor[] states, Tensor[] parameters, "
    "float[] numbers, str program) -> Tensor[]"
)

# Where a device's kernels are: modules with a `forward` and a `backward` of a `Call`.
KERNELS: dict[str, Any] = {"cpu": cpu, "cuda": cuda}


def _neuron(x: Sequence[Tensor], *arguments: Any) -> list[Tensor]:
    *description, sequences = arguments
    outputs: list[Tensor] = KERNELS[x[0].device.type].forward(make_call(x, *description), sequences)
    return outputs


def _neuron_backward(
    grads: Sequence[Tensor | None],
    x: Sequence[Tensor],
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    *settings: Any,
) -> list[Tensor]:
    call = make_call(x, states, parameters, *settings)
    outputs, last, after = _by_kind(grads, call)
    found, sums = KERNELS[x[0].device.type].backward(call, outputs, last, after)
    return [*found, *parameter_gradients(call, parameters, sums)]


def _by_kind(
    grads: Sequence[Tensor | None], call: Call
) -> tuple[list[Tensor], list[Tensor | None], list[Tensor | None]]:
    """The gradients of the outputs, last states and sequences of states, in the call's layout."""
    x, outputs, states = call.x[0], call.program.outputs, call.program.states
    first = [torch.zeros_like(x) if g is None else like(g, x) for g in grads[:outputs]]
    last = [None if g is None else like(g, x[0]) for g in grads[outputs : outputs + states]]
    after = [None if g is None else like(g, x) for g in grads[outputs + states :]]
    return first, last, after or [None] * states


def _fake_neuron(
    x: Sequence[Tensor], states: Sequence[Tensor], _p: Any, _n: Any, program: str, sequences: bool
) -> list[Tensor]:
    first = dense(x[0])
    made = [torch.empty_like(first) for _ in range(decode(program).outputs)]
    made += [torch.empty_like(first[0], dtype=s.dtype) for s in states]
    return made + ([torch.empty_like(first, dtype=s.dtype) for s in states] if sequences else [])


def _fake_neuron_backward(
    _g: Any, x: Sequence[Tensor], states: Sequence[Tensor], parameters: Sequence[Tensor], _n: Any,
    program: str,
) -> list[Tensor]:  # fmt: skip
    first = dense(x[0])
    made = [torch.empty_like(first, dtype=t.dtype) for t in x]
    made += [torch.empty_like(first[0], dtype=s.dtype) for s in states]
    return made + [torch.empty_like(parameters[k]) for k in decode(program).learned]


# torch.library.register_autograd would do, but its bookkeeping costs more than a small layer.
class _Neuron(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        counts: tuple[int, int],
        numbers: Sequence[float],
        program: str,
        sequences: bool,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*tensors)
        ctx.settings = (counts, numbers, program)
        ctx.set_materialize_grads(False)
        return tuple(run(*split(counts, tensors), numbers, program, sequences))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        counts, numbers, program = ctx.settings
        x, states, parameters = split(counts, saved(ctx))
        check_gradients(grads)
        found = run_backward(list(grads), x, states, parameters, numbers, program)
        first = len(x) + len(states)
        own = by_parameter(program, found[first:], len(parameters))
        return None, None, None, None, *found[:first], *own


def saved(ctx: Any) -> tuple[Any, ...]:
    """What a function saved for its backward pass.

    Raises:
        RuntimeError: one of the tensors was changed in place since.
    """
    try:
        return ctx.saved_tensors  # type: ignore[no-any-return]
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        raise RuntimeError(
            "a tensor that a fused neuron reads again in its backward pass, its input or a "
            "parameter, was changed in place after the call; change a copy, x.clone(), or set "
            "backend='torch' on the neuron"
        ) from error


def check_gradients(grads: Sequence[Tensor | None]) -> None:
    """Raises a RuntimeError where they are a batch, which the kernels don't take."""
    if any(g is not None and modes.batched(g) for g in grads):
        raise RuntimeError(
            "a fused neuron's backward pass takes no batch of gradients (vmap, "
            "is_grads_batched, vectorize=True); set backend='torch' on the neurons"
        )


def by_parameter(program: str, found: Sequence[Tensor], count: int) -> list[Tensor | None]:
    """The gradient of each of ``count`` parameters, from those of the learned ones, in order."""
    learned = dict(zip(decode(program).learned, found, strict=True))
    return [learned.get(k) for k in range(count)]


def run(x: Sequence[Tensor], *arguments: Any) -> Sequence[Tensor]:
    """The operator below autograd."""
    found: Sequence[Tensor] = modes.below_autograd("neuron", _neuron, x[0], x, *arguments)
    return found


def run_backward(grads: Sequence[Tensor | None], x: Sequence[Tensor], *arguments: Any) -> Any:
    """The gradient's operator, below autograd unless a second derivative is asked for."""
    if torch.is_grad_enabled():
        return torch.ops.htaf_snn.neuron_backward.default(grads, x, *arguments)
    return modes.below_autograd("neuron_backward", _neuron_backward, x[0], grads, x, *arguments)


def split(
    counts: tuple[int, int], tensors: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    inputs, states = counts
    return (
        list(tensors[:inputs]),
        list(tensors[inputs : inputs + states]),
        list(tensors[inputs + states :]),
    )


class _NeuronBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, arguments: Any, *_tensors: Tensor) -> Any:
        return tuple(
            modes.below_autograd("neuron_backward", _neuron_backward, arguments[1][0], *arguments)
        )

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "htaf_snn's fused neurons are differentiated once; for a second derivative "
            "(create_graph=True) set backend='torch' on the neurons"
        )


def neuron(
    x: Sequence[Tensor],
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    numbers: Sequence[float],
    program: str,
    sequences: bool,
) -> Sequence[Tensor]:
    """`torch.ops.htaf_snn.neuron`, without the dispatcher's cost where nothing listens to it."""
    plain = not torch.compiler.is_compiling() and modes.plain(x[0])
    run: Callable[..., Sequence[Tensor]] = (
        _autograd_neuron if plain else torch.ops.htaf_snn.neuron.default
    )
    return run(x, states, parameters, numbers, program, sequences)


def _autograd_neuron(
    x: Sequence[Tensor], states: Sequence[Tensor], parameters: Sequence[Tensor], *settings: Any
) -> Any:
    tensors = (*x, *states, *parameters)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        tensors = (*x, *trainable(states), *parameters)
        return list(_Neuron.apply((len(x), len(states)), *settings, *tensors))
    return run(x, states, parameters, *settings)


def trainable(states: Sequence[Tensor]) -> list[Tensor]:
    """States that autograd may keep, where some were carried from inference into training."""
    return [s.clone() if s.is_inference() else s for s in states]


def _autograd_neuron_backward(*arguments: Any) -> Any:
    grads, x, states, parameters, *_ = arguments
    tensors = [t for t in (*grads, *x, *states, *parameters) if t is not None]
    return list(_NeuronBackward.apply(arguments, *tensors))


for _device in KERNELS:
    _library.impl("neuron", _neuron, _device.upper())
    _library.impl("neuron_backward", _neuron_backward, _device.upper())
_library.impl("neuron", _autograd_neuron, "Autograd")
_library.impl("neuron_backward", _autograd_neuron_backward, "Autograd")
torch.library.register_fake("htaf_snn::neuron", _fake_neuron, lib=_library)
torch.library.register_fake("htaf_snn::neuron_backward", _fake_neuron_backward, lib=_library)
