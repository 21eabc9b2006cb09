"""The CUDA kernels on a device, against torch on the CPU: `pytest -m gpu`."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import htaf_snn
from htaf_snn import HTAFSpike, spike_function, spike_function_names
from htaf_snn.models import model
from htaf_snn.neurons.batch_norm import average_norms
from htaf_snn.neurons.kernels import cuda
from htaf_snn.neurons.norm_fusion import fuse_norms
from tests.neurons import test_fused, test_norm, test_zoo
from tests.neurons.test_fused import LAYOUTS, NEURONS, TOLERANCE, assert_backends_agree

pytestmark = pytest.mark.gpu
cupy = pytest.importorskip("cupy")


def lif(**options: Any) -> htaf_snn.LIFNode:
    return htaf_snn.LIFNode(
        surrogate_function=HTAFSpike(mode="soft"), step_mode="m", backend="cupy", **options
    )


@pytest.mark.parametrize("function", test_fused.FUNCTIONS)
def test_equals_torch(function: str) -> None:
    for case, (name, T) in enumerate(itertools.product(NEURONS, (1, 5, 33, 100))):

        def make(**options: Any) -> neuron.BaseNode:
            return NEURONS[name](
                surrogate_function=test_fused.FUNCTIONS[function](), v_threshold=0.7,
                v_reset=(0.0, -0.2, None)[case % 3], detach_reset=(case + case // 4) % 2 == 1,
                store_v_seq=T < 33, step_mode="m", **options,
            )  # fmt: skip

        x_seq = torch.randn(T, 2, 3, 45, dtype=torch.float64)
        assert_backends_agree(make, x_seq, backend="cupy")


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_dtypes_and_layouts(layout: str, dtype: torch.dtype) -> None:
    for function in ("htaf soft", "htaf hard, a channel"):

        def make(**options: Any) -> neuron.BaseNode:
            return htaf_snn.LIFNode(
                surrogate_function=test_fused.FUNCTIONS[function](), step_mode="m",
                v_threshold=0.61, **options,
            )  # fmt: skip

        x_seq = LAYOUTS[layout](torch.randn(4, 2, 3, 5, 7)).to(dtype)
        assert_backends_agree(make, x_seq, backend="cupy")


@pytest.mark.parametrize("name", spike_function_names())
def test_every_function(name: str) -> None:
    def make(**options: Any) -> neuron.BaseNode:
        return htaf_snn.LIFNode(
            surrogate_function=spike_function(name), step_mode="m", v_threshold=0.31, **options
        )

    assert_backends_agree(make, torch.randn(3, 3, 411, dtype=torch.float64), backend="cupy")


@pytest.mark.parametrize("function", test_zoo.FUNCTIONS)
@pytest.mark.parametrize("name", test_zoo.FUSED)
def test_the_hosts_neurons(name: str, function: str) -> None:
    host = test_zoo.FUSED[name](test_zoo.FUNCTIONS[function]())
    node: Any = htaf_snn.convert(copy.deepcopy(host), "cupy")
    mode = "s" if name in test_zoo.SINGLE or name == "LIAFNode" else "m"
    for module in (host, node):
        if name != "GatedLIFNode":
            module.step_mode = mode
    x_seq = torch.randn(6, 3, 5, 2, 2, dtype=torch.float64)
    expected = test_zoo.observe(host, x_seq, mode == "s")
    actual = test_zoo.observe(node, x_seq.cuda(), mode == "s")
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_norms_before_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    original = cuda.CUDAKernel.norm

    def watched(kernel: Any, name: str, *arguments: Any) -> None:
        ran.append(name)
        original(kernel, name, *arguments)

    monkeypatch.setattr(cuda.CUDAKernel, "norm", watched)
    for seed in range(40):
        net, x, what = test_norm.pair(seed)
        twin = copy.deepcopy(net)
        average_norms(net)
        for gpu in (False, True):
            ran.clear()
            fused = copy.deepcopy(twin).cuda()
            fuse_norms(fused, gpu)
            wanted, got = (
                test_norm.seen_of(copy.deepcopy(net), x),
                test_norm.seen_of(fused, x.cuda()),
            )
            assert ran == gpu * [*2 * ["norm_forward", "norm_backward"], "norm_forward"], what
            for a, b in zip(wanted, got, strict=True):
                torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-6, msg=lambda m: f"{what}: {m}")


def test_steps_with_norms_within_are_captured() -> None:
    nets = [test_norm.small("soft").cuda() for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(3, 4, 3, 6, 6, device="cuda")

    def run(net: nn.Module) -> list[Tensor]:
        functional.reset_net(net)
        out = net(x)
        return [out, *torch.autograd.grad(out.square().sum(), list(net.parameters()))]

    fuse_norms(nets[1], gpu=True)
    average_norms(nets[0])
    with torch.cuda.stream(torch.cuda.Stream()):
        for net in nets:
            run(net)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(nets[1])
    for _ in range(2):
        x.copy_(torch.randn_like(x))
        graph.replay()
        wanted = [*run(nets[0]), *nets[0].buffers()]
        for a, b in zip([*captured, *nets[1].buffers()], wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("channels_last", [False, True], ids=["", "channels last"])
@pytest.mark.parametrize("name", ["vgg_small", "sew_resnet18"])
def test_networks(name: str, channels_last: bool) -> None:
    torch.use_deterministic_algorithms(False)  # CUDA's average pooling has none
    torch.manual_seed(0)
    net: Any = model(
        name, (2, 16, 16), 10, htaf_snn.LIFNode, width=0.125,
        surrogate_function=HTAFSpike(mode="soft"),
    )  # fmt: skip
    frames, seen = torch.rand(3, 4, 2, 16, 16).double(), []
    for device in ("cpu", "cuda"):
        own = copy.deepcopy(net).double().to(device)
        if channels_last:
            own = own.to(memory_format=torch.channels_last)
        loss = own(frames.to(device)).square().mean()
        loss.backward()
        seen.append([loss, *(p.grad for p in own.parameters())])
    for a, b in zip(*seen, strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype: torch.dtype) -> None:
    net = test_norm.small("soft").cuda()
    fuse_norms(net)
    with torch.autocast("cuda", dtype):
        out = net(torch.randn(3, 4, 3, 6, 6, device="cuda"))
    out.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_whole(backend: str) -> None:
    nets = [test_norm.small("soft").cuda() for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    compiled = torch.compile(nets[1], fullgraph=True, backend=backend)
    x = torch.randn(3, 4, 3, 6, 6, device="cuda")
    for net in (nets[0], compiled):
        net(x).square().sum().backward()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-4)


def test_recomputed_activations() -> None:
    node = lif()

    def run(x_seq: Tensor) -> Tensor:
        node.reset()
        spikes: Tensor = node(2 * x_seq.sin())
        return spikes

    x_seq = torch.randn(4, 7, device="cuda", requires_grad=True)
    grads = [
        torch.autograd.grad(out.square().sum(), x_seq)[0]
        for out in (run(x_seq), checkpoint(run, x_seq, use_reentrant=False))
    ]
    assert torch.equal(*grads)


def test_streams_and_devices_are_left_alone() -> None:
    before = torch.cuda.current_device(), cupy.cuda.runtime.getDevice()
    stream = cupy.cuda.get_current_stream()
    node = htaf_snn.LIFNode(surrogate_function=surrogate.ATan(), step_mode="m", backend="cupy")
    with torch.cuda.stream(torch.cuda.Stream()):
        node(torch.randn(4, 8, device="cuda"))
    assert (torch.cuda.current_device(), cupy.cuda.runtime.getDevice()) == before
    assert cupy.cuda.get_current_stream() == stream


def test_on_torchs_stream() -> None:
    """Between kernels that take long, on a stream of its own."""
    node, stream = lif(), torch.cuda.Stream()
    x_seq = torch.randn(4, 1 << 22, device="cuda")
    expected = node(4 * x_seq.sin())
    for _ in range(5):
        node.reset()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(20_000_000)
            got = node(4 * x_seq.sin()) * 1.0
        stream.synchronize()
        assert torch.equal(got, expected)


def test_captured_as_a_graph() -> None:
    net = nn.Sequential(layer.Linear(9, 9), lif()).cuda()
    functional.set_step_mode(net, "m")
    x_seq = torch.randn(4, 5, 9, device="cuda", requires_grad=True)

    def run() -> tuple[Tensor, Tensor]:
        functional.reset_net(net)
        out = net(x_seq)
        return out, torch.autograd.grad(out.square().sum(), x_seq)[0]

    with torch.cuda.stream(torch.cuda.Stream()):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    with torch.no_grad():
        x_seq.copy_(torch.randn_like(x_seq))
    graph.replay()
    for a, b in zip(captured, run(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_replay_sees_hardness() -> None:
    node, x_seq = lif(), torch.randn(4, 5, 8, device="cuda")

    def run(hardness: float) -> Tensor:
        node.surrogate_function.hardness = hardness
        node.reset()
        spikes: Tensor = node(x_seq)
        return spikes

    with torch.cuda.stream(torch.cuda.Stream()):
        run(0.5)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(0.5)
    for hardness in (0.5, 0.9):
        node.surrogate_function.hardness = hardness
        htaf_snn.refresh(node)
        graph.replay()
        assert torch.equal(captured, run(hardness))


def test_more_elements_than_an_int_counts() -> None:
    T, N = 2, (1 << 30) + 77
    x_seq = torch.empty(T, N, dtype=torch.bfloat16, device="cuda").uniform_(-1, 3)
    x_seq.requires_grad_()
    node = lif()
    out = node(x_seq)
    out.backward(torch.ones_like(out))
    few = x_seq.detach()[:, -100:].clone().requires_grad_()
    node.reset()
    other = node(few)
    other.backward(torch.ones_like(other))
    assert x_seq.grad is not None and few.grad is not None
    assert torch.equal(out[:, -100:], other) and torch.equal(x_seq.grad[:, -100:], few.grad)


def test_gradients_of_parameters_are_the_same_every_time() -> None:
    x_seq, found = torch.randn(8, 5, 3, 4001, device="cuda"), []
    for _ in range(3):
        node = htaf_snn.ParametricLIFNode(
            surrogate_function=HTAFSpike(learnable=True, num_channels=3),
            step_mode="m",
            backend="cupy",
        ).cuda()
        node(x_seq).sum().backward()
        found.append([p.grad for p in node.parameters()])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert a is not None and b is not None and torch.equal(a, b)


def test_auto_follows_the_device() -> None:
    node = htaf_snn.LIFNode(surrogate_function=HTAFSpike(mode="soft"), step_mode="m")
    x_seq, ran = torch.randn(4, 9), []
    original = cuda.get_launch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "get_launch", lambda *a: [ran.append(a[1]), original(*a)][1])  # type: ignore[func-returns-value]
        outputs = []
        for device in ("cpu", "cuda", "cpu"):
            node.reset()
            outputs.append(node.to(device)(x_seq.to(device)).cpu())
    assert ran == ["forward"]
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0])
