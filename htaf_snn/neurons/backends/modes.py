"""What torch is doing besides computing: the one file that asks torch's private state.

`tests/neurons/test_own_neuron.py` fails, naming it, where a new torch answers otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import _python_dispatch

without = _python_dispatch._disable_current_modes  # a context in which nothing listens


def decomposition(of: Any) -> Callable[..., Any] | None:
    """An operation in terms of simpler ones, where torch has it so."""
    from torch._decomp import decomposition_table  # costs 0.2 s, and few steps need it

    found: Callable[..., Any] | None = decomposition_table.get(of)
    return found


def constant_result(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compiler.assume_constant_result`, which imports the whole compiler: 1 s."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def plain(x: Tensor) -> bool:
    """Whether an operator on ``x`` may go to its implementation without torch's dispatcher."""
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def without_storage(kind: type[Tensor], x: Tensor) -> Tensor:
    """A tensor of class ``kind`` that says of itself what ``x`` does, and holds no numbers."""
    made: Tensor = Tensor._make_wrapper_subclass(
        kind, x.shape, strides=x.stride(), dtype=x.dtype, device=x.device
    )
    return made


def batched(x: Tensor) -> bool:
    """Whether ``x`` stands for a batch of tensors, under torch's vmap."""
    of = torch._C._functorch
    return bool(of.is_functorch_wrapped_tensor(x) or of.is_legacy_batchedtensor(x))


def below_autograd(
    name: str, implementation: Callable[..., Any], x: Tensor, *arguments: Any
) -> Any:
    """An operator of ours without its autograd; at once, where ``x`` is plain."""
    if plain(x):
        return implementation(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return getattr(torch.ops.htaf_snn, name).default(*arguments)


def transforming() -> bool:
    """Whether jit traces, or a transform or forward-mode differentiation is active."""
    return bool(
        torch._C._is_tracing()
        or forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


def obstacle(x: Tensor, named: bool = False) -> str | None:
    """Why no kernel of ours may run on ``x`` now, for what torch is doing; None if one may.

    `torch.compile`, `torch.export` and `make_fx` take the operator, and are no obstacle; nor is a
    mode that only looks on, such as SpikingJelly's counters, where the backend was named.
    """
    if torch.compiler.is_compiling():
        return "ONNX is exported" if torch.onnx.is_in_onnx_export() else None
    if torch._C._is_tracing():
        return "torch.jit traces"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    if plain(x):
        return None
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "a transform of torch.func is active"
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    if get_proxy_mode() is not None and not _is_functional(x):
        return None
    if type(x) not in (Tensor, torch.nn.Parameter):
        return f"the input is a {type(x).__name__}"
    if named:
        return None
    mode = _python_dispatch._get_current_dispatch_mode()
    return f"{type(mode).__name__} is active, which sees no operation inside a kernel"


def _is_functional(x: Tensor) -> bool:
    return torch._is_functional_tensor(x) or type(x).__name__ == "FunctionalTensor"
