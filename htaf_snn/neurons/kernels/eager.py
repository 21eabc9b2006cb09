"""One autograd function with one call of a kernel each way, for where nothing listens to torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .buffers import Words
from .layer import Layer

Call = tuple[Layer, Words, bool, bool]  # and its constants, whether at rest, whether sequences


class Neuron(torch.autograd.Function):
    """`Layer.forward`, differentiable once."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*tensors)
        ctx.call = call
        ctx.set_materialize_grads(False)
        layer, head, at_rest, sequences = call
        return layer.forward(tensors, head, at_rest, sequences)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        layer, head, at_rest, _ = ctx.call
        tensors = saved(ctx, grads)
        if torch.is_grad_enabled():
            return None, *once(grads, tensors, lambda g, t: layer.backward(g, t, head, at_rest))
        return None, *layer.backward(grads, tensors, head, at_rest)


_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_is_batched = torch._C._functorch.is_legacy_batchedtensor


def saved(ctx: Any, grads: Sequence[Tensor | None]) -> Any:
    """What a function saved for its backward pass; read once, as checkpoints ask for.

    Raises:
        RuntimeError: one of the tensors was changed in place since, or the gradients are a batch.
    """
    for grad in grads:
        if grad is not None and (_is_wrapped(grad) or _is_batched(grad)):
            raise RuntimeError(
                "a fused neuron's backward pass takes no batch of gradients (vmap, "
                "is_grads_batched, vectorize=True); set backend='torch' on the neurons"
            )
    try:
        return ctx.saved_tensors
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        raise RuntimeError(
            "a tensor that a fused neuron reads again in its backward pass, its input or a "
            "parameter, was changed in place after the call; change a copy, x.clone(), or set "
            "backend='torch' on the neuron"
        ) from error


def once(grads: Sequence[Tensor | None], tensors: Sequence[Tensor], run: Any) -> Any:
    """The gradients that ``run`` finds, whose own gradient is an error that says what to do."""
    found: dict[int, Tensor] = {}

    def all_found(*given: Tensor | None) -> list[Tensor]:
        made = run(given[: len(grads)], given[len(grads) :])
        found.update((k, g) for k, g in enumerate(made) if g is not None)
        return list(found.values())

    made = _Once.apply(all_found, *grads, *tensors)
    places = dict(zip(found, made, strict=True))
    return [places.get(k) for k in range(len(tensors))]


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Any, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        return tuple(run(*tensors))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "htaf_snn's fused neurons are differentiated once; for a second derivative "
            "(create_graph=True) set backend='torch' on the neurons"
        )
