"""Where a fused layer could differ from SpikingJelly's unseen: it is the same, or says so."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, monitor, neuron, op_counter, surrogate
from spikingjelly.activation_based.distributed import vision
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

import htaf_snn
from htaf_snn import HTAFSpike
from htaf_snn.neurons.kernels import cpu


def soft(backend: Any = "auto", **options: Any) -> htaf_snn.LIFNode:
    return htaf_snn.LIFNode(
        surrogate_function=HTAFSpike(mode="soft"), step_mode="m", backend=backend, **options
    )


def fresh(node: neuron.BaseNode) -> Callable[[Tensor], Tensor]:
    def run(x_seq: Tensor) -> Tensor:
        functional.reset_net(node)
        spikes: Tensor = node(x_seq)
        return spikes

    return run


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs of a kernel in this test."""
    ran: list[str] = []
    run = cpu.CPUKernel.run
    monkeypatch.setattr(cpu.CPUKernel, "run", lambda k, n, *a: [ran.append(n), run(k, n, *a)][1])  # type: ignore[func-returns-value]
    return ran


def jvp(run: Any, x: Tensor) -> Tensor:
    tangent: Tensor = torch.func.jvp(run, (x,), (torch.ones_like(x),))[1]
    return tangent


def dual(run: Any, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        made = run(forward_ad.make_dual(x, torch.ones_like(x)))
        tangent: Tensor = forward_ad.unpack_dual(made).tangent
        return tangent


TRANSFORMS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "jit.trace": lambda run, x: torch.jit.trace(run, x, check_trace=False)(2 * x),
    "func.jvp": jvp,
    "forward_ad": dual,
    "func.grad": lambda run, x: torch.func.grad(lambda y: run(y).sum())(x),
    "func.vmap": lambda run, x: torch.func.vmap(run)(torch.stack([x, 2 * x])),
    "func.jacrev": lambda run, x: torch.func.jacrev(run)(x),
    "jacfwd": lambda run, x: torch.func.jacfwd(run)(x),
    "aot_function": lambda run, x: __import__("functorch.compile").compile.aot_function(
        run, fw_compiler=lambda g, _: g
    )(x.clone().requires_grad_()),
}


@pytest.mark.filterwarnings("ignore")  # torch's own on jit
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_give_what_torch_gives(name: str) -> None:
    x_seq = torch.randn(3, 2, 2)
    expected = TRANSFORMS[name](fresh(soft("torch")), x_seq)
    torch.testing.assert_close(TRANSFORMS[name](fresh(soft()), x_seq), expected)
    if name != "aot_function":
        with pytest.raises(htaf_snn.BackendUnavailableError, match="use backend='auto' or"):
            TRANSFORMS[name](fresh(soft("cpu")), x_seq)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of SpikingJelly's operator
@pytest.mark.parametrize("function", [HTAFSpike, surrogate.ATan])
def test_a_transform_before_the_first_call_leaves_nothing_behind(
    function: Any, kernels: list[str]
) -> None:
    node = htaf_snn.LIFNode(tau=2.75, surrogate_function=function(), step_mode="m")
    torch.func.vmap(fresh(node))(torch.randn(2, 3, 2))
    assert not kernels
    fresh(node)(torch.randn(3, 2))
    assert kernels == ["forward"]


def test_a_batch_of_gradients_says_what_to_do() -> None:
    x_seq = torch.randn(3, 2, 2)
    with pytest.raises(RuntimeError, match=r"takes no batch of gradients.*backend='torch'"):
        torch.autograd.functional.jacobian(fresh(soft()), x_seq, vectorize=True)
    torch.autograd.functional.jacobian(fresh(soft("torch")), x_seq, vectorize=True)


def test_fake_tensors() -> None:
    with FakeTensorMode():
        node = soft()
        assert node(torch.empty(3, 2, 5)).shape == (3, 2, 5)


@pytest.mark.filterwarnings("ignore")  # the exporters' own
@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx_export(dynamo: bool) -> None:
    if dynamo:
        pytest.importorskip("onnxscript")
    else:
        pytest.importorskip("onnx")
    file = io.BytesIO()
    torch.onnx.export(soft().eval(), (torch.randn(3, 2, 4),), file, dynamo=dynamo)  # type: ignore[arg-type]
    assert file.getvalue()


COUNTERS = ["FlopCounter", "ACCounter", "MemoryAccessCounter", "NeuronStateCounter", "SynOpCounter"]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", [n for n in COUNTERS if hasattr(op_counter, n)])
def test_counters_count_as_with_the_hosts_nodes(name: str, strict: bool) -> None:
    totals = []
    for make in (neuron.LIFNode, htaf_snn.LIFNode):
        node = make(surrogate_function=surrogate.ATan(), step_mode="m")
        counter = getattr(op_counter, name)()
        with torch.no_grad(), op_counter.DispatchCounterMode([counter], strict=False):
            node(torch.rand(4, 2, 3))
        totals.append(counter.get_total())
    assert totals[0] == totals[1]
    if strict:  # what is unknown to the counter in SpikingJelly's own node is so in ours
        errors = []
        for make in (neuron.LIFNode, htaf_snn.LIFNode):
            node = make(surrogate_function=surrogate.ATan(), step_mode="m")
            counters = [getattr(op_counter, name)()]
            try:
                with torch.no_grad(), op_counter.DispatchCounterMode(counters, strict=True):
                    node(torch.rand(4, 2, 3))
                errors.append("")
            except NotImplementedError as error:
                errors.append(str(error))
        assert errors[0] == errors[1]


def test_hooks_and_monitors_on_the_spike_function_see_every_step(kernels: list[str]) -> None:
    node = soft()
    with monitor.OutputMonitor(node, HTAFSpike) as seen:
        node(torch.randn(5, 3))
    assert len(seen.records) == 5 and not kernels
    node.reset()
    node(torch.randn(5, 3))
    assert kernels == ["forward"]
    node.backend = "cpu"
    handle = node.surrogate_function.register_forward_hook(lambda *_: None)
    with pytest.raises(htaf_snn.BackendUnavailableError, match="a hook or monitor"):
        node(torch.randn(5, 3))
    handle.remove()
    node(torch.randn(5, 3))


CONSTANTS: dict[str, Callable[[], Any]] = {
    "tau": lambda: torch.tensor(3.0),
    "v_threshold": lambda: nn.Parameter(torch.tensor(0.7)),
    "v_reset": lambda: nn.Parameter(torch.tensor(0.0)),
    "tau a channel": lambda: nn.Parameter(torch.tensor([1.5, 2.0, 4.0])),
    "v_threshold a channel": lambda: torch.tensor([0.5, 1.0, 1.5]),
    "v_threshold a neuron": lambda: nn.Parameter(torch.rand(3, 2, 2) + 0.5),
    "v_reset broadcast": lambda: nn.Parameter(torch.rand(3, 1, 1) - 0.5),
}


@pytest.mark.parametrize("channels_last", [False, True], ids=["", "channels last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("constant", CONSTANTS)
def test_constants_that_are_tensors(
    constant: str, dtype: torch.dtype, channels_last: bool, kernels: list[str]
) -> None:
    x_seq = torch.randn(5, 2, 3, 2, 2, dtype=dtype)
    if channels_last:
        x_seq = x_seq.movedim(2, -1).contiguous().movedim(-1, 2)
    seen = []
    for backend in ("torch", "cpu"):
        torch.manual_seed(0)
        for function in (HTAFSpike(mode="soft"), surrogate.ATan()):
            node = htaf_snn.LIFNode(surrogate_function=function, step_mode="m", backend=backend)
            name, value = constant.split()[0], CONSTANTS[constant]()
            node.__dict__.pop(name)
            setattr(node, name, value)
            node.to(dtype)
            x = x_seq.clone().requires_grad_()
            out = node(x)
            (out * out.detach().cos() + node.v.square()).sum().backward()
            seen.append([out, node.v, x.grad, getattr(node, name).grad])
    assert kernels == ["forward", "backward"] * 2
    for one, other in ((seen[0], seen[2]), (seen[1], seen[3])):
        for a, b in zip(one, other, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_learned_constants_are_an_option(kernels: list[str]) -> None:
    node = soft(learn=("tau", "v_threshold"), num_channels=3)
    assert {k: tuple(p.shape) for k, p in node.named_parameters()} == {
        "tau": (3,), "v_threshold": (3,),
    }  # fmt: skip
    node(torch.randn(4, 2, 3, 5)).sum().backward()
    assert kernels == ["forward", "backward"]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in node.parameters())
    with pytest.raises(ValueError, match=r"names 'w', which is no constant of LIFNode; it has "):
        soft(learn=("w",))
    with pytest.raises(ValueError, match="must be at least 1"):
        soft(learn=("tau",), num_channels=0)


@pytest.mark.parametrize("shape", [(1,), (3,)])
def test_a_plif_whose_w_is_no_scalar(shape: tuple[int, ...], kernels: list[str]) -> None:
    seen = []
    for backend in ("torch", "cpu"):
        node = htaf_snn.ParametricLIFNode(
            surrogate_function=HTAFSpike(mode="soft"),
            step_mode="m",
            backend=backend,
        )
        node.w = nn.Parameter(torch.linspace(-1, 1, shape[0]))
        x = torch.linspace(-3, 3, 4 * 2 * 3 * 2).reshape(4, 2, 3, 2).requires_grad_()
        node(x).square().sum().backward()
        seen.append([node.v, x.grad, node.w.grad])
    assert kernels == ["forward", "backward"] and seen[1][2].shape == shape
    for a, b in zip(*seen, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("v_reset", [None, 0.0, 0.5])
@pytest.mark.parametrize("name", ["htaf:mode=hard", "htaf:mode=soft", "sigmoid", "atan", "erf"])
def test_numbers_that_are_not_finite_or_huge(name: str, v_reset: float | None) -> None:
    special = torch.tensor([torch.inf, -torch.inf, torch.nan, 3e38, -3e38, 1e30, 2.0, 0.0])
    x_seq = torch.stack([special, special.roll(1), special.flip(0), torch.ones(8)])
    nodes = [
        make(surrogate_function=htaf_snn.spike_function(name), v_reset=v_reset, step_mode="m")
        for make in (neuron.LIFNode, htaf_snn.LIFNode)
    ]
    outputs = [node(x_seq) for node in nodes]
    torch.testing.assert_close(outputs[1], outputs[0], equal_nan=True)
    torch.testing.assert_close(nodes[1].v, nodes[0].v, equal_nan=True)


def test_the_output_of_a_transposed_input_can_be_viewed() -> None:
    x_seq = torch.randn(2, 5, 3, 4).transpose(0, 1)
    assert torch.equal(soft()(x_seq).view(-1), soft()(x_seq.contiguous()).view(-1))


def test_a_state_from_inference_mode_is_carried_into_training() -> None:
    node = soft("cpu")
    with torch.inference_mode():
        node(torch.randn(3, 4))
    x_seq = torch.randn(3, 4, requires_grad=True)
    node(x_seq).sum().backward()
    assert x_seq.grad is not None


def test_an_input_that_is_changed_in_place_says_what_to_do() -> None:
    x_seq = torch.randn(3, 4, requires_grad=True) * 1
    spikes = soft("cpu")(x_seq)
    x_seq += 1
    with pytest.raises(RuntimeError, match=r"(?s)changed in place after the call.*x\.clone\(\)"):
        spikes.sum().backward()


def test_gradients_of_another_layout_are_right() -> None:
    x_seq = torch.randn(4, 2, 3, 5, 5).movedim(2, -1).contiguous().movedim(-1, 2)
    seen = []
    for backend in ("torch", "cpu"):
        x = x_seq.clone().requires_grad_()
        soft(backend)(x).contiguous().mean((0, 3, 4)).square().sum().backward()
        seen.append(x.grad)
    torch.testing.assert_close(seen[1], seen[0])


def test_the_public_path_is_registered() -> None:
    htaf_snn.register()
    config = vision.NeuronConfig(
        class_path="htaf_snn.LIFNode",
        surrogate="htaf_snn.HTAFSpike",
        surrogate_kwargs={"alpha0": 0.67, "alpha1": 6.0},
    )
    resolved, _ = vision.config._resolve_neuron_config(config)
    assert resolved is htaf_snn.LIFNode
