"""The fused neuron as torch operators: `htaf_snn::neuron` and its gradient.

Every tensor is contiguous, with the time steps first; the state is float32, or float64 for float64
input. Registered with fake and autograd implementations, so `torch.compile`, activation
checkpointing and DDP treat it as any operator. For the backward pass it keeps its inputs alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import cpu, cuda
from .call import make_call

_library = torch.library.Library("htaf_snn", "DEF")
_library.define(
    "neuron(Tensor x_seq, Tensor v, Tensor? learned_reciprocal_tau, Tensor[] learned, "
    "float[] constants, str layer, int mode, Tensor hardness, int inner, "
    "bool store_v_seq) "
    "-> (Tensor, Tensor, Tensor)"
)
_library.define(
    "neuron_backward(Tensor grad_spike_seq, Tensor? grad_v, Tensor? grad_v_seq, Tensor x_seq, "
    "Tensor v, Tensor? learned_reciprocal_tau, Tensor[] learned, float[] constants, str layer, "
    "int mode, Tensor hardness, int inner) -> (Tensor, Tensor, Tensor, Tensor)"
)


# Where a device's kernels are: modules with a `forward` and a `backward` of a `Call`.
_KERNELS: dict[str, Any] = {"cpu": cpu, "cuda": cuda}


def _neuron(x_seq: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *description, store_v_seq = arguments
    outputs: tuple[Tensor, Tensor, Tensor] = _KERNELS[x_seq.device.type].forward(
        make_call(x_seq, *description), store_v_seq
    )
    return outputs


def _neuron_backward(
    grad_spike_seq: Tensor,
    grad_v: Tensor | None,
    grad_v_seq: Tensor | None,
    x_seq: Tensor,
    *description: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    call = make_call(x_seq, *description)
    grad_x, grad_v0, grad_parameters, grad_r = _KERNELS[x_seq.device.type].backward(
        call,
        grad_spike_seq.contiguous(),
        None if grad_v is None else grad_v.contiguous(),
        None if grad_v_seq is None else grad_v_seq.contiguous(),
    )
    if grad_parameters is None:
        grad_parameters = x_seq.new_empty((0, call.channels), dtype=torch.float64)
    if grad_r is None:
        grad_r = x_seq.new_zeros((), dtype=torch.float64)
    return grad_x, grad_v0, grad_parameters, grad_r


_IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "neuron": _neuron,
    "neuron_backward": _neuron_backward,
}


def _fake_neuron(x_seq: Tensor, v: Tensor, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    store_v_seq = settings[-1]
    v_seq = v.new_empty(x_seq.shape if store_v_seq else (0,))
    return torch.empty_like(x_seq), torch.empty_like(v), v_seq


def _fake_neuron_backward(
    _gs: Any, _gv: Any, _gvs: Any, x_seq: Tensor, v: Tensor, _r: Any, learned: list[Tensor], *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return (
        torch.empty_like(x_seq),
        torch.empty_like(v),
        x_seq.new_empty(
            (len(learned), max((p.numel() for p in learned), default=1)), dtype=torch.float64
        ),
        x_seq.new_empty((), dtype=torch.float64),
    )


# torch.library.register_autograd would do, but its bookkeeping costs more than a small layer.
class _Neuron(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_seq: Tensor,
        v: Tensor,
        learned_reciprocal_tau: Tensor | None,
        constants: list[float],
        layer: str,
        mode: int,
        hardness: Tensor,
        inner: int,
        store_v_seq: bool,
        *learned: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(x_seq, v, learned_reciprocal_tau, hardness, *learned)
        ctx.settings = (constants, layer, mode, inner)
        ctx.set_materialize_grads(False)
        outputs: tuple[Tensor, Tensor, Tensor] = _below_autograd(
            "neuron", x_seq, v, learned_reciprocal_tau, learned, constants, layer, mode, hardness,
            inner, store_v_seq,
        )  # fmt: skip
        return outputs

    @staticmethod
    def backward(
        ctx: Any, grad_spike_seq: Tensor | None, grad_v: Tensor | None, grad_v_seq: Tensor | None
    ) -> Any:
        x_seq, v, reciprocal_tau, hardness, *learned = ctx.saved_tensors
        constants, layer, mode, inner = ctx.settings
        if grad_spike_seq is None:
            grad_spike_seq = torch.zeros_like(x_seq)
        if grad_v_seq is not None and grad_v_seq.numel() == 0:
            grad_v_seq = None
        arguments = (
            grad_spike_seq, grad_v, grad_v_seq, x_seq, v, reciprocal_tau, learned, constants, layer,
            mode, hardness, inner,
        )  # fmt: skip
        if torch.is_grad_enabled():
            gradients = torch.ops.htaf_snn.neuron_backward.default(*arguments)
        else:
            gradients = _below_autograd("neuron_backward", *arguments)
        grad_x, grad_v0, grad_parameters, grad_r = gradients
        grads = [
            (grad if p.ndim else grad.sum()).to(p.dtype).reshape(p.shape)
            for p, grad in zip(learned, grad_parameters, strict=False)
        ]
        grad_r = None if reciprocal_tau is None else grad_r.to(reciprocal_tau.dtype)
        return grad_x, grad_v0, grad_r, None, None, None, None, None, None, *grads


class _NeuronBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, *arguments: Any) -> Any:
        tensors, learned, settings = arguments[:6], arguments[6 : 6 + count], arguments[6 + count :]
        return _below_autograd("neuron_backward", *tensors, learned, *settings)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "htaf_snn's fused neurons are differentiated once; for a second derivative "
            "(create_graph=True) set backend='torch' on the neurons"
        )


def neuron(
    x_seq: Tensor,
    v: Tensor,
    learned_reciprocal_tau: Tensor | None,
    learned: list[Tensor],
    *settings: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """`torch.ops.htaf_snn.neuron`, without the dispatcher's cost where nothing listens to it."""
    arguments = (x_seq, v, learned_reciprocal_tau, learned, *settings)
    listened_to = torch.compiler.is_compiling() or not _plain(x_seq)
    run = torch.ops.htaf_snn.neuron.default if listened_to else _autograd_neuron
    outputs: tuple[Tensor, Tensor, Tensor] = run(*arguments)
    return outputs


def _plain(x_seq: Tensor) -> bool:
    return (
        type(x_seq) in (Tensor, torch.nn.Parameter)
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def _below_autograd(name: str, *arguments: Any) -> Any:
    x_seq = arguments[0]
    if _plain(x_seq):
        return _IMPLEMENTATIONS[name](*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return getattr(torch.ops.htaf_snn, name).default(*arguments)


def _autograd_neuron(
    x_seq: Tensor,
    v: Tensor,
    learned_reciprocal_tau: Tensor | None,
    learned: list[Tensor],
    *settings: Any,
) -> Any:
    tensors = (x_seq, v, learned_reciprocal_tau, *learned)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _Neuron.apply(x_seq, v, learned_reciprocal_tau, *settings, *learned)
    return _below_autograd("neuron", x_seq, v, learned_reciprocal_tau, learned, *settings)


def _autograd_neuron_backward(*arguments: Any) -> Any:
    *tensors, learned, constants, layer, mode, hardness, inner = arguments
    return _NeuronBackward.apply(
        len(learned), *tensors, *learned, constants, layer, mode, hardness, inner
    )


for _device in _KERNELS:
    _library.impl("neuron", _neuron, _device.upper())
    _library.impl("neuron_backward", _neuron_backward, _device.upper())
_library.impl("neuron", _autograd_neuron, "Autograd")
_library.impl("neuron_backward", _autograd_neuron_backward, "Autograd")
torch.library.register_fake("htaf_snn::neuron", _fake_neuron, lib=_library)
torch.library.register_fake("htaf_snn::neuron_backward", _fake_neuron_backward, lib=_library)
