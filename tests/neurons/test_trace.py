"""What a trace takes and what it refuses, with the operation and its Python line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import htaf_snn
from htaf_snn.neurons.step.trace import NotElementwiseError, trace

_OUTSIDE = torch.tensor([[0.5], [1.5]])


def traced(function: Callable[[Tensor, Tensor], Any]) -> Any:
    def step(xs: Any, ss: Any, _: Any) -> Any:
        spike, v = function(xs[0], ss[0])
        return (spike,), (v,)

    return trace(step, 1, 1, "", ())


def _doubled_under_a_view(h: Tensor) -> Tensor:
    h = h.detach()
    view = h.view(-1)
    h.mul_(2)
    return view.view(2, 3)


def _changed_input(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x.sub_(1)


REFUSED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "mm is not": lambda x, v: (x @ x.t() @ x, v),
    "sum is not": lambda x, v: (x - x.sum(0), v),
    "amax is not": lambda x, v: (x - x.amax(), v),
    "cumsum is not": lambda x, v: (x.cumsum(0), v),
    "flip is not": lambda x, v: (x.flip(0), v),
    "select changes the shape": lambda x, v: (x[0] + v, v),
    "slice changes the shape": lambda x, v: (x[:, :1] + v, v),
    "rand": lambda x, v: (x + torch.rand_like(x), v),
    "bernoulli|rand": lambda x, v: (torch.bernoulli(x), v),
    "add_ changes in place what others read": lambda x, v: (x.detach().add_(1) + x, v),
    "sub_ changes in place": lambda x, v: (_changed_input(x), v),
    "mul_ changes in place": lambda x, v: (_doubled_under_a_view(x + v), v),
    "reads a tensor from outside": lambda x, v: (x * _OUTSIDE, v),
    "a conversion to torch.int32": lambda x, v: (x.int().to(x), v),
    "round with decimals": lambda x, v: (torch.round(x, decimals=1), v),
    "of another shape": lambda x, v: (x.reshape(3, 2), v),
    "returns None": lambda x, v: (x, None),
    "learned tensor": lambda x, v: (x * _OUTSIDE.mean().requires_grad_(), v),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_refuses(message: str) -> None:
    with pytest.raises(NotElementwiseError, match=message):
        traced(REFUSED[message])


def test_refuses_control_flow_on_values() -> None:
    with pytest.raises((NotElementwiseError, RuntimeError), match="sum is not"):
        traced(lambda x, v: (x if x.sum() > 0 else -x, v))


def test_says_in_which_line() -> None:
    with pytest.raises(NotElementwiseError, match=r"in test_trace.py:\d+: .*lambda x, v: \(x.sort"):
        traced(lambda x, v: (x.sort()[0], v))


TAKEN: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "in place on its own": lambda x, v: ((x * 2).add_(v).exp_(), v),
    "views": lambda x, v: (x.unsqueeze(0)[0].reshape(-1).view(2, 3), v),
    "masks": lambda x, v: (x.masked_fill(v > 0.4, 0.0), v),
    "a constant from outside": lambda x, v: (x * torch.tensor(3.0), v),
    "a filled tensor": lambda x, v: (x + torch.full_like(x, 0.25) * torch.ones(2, 3), v),
    "casts": lambda x, v: ((x > 0).to(x) - (v > 0).double() + x.double(), v),
    "truths of numbers": lambda x, v: (x * (v - v).bool().to(x) + v.bool().to(x), v),
    "no grad": lambda x, v: (x + (v.detach() * x.detach()), v),
    "truths compared": lambda x, v: (((x > v).to(x) != 0.5).to(x) + ((x > v).to(x) != 0).to(x), v),
    "copied": lambda x, v: (torch.empty_like(x).copy_(x * v), v),
    "filled in place": lambda x, v: (torch.empty_like(x).fill_(0.25) * x, v),
}


class Taken(htaf_snn.Neuron):
    """A state for each of `TAKEN`, which is what it makes of the input and the potential."""

    states = dict.fromkeys(("v", *(f"s{k}" for k in range(len(TAKEN)))), 0.1)

    def step(self, x: Tensor, v: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        made = [function(x, v)[0] for function in TAKEN.values()]
        return self.surrogate_function(x - v), 0.5 * v + x, *made


def test_takes() -> None:
    x_seq = torch.randn(3, 2, 3, dtype=torch.float64)
    seen = []
    for backend in ("torch", "cpu"):
        node: Any = Taken(step_mode="m", backend=backend).double()
        x = x_seq.clone().requires_grad_()
        spikes = node(x)
        (spikes.sum() + sum(s.sin().sum() for s in node.memories())).backward()
        seen.append([spikes, *node.memories(), x.grad])
    torch.testing.assert_close(*seen)


def test_constants_that_schedules_change_are_arguments() -> None:
    one, numbers = traced(lambda x, v: (x * 3.7 + 1, v / 1.3))
    other, others = traced(lambda x, v: (x * 4.9 + 1, v / 2.6))
    assert one.encode() == other.encode() and numbers != others
