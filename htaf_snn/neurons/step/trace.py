"""Tracing a neuron's step: plain torch in, a `Program` out, or the reason why not."""

from __future__ import annotations

import itertools
import math
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .. import torch_state
from .graph import Graph, Program, Scope
from .operations import OPERATIONS
from .simplify import simplify

# A step in plain torch: inputs, states, parameters -> outputs, next states; tensors of one shape.
Step = Callable[
    [Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]],
    tuple[Sequence[Tensor], Sequence[Tensor]],
]

_SHAPE = (2, 3)  # of the stand-ins; an operation that leaves it is not elementwise


class NotElementwiseError(ValueError):
    """A step can't be fused; the message names the operation and its Python line."""


def trace(
    step: Step, inputs: int, states: int, parameters: str, learned: Sequence[int]
) -> tuple[Program, tuple[float, ...]]:
    """Records ``step`` and its vector-Jacobian product.

    Custom autograd functions are followed through their ``backward``, so that closed forms stay.

    Args:
        step: a pure, elementwise function.
        inputs: how many sequences it reads.
        states: how many states it carries.
        parameters: a letter for each, see `Program`.
        learned: the numbers of the parameters that get a gradient.

    Returns:
        the program, and the values of its arguments.

    Raises:
        NotElementwiseError: it is not elementwise, or depends on values in its control flow.
    """
    recorder = _Recorder()
    leaf = recorder.leaf
    xs = [leaf("x", k) for k in range(inputs)]
    ss = [leaf("state", k) for k in range(states)]
    ps = [leaf("parameter", k, letter == Scope.LAYER) for k, letter in enumerate(parameters)]
    sources = [*xs, *ss, *(ps[k] for k in learned)]
    for source in sources:
        source.requires_grad_()
    with torch.enable_grad(), recorder:
        outputs, next_states = step(xs, ss, ps)
        results = [*outputs, *next_states]
        for result in results:
            if not isinstance(result, Tensor) or recorder.value(result, "its result") is None:
                raise NotElementwiseError(f"its step returns {result!r} among outputs and states")
            if result.shape != _SHAPE and result.numel() != 1:
                raise NotElementwiseError(
                    "its step returns a tensor of another shape than its input"
                )
        incoming = [leaf("grad_output", k) for k in range(len(outputs))]
        incoming += [leaf("grad_state", k) for k in range(states)]
        followed = [(r, g) for r, g in zip(results, incoming, strict=True) if r.requires_grad]
        gradients: Sequence[Tensor | None] = [None] * len(sources)
        if followed:
            gradients = torch.autograd.grad(
                [r for r, _ in followed], sources, [g for _, g in followed], allow_unused=True
            )
        zero = recorder.graph.constant(0.0)
        values = [recorder.real(r) for r in results]
        values += [zero if g is None else recorder.real(g) for g in gradients]
    return simplify(
        Program(inputs, states, parameters, len(outputs), tuple(learned),
                tuple(recorder.graph.ops), tuple(values))
    )  # fmt: skip


class _Recorder(TorchDispatchMode):
    """Writes each operation on the stand-ins into a graph, or refuses it."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = Graph()
        self._values: dict[int, int] = {}
        self._alive: list[Tensor] = []  # so that no two tensors share an id

    def leaf(self, name: str, number: int, uniform: bool = False) -> Tensor:
        # Values in (0, 1) that differ, in float64, which no kernel of SpikingJelly's own takes.
        with torch_state.no_dispatch_modes():
            stand_in = (0.3 + torch.arange(6.0, dtype=torch.float64) / 10).reshape(_SHAPE)
        self._know(stand_in, self.graph.leaf(name, number, uniform))
        return stand_in

    def _know(self, tensor: Tensor, value: int) -> None:
        self._alive.append(tensor)
        self._values[id(tensor)] = value

    def value(self, thing: object, what: str) -> int | None:
        """The value of a tensor or number; None if it is neither."""
        if isinstance(thing, bool | int | float):
            return self.graph.constant(float(thing))
        if not isinstance(thing, Tensor):
            return None
        if id(thing) in self._values:
            return self._values[id(thing)]
        if thing.requires_grad:
            raise NotElementwiseError(
                f"{what} reads a learned tensor that is no attribute{_line()}"
            )
        return self._literal(thing, what)

    def _literal(self, tensor: Tensor, what: str) -> int:
        with torch_state.no_dispatch_modes():
            numbers = tensor.detach().double().flatten()
            same = numbers.isnan().all() or (numbers == numbers[:1]).all()
            if not len(numbers) or not same:
                raise NotElementwiseError(f"{what} reads a tensor from outside the step{_line()}")
            return self.graph.constant(float(numbers[0]))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        in_place = func._schema.is_mutable
        base = name.removesuffix("_") if in_place else name
        values = [self.value(a, name) for a in _flat(args)]
        if in_place and (self._is_leaf(args[0]) or self._is_shared(args[0])):
            raise NotElementwiseError(f"{name} changes in place what others read{_line()}")
        if base in ("index", "index_put", "_index_put_impl") and _by_mask(args[0], args[1]):
            return self._masked(base, in_place, *args, **kwargs)
        if base not in _HANDLERS:
            decomposed = torch_state.decomposition(func)
            if decomposed is None or in_place:
                raise NotElementwiseError(f"{name} is not elementwise, or not known{_line()}")
            with self:
                return decomposed(*args, **kwargs)
        made = func(*args, **kwargs)
        output = made[0] if isinstance(made, list | tuple) and len(made) == 1 else made
        if not isinstance(output, Tensor):
            raise NotElementwiseError(f"{name} takes a value out of a tensor{_line()}")
        if base in _CREATED or all(self._is_literal(v) for v in values if v is not None):
            value = self._literal(output, name) if base != "empty_like" else self.graph.constant(0)
        else:
            if output.numel() != math.prod(_SHAPE):
                raise NotElementwiseError(f"{name} changes the shape{_line()}")
            value = _HANDLERS[base](self, *args, **kwargs)
        self._know(output, value)
        return made

    def _masked(
        self, name: str, in_place: bool, x: Tensor, masks: Any, values: Any = None,
        accumulate: bool = False, *_: Any,
    ) -> Tensor:  # fmt: skip
        """``x[mask]``, which stays whole until it is written back, where the mask counts."""
        if name == "index":
            output = x.clone()
            self._know(output, self.of(x))
            return output
        new = self.make("add", x, values) if accumulate else self.of(values)
        value = _where(self, masks[0], _Made(new), x)
        output = x if in_place else x.clone()
        self._know(output, value)
        return output

    def _is_leaf(self, thing: object) -> bool:
        value = self._values.get(id(thing))
        return value is not None and self.graph.ops[value].name in (
            "x", "state", "parameter", "grad_output", "grad_state",
        )  # fmt: skip

    def _is_shared(self, thing: object) -> bool:
        """Returns True if another tensor of the step lies in the memory of ``thing``."""
        return isinstance(thing, Tensor) and any(
            other is not thing
            and other.data_ptr() == thing.data_ptr()
            and not self._is_literal(self._values[id(other)])  # torch's own copy of what it filled
            for other in self._alive
        )

    def _is_literal(self, value: int) -> bool:
        return self.graph.ops[value].name == "constant"

    # What the handlers build with.

    def of(self, thing: Any) -> int:
        if type(thing) is _Made:
            return int(thing)
        value = self.value(thing, "an operation")
        assert value is not None
        return value

    def real(self, thing: Any) -> int:
        """Returns it as a number."""
        value = self.of(thing)
        return self.graph.add("real", value) if self.graph.is_truth(value) else int(value)

    def truth(self, thing: Any) -> int:
        """Returns it as true or false."""
        value = self.of(thing)
        if self.graph.is_truth(value):
            return int(value)
        return self.graph.add("ne", int(value), self.graph.constant(0.0))

    def make(self, name: str, *args: Any) -> _Made:
        convert = self.truth if name in ("and", "or", "xor", "not") else self.real
        return _Made(self.graph.add(name, *map(convert, args)))


class _Made(int):
    """A value that a handler made, told from a Python number."""


def _by_mask(x: Tensor, indices: Any) -> bool:
    mask = indices[0] if len(indices) == 1 else None
    return isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == x.shape


def _flat(args: Sequence[Any]) -> list[Any]:
    return list(
        itertools.chain.from_iterable(a if isinstance(a, list | tuple) else [a] for a in args)
    )


def _line() -> str:
    """Returns the innermost line of Python that is not torch's or ours."""
    ours = {str(Path(__file__).parent), str(Path(torch.__file__).parent)}
    for frame in reversed(traceback.extract_stack()):
        if not any(frame.filename.startswith(folder) for folder in ours):
            return f" in {Path(frame.filename).name}:{frame.lineno}: {frame.line}"
    return ""


# Handlers: aten's arguments -> the value. What torch computes of them is checked elsewhere.


def _plain(name: str) -> Any:
    def handler(r: _Recorder, *args: Any, **options: Any) -> int:
        if options:
            raise NotElementwiseError(f"{name} with {', '.join(options)}{_line()}")
        return r.make(name, *args)

    return handler


def _same(r: _Recorder, x: Any, *_: Any, **__: Any) -> int:
    return r.of(x[0] if isinstance(x, list | tuple) else x)


def _cast(r: _Recorder, x: Tensor, *args: Any, dtype: torch.dtype | None = None, **_: Any) -> int:
    dtype = next((a for a in args if isinstance(a, torch.dtype)), dtype)
    if dtype is not None and not dtype.is_floating_point:
        if dtype == torch.bool:
            return r.truth(x)
        if not r.graph.is_truth(r.of(x)):
            raise NotElementwiseError(f"a conversion to {dtype}{_line()}")
    return r.real(x)


def _scaled(name: str) -> Any:
    def handler(r: _Recorder, x: Any, y: Any, *scale: Any, alpha: float = 1, **_: Any) -> int:
        (alpha,) = scale or (alpha,)
        return r.make(name, x, y if alpha == 1 else r.make("mul", y, alpha))

    return handler


def _divide(r: _Recorder, x: Any, y: Any, rounding_mode: str | None = None) -> int:
    quotient = r.make("div", x, y)
    return quotient if rounding_mode is None else r.make(rounding_mode, quotient)


def _power(r: _Recorder, x: Any, y: Any) -> int:
    exponent = float(y) if isinstance(y, int | float) else None
    if exponent == 2:
        return r.make("mul", x, x)
    if exponent == 3:
        return r.make("mul", r.make("mul", x, x), x)
    if exponent == 1:
        return r.real(x)
    if exponent == 0.5:
        return r.make("sqrt", x)
    if exponent == -1:
        return r.make("reciprocal", x)
    return r.make("pow", x, y)


def _clamp(r: _Recorder, x: Any, low: Any = None, high: Any = None, **_: Any) -> int:
    value = r.real(x)
    if low is not None:
        value = r.make("maximum", _Made(value), low)
    if high is not None:
        value = r.make("minimum", _Made(value), high)
    return value


def _where(r: _Recorder, condition: Any, x: Any, y: Any) -> int:
    a, b = (r.of(v) for v in (x, y))
    if r.graph.is_truth(a) and r.graph.is_truth(b):
        chosen = r.make("and", condition, _Made(a))
        return r.make("or", chosen, r.make("and", r.make("not", condition), _Made(b)))
    return _Made(r.graph.add("where", r.truth(condition), r.real(_Made(a)), r.real(_Made(b))))


def _sigmoid_backward(r: _Recorder, grad: Any, s: Any) -> int:
    return r.make("mul", grad, r.make("mul", s, r.make("sub", 1, s)))


def _tanh_backward(r: _Recorder, grad: Any, t: Any) -> int:
    return r.make("mul", grad, r.make("sub", 1, r.make("mul", t, t)))


def _copy(r: _Recorder, _: Any, source: Any, *__: Any, **___: Any) -> int:
    return r.real(source)


_CREATED = ("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones",
            "new_full", "zeros", "ones", "full", "scalar_tensor")  # fmt: skip
_KEPT = ("detach", "alias", "clone", "view", "_unsafe_view", "reshape", "unsqueeze", "squeeze",
         "select", "expand", "stack", "cat", "contiguous", "lift_fresh", "lift_fresh_copy",
         "positive", "slice", "unbind", "select_backward", "slice_backward")  # fmt: skip
_HANDLERS: dict[str, Any] = {
    **{name: _plain(name) for name in OPERATIONS if name not in ("and", "or", "xor", "not")},
    **{f"logical_{name}": _plain(name) for name in ("and", "or", "xor", "not")},
    **{f"bitwise_{name}": _plain(name) for name in ("and", "or", "xor", "not")},
    **dict.fromkeys((*_KEPT, *_CREATED), _same),
    "add": _scaled("add"),
    "sub": _scaled("sub"),
    "rsub": lambda r, x, y, *scale, **alpha: _scaled("sub")(r, y, x, *scale, **alpha),
    "div": _divide,
    "pow": _power,
    "square": lambda r, x: r.make("mul", x, x),
    "rsqrt": lambda r, x: r.make("reciprocal", r.make("sqrt", x)),
    "expm1": _plain("exp_m1"),
    "sgn": _plain("sign"),
    "relu": lambda r, x: r.make("maximum", x, 0),
    "threshold_backward": lambda r, grad, x, at: _where(r, r.make("le", x, at), 0, grad),
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": lambda r, x, high: _clamp(r, x, None, high),
    "where": _where,
    "masked_fill": lambda r, x, mask, value: _where(r, mask, value, x),
    "isnan": lambda r, x: r.make("ne", x, x),
    "sigmoid_backward": _sigmoid_backward,
    "tanh_backward": _tanh_backward,
    "_to_copy": _cast,
    "to": _cast,
    "copy": _copy,
    "fill": _copy,
    "zero": lambda r, _: r.of(0),
}
