"""Queries torch's private state (compiling, tracing, dispatch modes): the one file that does.

`tests/neurons/test_own_neuron.py` fails, naming it, where a new torch answers otherwise.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import _python_dispatch

no_dispatch_modes = _python_dispatch._disable_current_modes  # a context without any

dispatch_modes = torch._C._len_torch_dispatch_stack
transform = torch._C._functorch.peek_interpreter_stack
is_jit_tracing = torch._C._is_tracing


def listens() -> bool:
    """Returns True if a mode, a transform or a tracer sees each operation, or may."""
    return (
        bool(dispatch_modes() or transform() is not None or is_jit_tracing())
        or forward_ad._current_level >= 0
    )


def skips_dispatcher(x: Tensor) -> bool:
    """Returns True if the dispatcher can be skipped for ``x``."""
    return type(x) in (Tensor, torch.nn.Parameter) and not dispatch_modes() and transform() is None


def is_view(x: object, base: Tensor) -> bool:
    """Returns True if ``x`` is a view of all of ``base``."""
    return type(x) is Tensor and x.data_ptr() == base.data_ptr() and x.numel() == base.numel()


def decomposition(of: Any) -> Callable[..., Any] | None:
    """An operation in terms of simpler ones, where torch has it so."""
    from torch._decomp import decomposition_table  # costs 0.2 s, and few steps need it

    return decomposition_table.get(of)


def constant_result(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compiler.assume_constant_result`, which imports the whole compiler: 1 s."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def obstacle(x: Tensor, named: bool = False) -> str | None:
    """Returns the reason in torch's state why no kernel may run on ``x`` now, or None.

    `torch.compile`, `torch.export` and `make_fx` take the operator, and are no obstacle; nor is a
    mode that only looks on, such as SpikingJelly's counters, where the backend was named.
    """
    if torch.compiler.is_compiling():
        return "ONNX is exported" if torch.onnx.is_in_onnx_export() else None
    if is_jit_tracing():
        return "torch.jit traces"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    if skips_dispatcher(x):
        return None
    if transform() is not None:
        return "a transform of torch.func is active"
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    is_functional = torch._is_functional_tensor(x) or type(x).__name__ == "FunctionalTensor"
    if get_proxy_mode() is not None and not is_functional:
        return None
    if type(x) not in (Tensor, torch.nn.Parameter):
        return f"the input is a {type(x).__name__}"
    if named:
        return None
    mode = _python_dispatch._get_current_dispatch_mode()
    return f"{type(mode).__name__} is active, which sees no operation inside a kernel"
