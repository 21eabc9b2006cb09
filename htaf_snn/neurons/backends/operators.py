"""The fused neuron as torch operators: `htaf_snn::neuron` and its gradient.

Every tensor is contiguous, with the time steps first; the state is float32, or float64 for float64
input. Registered with fake and autograd implementations, so `torch.compile`, activation
checkpointing and DDP treat it as any operator. For the backward pass it keeps its inputs alone.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...surrogates.expressions import Expression, expression_of_class
from . import cpu, cuda

SOFT, HARD, STEP = 0, 1, 2  # as in kernel.h
IF, LIF, LIF_INPUT_NOT_DECAYED = 0, 1, 2


class Layer(NamedTuple):
    """What a layer is compiled and parametrised by, apart from what may change in training."""

    function: str  # a `class_name`
    charge: int
    reciprocal_tau: float
    v_threshold: float
    v_reset: float | None
    detach_reset: bool

    def encode(self) -> str:
        """The layer as the string that the operators take."""
        return (
            f"{self.function} {self.charge} {self.reciprocal_tau} {self.v_threshold} "
            f"{self.v_reset} {int(self.detach_reset)}"
        )

    @property
    def expression(self) -> Expression:
        return expression_of_class(self.function)

    def coefficients(self, learned_reciprocal_tau: Tensor | None) -> tuple[float, ...]:
        """The fields of kernel.h's ``Neuron``, in their order."""
        r = self.reciprocal_tau
        if learned_reciprocal_tau is not None:
            r = learned_reciprocal_tau.item()
        v_rest = self.v_reset or 0.0
        if self.charge == IF:
            keep, gain, drift = 1.0, 1.0, 0.0
        else:
            keep, gain, drift = 1 - r, r if self.charge == LIF else 1.0, r * v_rest
        pull, push = (0.0, self.v_threshold) if self.v_reset is None else (1.0, -self.v_reset)
        return (
            keep, gain, drift, self.v_threshold, pull, push, float(not self.detach_reset), v_rest,
            float(self.charge == LIF),
        )  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _decode(text: str) -> Layer:
    function, charge, reciprocal_tau, v_threshold, v_reset, detach_reset = text.rsplit(" ", 5)
    return Layer(
        function,
        int(charge),
        float(reciprocal_tau),
        float(v_threshold),
        None if v_reset == "None" else float(v_reset),
        detach_reset == "1",
    )


_library = torch.library.Library("htaf_snn", "DEF")
_library.define(
    "neuron(Tensor x_seq, Tensor v, Tensor? learned_reciprocal_tau, Tensor[] learned, "
    "float[] constants, str layer, int mode, int inner, bool store_v_seq) "
    "-> (Tensor, Tensor, Tensor)"
)
_library.define(
    "neuron_backward(Tensor grad_spike_seq, Tensor? grad_v, Tensor? grad_v_seq, Tensor x_seq, "
    "Tensor v, Tensor? learned_reciprocal_tau, Tensor[] learned, float[] constants, str layer, "
    "int mode, int inner) -> (Tensor, Tensor, Tensor, Tensor)"
)


def _parameters(learned: list[Tensor], constants: list[float], dtype: torch.dtype) -> list[Tensor]:
    if learned:
        return [p.detach().to(dtype).contiguous() for p in learned]
    return [_constant(value, dtype) for value in constants]


@functools.lru_cache(maxsize=256)
def _constant(value: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor(value, dtype=dtype)


@functools.lru_cache(maxsize=256)
def _constant_table(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)[:, None]


def _table(learned: list[Tensor], constants: list[float], v: Tensor) -> Tensor:
    """The parameters as [K, channels], on the device of ``v``."""
    if learned:
        rows = [p.detach().to(v.dtype).expand(_channels(learned)) for p in learned]
        return torch.stack(rows)
    return _constant_table(tuple(constants), v.dtype, v.device)


def _dynamics(layer: Layer) -> tuple[int, float, float, float | None, bool]:
    return (
        layer.charge, layer.reciprocal_tau, layer.v_threshold, layer.v_reset, layer.detach_reset,
    )  # fmt: skip


def _channels(learned: list[Tensor]) -> int:
    return max((p.numel() for p in learned), default=1)


def _cpu_neuron(
    x_seq: Tensor,
    v: Tensor,
    learned_reciprocal_tau: Tensor | None,
    learned: list[Tensor],
    constants: list[float],
    layer: str,
    mode: int,
    inner: int,
    store_v_seq: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    known = _decode(layer)
    return cpu.forward(
        known.expression,
        known.coefficients(learned_reciprocal_tau),
        mode,
        x_seq,
        v,
        _parameters(learned, constants, v.dtype),
        _channels(learned),
        inner,
        store_v_seq,
    )


def _cpu_neuron_backward(
    grad_spike_seq: Tensor,
    grad_v: Tensor | None,
    grad_v_seq: Tensor | None,
    x_seq: Tensor,
    v: Tensor,
    learned_reciprocal_tau: Tensor | None,
    learned: list[Tensor],
    constants: list[float],
    layer: str,
    mode: int,
    inner: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    known = _decode(layer)
    return cpu.backward(
        known.expression,
        known.coefficients(learned_reciprocal_tau),
        mode,
        x_seq,
        v,
        _parameters(learned, constants, v.dtype),
        _channels(learned),
        inner,
        grad_spike_seq.contiguous(),
        None if grad_v is None else grad_v.contiguous(),
        None if grad_v_seq is None else grad_v_seq.contiguous(),
        learned=len(learned),
        learn=bool(learned) or learned_reciprocal_tau is not None,
    )


def _cuda_neuron(
    x_seq: Tensor,
    v: Tensor,
    learned_reciprocal_tau: Tensor | None,
    learned: list[Tensor],
    constants: list[float],
    layer: str,
    mode: int,
    inner: int,
    store_v_seq: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    known = _decode(layer)
    return cuda.forward(
        known.expression,
        _dynamics(known),
        mode,
        x_seq,
        v,
        None if learned_reciprocal_tau is None else learned_reciprocal_tau.to(v.dtype),
        _table(learned, constants, v),
        inner,
        store_v_seq,
    )


def _cuda_neuron_backward(
    grad_spike_seq: Tensor,
    grad_v: Tensor | None,
    grad_v_seq: Tensor | None,
    x_seq: Tensor,
    v: Tensor,
    learned_reciprocal_tau: Tensor | None,
    learned: list[Tensor],
    constants: list[float],
    layer: str,
    mode: int,
    inner: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    known = _decode(layer)
    return cuda.backward(
        known.expression,
        _dynamics(known),
        mode,
        x_seq,
        v,
        None if learned_reciprocal_tau is None else learned_reciprocal_tau.to(v.dtype),
        _table(learned, constants, v),
        inner,
        grad_spike_seq.contiguous(),
        None if grad_v is None else grad_v.contiguous(),
        None if grad_v_seq is None else grad_v_seq.contiguous(),
        learned=len(learned),
    )


def _fake_neuron(
    x_seq: Tensor, v: Tensor, _r: Any, _p: Any, _c: Any, _l: Any, _m: Any, _i: Any, store: bool
) -> tuple[Tensor, Tensor, Tensor]:
    v_seq = v.new_empty(x_seq.shape if store else (0,))
    return torch.empty_like(x_seq), torch.empty_like(v), v_seq


def _fake_neuron_backward(
    _gs: Any, _gv: Any, _gvs: Any, x_seq: Tensor, v: Tensor, _r: Any, learned: list[Tensor], *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return (
        torch.empty_like(x_seq),
        torch.empty_like(v),
        x_seq.new_empty((len(learned), _channels(learned)), dtype=torch.float64),
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
        inner: int,
        store_v_seq: bool,
        *learned: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(x_seq, v, learned_reciprocal_tau, *learned)
        ctx.settings = (constants, layer, mode, inner)
        ctx.set_materialize_grads(False)
        outputs: tuple[Tensor, Tensor, Tensor] = _below_autograd(
            "neuron", x_seq, v, learned_reciprocal_tau, learned, *ctx.settings, store_v_seq
        )
        return outputs

    @staticmethod
    def backward(
        ctx: Any, grad_spike_seq: Tensor | None, grad_v: Tensor | None, grad_v_seq: Tensor | None
    ) -> Any:
        x_seq, v, reciprocal_tau, *learned = ctx.saved_tensors
        if grad_spike_seq is None:
            grad_spike_seq = torch.zeros_like(x_seq)
        if grad_v_seq is not None and grad_v_seq.numel() == 0:
            grad_v_seq = None
        arguments = (
            grad_spike_seq, grad_v, grad_v_seq, x_seq, v, reciprocal_tau, learned, *ctx.settings,
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
        return grad_x, grad_v0, grad_r, None, None, None, None, None, *grads


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
        return _KERNELS[x_seq.device.type][name](*arguments)
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
    *tensors, learned, constants, layer, mode, inner = arguments
    return _NeuronBackward.apply(len(learned), *tensors, *learned, constants, layer, mode, inner)


_KERNELS: dict[str, dict[str, Any]] = {
    "cpu": {"neuron": _cpu_neuron, "neuron_backward": _cpu_neuron_backward},
    "cuda": {"neuron": _cuda_neuron, "neuron_backward": _cuda_neuron_backward},
}
for _device, _functions in _KERNELS.items():
    for _name, _function in _functions.items():
        _library.impl(_name, _function, _device.upper())
_library.impl("neuron", _autograd_neuron, "Autograd")
_library.impl("neuron_backward", _autograd_neuron_backward, "Autograd")
torch.library.register_fake("htaf_snn::neuron", _fake_neuron, lib=_library)
torch.library.register_fake("htaf_snn::neuron_backward", _fake_neuron_backward, lib=_library)
