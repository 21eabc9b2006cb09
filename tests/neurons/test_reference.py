"""Our neurons equal SpikingJelly's own, outputs, states and gradients, and what they refuse."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor

import htaf_snn

PAIRS = {
    "if": (htaf_snn.IFNode, neuron.IFNode),
    "lif": (htaf_snn.LIFNode, neuron.LIFNode),
    "plif": (htaf_snn.ParametricLIFNode, neuron.ParametricLIFNode),
}


def run(node: neuron.BaseNode, x_seq: Tensor, calls: int) -> dict[str, Tensor]:
    """Everything observable of ``calls`` forward passes over a carried state, and one backward."""
    x_seq = x_seq.clone().requires_grad_()
    weights = torch.randn(x_seq.shape, generator=torch.Generator().manual_seed(1)).to(x_seq)
    outputs, potentials = [], []
    for _ in range(calls):
        if node.step_mode == "m":
            outputs.append(node(x_seq))
        else:
            outputs.append(torch.stack([node(x) for x in x_seq]))
        if node.store_v_seq:
            potentials.append(node.v_seq)
    loss = sum((out * weights).sum() for out in outputs) + (node.v**2).sum()
    loss.backward()
    seen = {"out": torch.cat(outputs), "v": node.v, "grad x": x_seq.grad}
    if potentials:
        seen["v_seq"] = torch.cat(potentials)
    if isinstance(node, neuron.ParametricLIFNode):
        seen["grad w"] = node.w.grad
    return seen


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("detach_reset", [False, True], ids=["", "detach"])
@pytest.mark.parametrize("v_reset", [0.0, -0.3, None], ids=["hard0", "hard", "soft"])
@pytest.mark.parametrize("name", PAIRS)
def test_equals_spiking_jelly(
    name: str, v_reset: float | None, detach_reset: bool, step_mode: str, backend: Any
) -> None:
    ours, host = PAIRS[name]
    x_seq = 1.5 * torch.randn(5, 3, 7, dtype=torch.float64)
    case = (0.0, -0.3, None).index(v_reset) + 3 * detach_reset + list(PAIRS).index(name)
    leaks: Any = [{}]
    if name != "if":
        tau = "tau" if name == "lif" else "init_tau"
        leaks = [{tau: t, "decay_input": (case + i) % 2 == 0} for i, t in enumerate((2.0, 5.5))]
    functions = (surrogate.ATan, surrogate.Sigmoid, surrogate.PiecewiseLeakyReLU)
    make = functions[(case + (step_mode == "m")) % 3]  # a kernel takes a second to compile
    for leak, store_v_seq, calls in itertools.product(leaks, (False, True), (1, 2)):
        arguments = {
            **leak, "v_threshold": 0.8, "v_reset": v_reset, "detach_reset": detach_reset,
            "step_mode": step_mode, "store_v_seq": store_v_seq,
        }  # fmt: skip
        expected = run(host(**arguments, surrogate_function=make()).double(), x_seq, calls)
        node = ours(**arguments, surrogate_function=make(), backend=backend)
        actual = run(node.double(), x_seq, calls)
        assert actual.keys() == expected.keys()
        for key in expected:
            torch.testing.assert_close(actual[key], expected[key], rtol=1e-12, atol=1e-12, msg=key)


@pytest.mark.parametrize("name", PAIRS)
def test_smooth_spike_has_the_true_gradient(name: str) -> None:
    node = PAIRS[name][0](
        v_reset=None, surrogate_function=htaf_snn.HTAFSpike(), step_mode="m"
    ).double()

    def forward(x_seq: Tensor) -> tuple[Tensor, Tensor]:
        node.reset()
        return node(x_seq), node.v

    x_seq = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(forward, x_seq)


def test_hand_worked_trace() -> None:
    node = htaf_snn.LIFNode(
        tau=2.0, surrogate_function=htaf_snn.HTAFSpike(mode="hard"), step_mode="m"
    )
    node.store_v_seq = True
    spikes = node(torch.tensor([1.0, 2.0, 2.0, -1.0])[:, None])
    # h = 0.5; 0.5 + (2 - 0.5) / 2 = 1.25 fires; 0 + 2 / 2 = 1 fires, at exactly the threshold; -0.5
    assert spikes.flatten().tolist() == [0, 1, 1, 0]
    assert node.v_seq is not None
    assert node.v_seq.flatten().tolist() == [0.5, 0, 0, -0.5]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_state_stays_float32(name: str, dtype: torch.dtype) -> None:
    node = PAIRS[name][0](surrogate_function=htaf_snn.HTAFSpike(), step_mode="m", store_v_seq=True)
    x_seq = torch.randn(4, 2, 3, dtype=dtype, requires_grad=True)
    spikes = node(x_seq)
    spikes.float().sum().backward()
    assert spikes.dtype == x_seq.grad.dtype == dtype  # type: ignore[union-attr]
    assert node.v.dtype == node.v_seq.dtype == torch.float32
    exact = PAIRS[name][0](surrogate_function=htaf_snn.HTAFSpike(), step_mode="m")
    assert torch.equal(spikes, exact(x_seq.detach().float()).to(dtype))


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "expanded"])
def test_layouts_give_the_same_numbers(layout: str) -> None:
    x_seq = torch.randn(4, 2, 3, 5, 5)
    if layout == "channels_last":
        strided = x_seq.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (4, 2))
    elif layout == "sliced":
        strided = torch.randn(8, 2, 3, 5, 9)[::2, ..., 1:6].copy_(x_seq)
    else:
        x_seq = x_seq[:1].expand(4, -1, -1, -1, -1)
        strided = x_seq
    node = htaf_snn.LIFNode(surrogate_function=htaf_snn.HTAFSpike(), step_mode="m")
    expected = node(x_seq.contiguous())
    functional.reset_net(node)
    torch.testing.assert_close(node(strided), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 0, 3), (7, 1, 1, 3)])
def test_odd_shapes(shape: tuple[int, ...]) -> None:
    node = htaf_snn.LIFNode(surrogate_function=htaf_snn.HTAFSpike(), step_mode="m")
    assert node(torch.ones(shape)).shape == shape
    assert node.v.shape == shape[1:]


def test_a_new_batch_size_starts_from_the_reset_potential() -> None:
    node = htaf_snn.LIFNode(v_reset=-0.5, step_mode="m")
    node(torch.ones(2, 3))
    node(torch.zeros(1, 5))
    assert node.v.tolist() == [-0.5] * 5  # as SpikingJelly's; no input leaves it there


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: htaf_snn.LIFNode(tau=1.0), r"`tau` \(=1.0\)"),
        (lambda: htaf_snn.LIFNode(tau=float("nan")), r"`tau` \(=nan\)"),
        (lambda: htaf_snn.ParametricLIFNode(init_tau=0.5), r"`init_tau` \(=0.5\)"),
        (lambda: htaf_snn.IFNode(v_threshold=float("inf")), r"`v_threshold` \(=inf\)"),
        (lambda: htaf_snn.IFNode(v_reset=float("nan")), r"`v_reset` \(=nan\)"),
        (lambda: htaf_snn.IFNode(backend="cuda"), r"`backend` \(='cuda'\) must be one of auto"),  # type: ignore[arg-type]
        (lambda: htaf_snn.IFNode(step_mode="m")(torch.ones(0, 3)), r"T >= 1; .*\(0, 3\)"),
        (lambda: htaf_snn.IFNode(step_mode="x"), "step_mode"),
    ],
)
def test_refuses(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_refuses_integer_input() -> None:
    with pytest.raises(TypeError, match=r"not torch.int64; .*float\(\)"):
        htaf_snn.IFNode()(torch.ones(2, dtype=torch.int64))


def test_auto_says_once_what_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    from htaf_snn.surrogates.spike_function import say_once

    say_once.cache_clear()
    with caplog.at_level("INFO", logger="htaf_snn"):
        for _ in range(2):
            htaf_snn.LIFNode()(torch.ones(2, 3))
    assert [r.message for r in caplog.records] == [
        "backend 'auto' runs 'cpu' for LIFNode with Sigmoid"
    ]
