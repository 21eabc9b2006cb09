"""A step fitted to inputs of one shape, and the autograd function with one call of it each way."""

import array
import itertools
import math
import struct
from collections.abc import Callable, Sequence
from operator import is_not
from typing import Any

import torch
from torch import Tensor

from ..step.graph import Program, Scope
from . import cpu, cuda
from .buffers import STRUCTS, Words, arrangement, counts, offsets, scalars
from .layout import channels_last, dense, like, memory_order, varied

# Where a device's kernels are, of a program, an input dtype, a device, and whether with a norm.
KERNELS: dict[str, Callable[[Program, torch.dtype, torch.device, bool], Any]] = {
    "cpu": lambda program, dtype, _, normed: cpu.kernel(program, dtype, normed),
    "cuda": lambda program, dtype, device, _: cuda.kernel(program, dtype, device),
}


class Layer:
    """A step's kernel, and the counts and places that inputs of one shape and layout ask for.

    It holds nothing that changes. The layer's constants come with each call, packed by `head`, and
    `forward` and `backward` take the step's tensors: inputs, first states, and parameters.

    Args:
        program: the step.
        x: an input [T, N, *], or one step [N, *] of it.
        multi: whether ``x`` has the dimension T.
        parameters: of the program, each as it broadcasts to a step [N, *]; None where it is one of
            the numbers that `head` packs, and no tensor of a call.
        rest: the states at rest.
        normed: whether the step's last three parameters are a batch norm's, made by the kernel.

    Attributes:
        rest: the states at rest, as tensors of one number.
        channels, inner: neuron i has the parameters of channel ``(i // inner) % channels``.
        elements: how many elements of the input there are a channel.
        live: the numbers that replays of a captured CUDA graph read; see `keep`.
    """

    def __init__(
        self,
        program: Program,
        x: Tensor,
        multi: bool,
        parameters: Sequence[Tensor | None],
        rest: Sequence[float] = (),
        normed: bool = False,
    ) -> None:
        self.program, self.dtype, self.device = program, x.dtype, x.device
        self.shape, self.stride, self.threads = x.shape, x.stride(), torch.get_num_threads()
        self.state_dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.kernel: Any = KERNELS[x.device.type](program, x.dtype, x.device, normed)
        x_seq = x if multi else x.unsqueeze(0)
        self._copies_x = not (x_seq.is_contiguous() or channels_last(x_seq))
        x_seq = dense(x_seq)
        self._x_stride = (x_seq if multi else x_seq[0]).stride()
        self._step_shape, self._step_stride = x_seq[0].shape, x_seq[0].stride()
        self._step_layout = self._step_shape, self._step_stride
        self._step_kind: dict[str, Any] = {"dtype": self.state_dtype, "device": x.device}
        self.rest = [
            torch.full((), r, dtype=self.state_dtype, device=x.device).expand(self._step_shape)
            for r in rest
        ]
        given = [
            (p, scope)
            for p, scope in zip(parameters, program.parameters, strict=False)
            if p is not None
        ]
        by_channel = [p for p, scope in given if scope == Scope.CHANNEL]
        if normed:
            by_channel.append(torch.empty(x_seq.shape[2], *[1] * (x_seq.ndim - 3)))
        self._order = memory_order(x_seq)
        axes = varied(by_channel, x_seq)
        self._sizes = [x_seq.shape[1 + a] if a in axes else 1 for a in self._order]
        last = self._order.index(axes[-1]) if axes else len(self._order) - 1
        self.channels = math.prod(self._sizes)
        self.inner = math.prod(x_seq.shape[1 + a] for a in self._order[last + 1 :])
        self.elements = x_seq.numel() // max(1, self.channels)
        count = counts(program)["NUMBERS"]
        self._scalars = scalars(program, {
            "T": [x_seq.shape[0]], "N": [math.prod(self._step_shape)], "threads": [self.threads],
            "channels": [self.channels], "inner": [self.inner], "rest": rest,
            "numbers": [0.0] * count,
        }, self.kernel.number)  # fmt: skip
        first = offsets(program, "Forward")["numbers"]
        self._numbers = slice(first, first + count)
        self._packed = struct.Struct("=" + self.kernel.number * count)
        self._shapes = [(p.shape, scope) for p, scope in given]
        self._as_it_is = [self._is_read_in_place(p, scope) for p, scope in given]
        where = {
            k: place for place, k in enumerate(k for k, p in enumerate(parameters) if p is not None)
        }
        self._places = [where.get(k) for k in range(len(parameters))]
        self._learned = [where[k] for k in program.learned if k < len(parameters)]
        self._simple = not self._copies_x and program.inputs == 1 and all(self._as_it_is)
        self._orders: dict[Any, Callable[[Sequence[int]], tuple[int, ...]]] = {}
        self.live: Any = None

    def _is_read_in_place(self, parameter: Tensor, scope: str) -> bool:
        if parameter.dtype != self.state_dtype or parameter.device != self.device:
            return False
        row = self._row(parameter) if scope == Scope.CHANNEL else parameter
        return row.is_contiguous() and row.numel() == parameter.numel()

    def _row(self, parameter: Tensor) -> Tensor:
        """A parameter by channel, in the order of memory."""
        whole = parameter[(None,) * (len(self._order) - parameter.ndim)]
        return whole.permute(self._order).expand(self._sizes)

    def head(self, numbers: Sequence[float]) -> Words:
        """The words of the layer's own numbers, which a pass and its gradient share."""
        words = self._scalars[:]
        words[self._numbers] = Words("q", self._packed.pack(*numbers))
        return words

    def keep(self, head: Words) -> None:
        """Writes the numbers of a call where replays of a captured CUDA graph read them."""
        if self.live is not None:
            self.live.write(head[self._numbers])
        elif isinstance(self.kernel, cuda.CUDAKernel):
            self.live = cuda.Live(head[self._numbers], self.device)

    @property
    def is_captured(self) -> bool:
        """Returns True if a CUDA graph reads its numbers."""
        return self.live is not None and self.live.is_captured

    def takes(self, states: Sequence[Any]) -> bool:
        """Returns True if states are tensors that the kernel can read and write, in any layout."""
        for state in states:
            if type(state) is not Tensor or state.shape != self._step_shape:
                return False
            if state.dtype is not self.state_dtype or state.device != self.device:
                return False
        return True

    def forward(
        self,
        tensors: Sequence[Tensor],
        head: Words,
        at_rest: bool,
        sequences: bool,
        run: Any = None,
    ) -> tuple[Tensor, ...]:
        """The outputs, the last states, and if asked for the states after each step.

        Args:
            tensors: inputs, states and parameters; states at rest are `rest`.
            head: the constants, from `head`.
            at_rest: whether the states are at rest.
            sequences: whether the states after each step are wanted.
            run: what calls the kernel instead of its own ``run``.
        """
        if not (at_rest and self._simple):
            tensors = self._readable(tensors, at_rest)
        x, states, made = tensors[0], self.program.states, []
        for _ in range(self.program.outputs):
            made.append(torch.empty_like(x))
        for _ in range(states):
            made.append(torch.empty_strided(*self._step_layout, **self._step_kind))
        for _ in range(states if sequences else 0):
            made.append(torch.empty_like(x, dtype=self.state_dtype))
        order = self._orders.get((at_rest, sequences))
        if order is None:
            order = self._order_of((at_rest, sequences), "Forward", [True] * len(made))
        addresses = order((0, *map(Tensor.data_ptr, tensors), *map(Tensor.data_ptr, made)))
        words = head + array.array("q", addresses)
        (run or self.kernel.run)("forward", words, (), self.live)
        return tuple(made)

    def backward(
        self,
        grads: Sequence[Tensor | None],
        tensors: Sequence[Tensor],
        head: Words,
        at_rest: bool,
        run: Any = None,
    ) -> list[Tensor | None]:
        """From the gradients of what `forward` gives, those of its tensors.

        States at rest get None, and so do parameters that are not learned.
        """
        raw = tensors
        if not (at_rest and self._simple):
            tensors = self._readable(tensors, at_rest)
        x, inputs, states = tensors[0], self.program.inputs, self.program.states
        first = inputs + states
        taken: list[Tensor | None] = []
        for k, grad in enumerate(grads):
            of_x = not self.program.outputs <= k < self.program.outputs + states
            if grad is None:
                taken.append(torch.zeros_like(x) if k < self.program.outputs else None)
            elif grad.stride() == (self._x_stride if of_x else self._step_stride):
                taken.append(grad)
            else:
                taken.append(like(grad, x) if of_x else self._new_state().copy_(grad))
        made: list[Tensor] = []
        for tensor in tensors[: inputs if at_rest else first]:
            made.append(torch.empty_like(tensor))
        learned = []
        for place in self._learned:
            _, scope = self._shapes[place]
            if self._as_it_is[place]:
                grad = torch.empty_like(raw[first + place])
            else:
                grad = x.new_empty(
                    self.channels if scope == Scope.CHANNEL else 1, dtype=self.state_dtype
                )
            learned.append(grad)
        present = tuple(map(is_not, taken, itertools.repeat(None)))
        key = (at_rest, present)
        order = self._orders.get(key)
        if order is None:
            sequences = [False] * (states if len(taken) < self.program.outputs + 2 * states else 0)
            marks = [*present, *sequences, *[True] * inputs, *[not at_rest] * states]
            order = self._order_of(key, "Backward", [*marks, *[True] * len(learned)])
        addresses = (
            0, *map(Tensor.data_ptr, tensors),
            *map(Tensor.data_ptr, itertools.compress(taken, present)),  # type: ignore[arg-type]
            *map(Tensor.data_ptr, made), *map(Tensor.data_ptr, learned),
        )  # fmt: skip
        words = head + array.array("q", order(addresses))
        (run or self.kernel.run)("backward", words, learned, self.live)
        found: list[Tensor | None] = [*made, *[None] * (len(raw) - len(made))]
        for place, grad in zip(self._learned, learned, strict=True):
            if not self._as_it_is[place]:
                grad = self._unfolded(grad, place, raw[first + place])
            found[first + place] = grad
        return found

    def _unfolded(self, grad: Tensor, place: int, parameter: Tensor) -> Tensor:
        """The gradient of a parameter that was copied, from its channels'."""
        shape, scope = self._shapes[place]
        if scope == Scope.CHANNEL:
            back = sorted(range(len(self._order)), key=self._order.__getitem__)
            whole = (1,) * (len(self._order) - len(shape)) + tuple(shape)
            grad = grad.reshape(self._sizes).permute(back).sum_to_size(whole)
        return grad.reshape(parameter.shape).to(parameter)

    def _readable(self, tensors: Sequence[Tensor], at_rest: bool) -> Sequence[Tensor]:
        """The tensors as the kernel reads them: in one layout, parameters of the state's type."""
        inputs = self.program.inputs
        first = inputs + self.program.states
        if self._simple:
            if at_rest:
                return tensors
            for state in tensors[inputs:first]:
                if state.stride() != self._step_stride:
                    break
            else:
                return tensors
        x = tensors[0].contiguous() if self._copies_x else tensors[0]
        made = [x, *(like(other, x) for other in tensors[1:inputs])]
        for state in tensors[inputs:first]:
            fits = at_rest or state.stride() == self._step_stride
            made.append(state if fits else self._new_state().copy_(state))
        for place, parameter in enumerate(tensors[first:]):
            if not self._as_it_is[place]:
                shape, scope = self._shapes[place]
                if scope == Scope.CHANNEL:
                    parameter = self._row(parameter.reshape(shape))
                parameter = parameter.to(self.device, self.state_dtype).contiguous()
            made.append(parameter)
        return made

    def _new_state(self) -> Tensor:
        return torch.empty_strided(*self._step_layout, **self._step_kind)

    def _order_of(self, key: Any, name: str, present: Sequence[bool]) -> Any:
        """Returns a function that orders the addresses of a call's tensors as the struct does."""
        program, (at_rest, *_) = self.program, key
        first = 1 + program.inputs + program.states
        places: dict[str, list[int]] = {"x": list(range(1, 1 + program.inputs))}
        if not at_rest:
            places["s0"] = list(range(1 + program.inputs, first))
        for scope, buffer in ((Scope.LAYER, "number_at"), (Scope.CHANNEL, "parameters")):
            places[buffer] = [
                0 if place is None else first + place
                for place, own in zip(self._places, program.parameters, strict=False)
                if own == scope
            ]
        at, marks, many = first + len(self._shapes), iter(present), counts(program)
        for own in STRUCTS[name]:
            places[own.name] = []
            for here in (next(marks, False) for _ in range(many[own.many])):
                places[own.name].append(at if here else 0)
                at += here
        self._orders[key] = order = arrangement(program, name, places)
        return order


class Neuron(torch.autograd.Function):
    """`Layer.forward`, or that of a `NormedCall`, differentiable once."""

    @staticmethod
    def forward(
        ctx: Any, of: Any, head: Words, at_rest: bool, sequences: bool, *tensors: Any
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*tensors)
        ctx.call = of, head, at_rest
        ctx.set_materialize_grads(False)
        return of.forward(tensors, head, at_rest, sequences)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        of, head, at_rest = ctx.call
        tensors = saved(ctx, grads)
        if torch.is_grad_enabled():
            with torch.no_grad():
                found = once(of.backward(grads, tensors, head, at_rest))
        else:
            found = of.backward(grads, tensors, head, at_rest)
        return None, None, None, None, *found


_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_is_batched = torch._C._functorch.is_legacy_batchedtensor


def saved(ctx: Any, grads: Sequence[Tensor | None]) -> Any:
    """Reads what a function saved for its backward pass, once, as checkpoints demand.

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


TWICE = (
    "htaf_snn's fused neurons are differentiated once; for a second derivative "
    "(create_graph=True) set backend='torch' on the neurons"
)


def once(grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Gradients whose own gradient is the error `TWICE`; as torch's `once_differentiable`."""
    known = [g.detach().requires_grad_() for g in grads if g is not None]
    made: Any = torch._C._functions.DelayedError(TWICE.encode(), len(known))(*known)
    found = iter([made] if isinstance(made, Tensor) else made)
    return [None if g is None else next(found) for g in grads]
