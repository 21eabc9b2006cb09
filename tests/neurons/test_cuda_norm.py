"""Batch norm around the CUDA kernels without a GPU: on the CPU by the shim, against torch's."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn

import htaf_snn
from htaf_snn import HTAFSpike
from htaf_snn.neurons import norm_fusion
from htaf_snn.neurons.batch_norm import average_norms
from htaf_snn.neurons.kernels import cuda
from htaf_snn.neurons.kernels.buffers import cuda_norm_source
from htaf_snn.neurons.norm_fusion import DeferredNorm, fuse_norms
from tests import nvrtc
from tests.neurons.test_cuda_source import capture, launches, needs_nvrtc, on_the_shim
from tests.neurons.test_norm import Viewed, seen_of

__all__ = ["on_the_shim"]
CHANNELS = 6


@pytest.fixture(autouse=True)
def small_blocks(on_the_shim: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and a grid so small that threads have many elements, and no text for the CPU."""
    monkeypatch.setattr(cuda, "_THREADS", 16)
    monkeypatch.setattr(cuda, "_SUMS", 100)
    monkeypatch.setattr(norm_fusion, "compile_obstacle", lambda *_, **__: None)


def pair(multi: bool = True, learn: Any = (), **options: Any) -> nn.Sequential:
    """A norm with a weight that matters, and LIF neurons with soft HTAF."""
    torch.manual_seed(0)
    norm = layer.BatchNorm2d(CHANNELS, **options)
    if norm.affine:
        nn.init.uniform_(norm.weight, -2, 2)
        nn.init.uniform_(norm.bias, -1, 1)
    function = HTAFSpike(mode="soft")
    node = htaf_snn.LIFNode(surrogate_function=function, learn=learn, num_channels=CHANNELS)
    net = nn.Sequential(norm, node)
    functional.set_step_mode(net, "m" if multi else "s")
    return net


def last(x: Tensor) -> Tensor:
    """A sequence or a step of it whose channels lie last in memory."""
    return x.movedim(-3, -1).contiguous().movedim(-1, -3)


def frozen(net: nn.Sequential) -> None:
    nn.init.uniform_(net[0].running_var, 0.5, 2)  # type: ignore[arg-type]
    nn.init.uniform_(net[0].running_mean)  # type: ignore[arg-type]
    net[0].eval()


def untouched(net: nn.Sequential) -> None:
    """Leaves a network as it is."""


CASES: dict[str, tuple[dict[str, Any], Callable[..., Any], Callable[..., Any]]] = {
    "training": ({}, untouched, torch.clone),
    "frozen": ({}, frozen, torch.clone),
    "no affine": ({"affine": False, "momentum": None}, untouched, torch.clone),
    "no running": ({"track_running_stats": False}, untouched, torch.clone),
    "channels last": ({"momentum": 0.7}, untouched, last),
    "neither layout": ({}, untouched, lambda x: x.mT),
    "one step": ({"multi": False}, untouched, lambda x: x[0]),
    "one step, channels last": ({"multi": False}, untouched, lambda x: last(x[0])),
    "one channel a row": ({}, untouched, lambda x: x[..., :1, :1]),
    "learned": ({"learn": ("tau", "v_threshold")}, untouched, torch.clone),
    "segments": ({}, untouched, lambda x: torch.cat([x * (1 + k / 9) for k in range(9)])),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_equals_torchs_norm(case: str) -> None:
    options, change, layout = CASES[case]
    net, x = pair(**options).double(), layout(2 * torch.randn(4, 3, CHANNELS, 3, 5).double() + 1)
    change(net)
    apart: Any = copy.deepcopy(net)
    fused = net
    average_norms(apart)
    apart[1].backend = "torch"
    assert fuse_norms(fused) == {}
    for wanted, got in zip(seen_of(apart, x), seen_of(fused, x), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
    assert launches.count("forward") > (4 if case == "segments" else 2)
    assert "normalize" in launches and ("moments" in launches) == (case != "frozen")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", [torch.clone, last], ids=["", "channels last"])
@pytest.mark.parametrize("mean", [2.0, 300.0])
def test_every_dtype_is_as_near_as_torchs_own(
    dtype: torch.dtype, layout: Any, mean: float, request: pytest.FixtureRequest
) -> None:
    net = pair()
    average_norms(net)
    x = layout((3 * torch.randn(4, 6, CHANNELS, 2, 4) + mean).to(dtype))
    x[0, 0, :, 0, 0] = 0  # what the others are taken from
    exact, apart = seen_of(copy.deepcopy(net).double(), x.double()), seen_of(copy.deepcopy(net), x)
    launches.clear()
    fuse_norms(net)
    got = seen_of(net, x)
    assert launches.count("moments") == 2 and got[0].dtype == dtype
    for wanted, torchs, mine in zip(exact, apart, got, strict=True):
        error, other = (float((a.double() - wanted).abs().max()) for a in (mine, torchs))
        assert error <= 2 * other + 2e-6 * float(wanted.abs().max())


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    net = pair()
    x = 3 * torch.randn(4, 6, CHANNELS, 2, 4) + 1e5 * torch.rand(CHANNELS, 1, 1)
    average_norms(net)
    exact = seen_of(copy.deepcopy(net).double(), x.double())
    fuse_norms(net)
    of_training = slice(-1 - len(list(net.buffers())))  # a running mean is rounded to float32
    for wanted, got in zip(exact[of_training], seen_of(net, x)[of_training], strict=True):
        size = float(wanted.abs().max())
        torch.testing.assert_close(got, wanted, rtol=0, atol=5e-6 * size, check_dtype=False)


def test_launches_and_what_is_kept() -> None:
    net, x = pair(), torch.randn(4, 3, CHANNELS, 3, 5, requires_grad=True)
    fuse_norms(net)
    net(x).sum().backward()
    assert launches == ["moments", "normalize", "forward", "backward", "sum", "correct"]
    launches.clear()
    net.eval()(x)
    assert launches == ["normalize", "forward"]
    functional.reset_net(net.train())
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: [kept.append(t), t][1], lambda t: t  # type: ignore[func-returns-value]
    ):  # fmt: skip
        net(x)
    assert sum(t.data_ptr() == x.data_ptr() for t in kept) == 1
    of_channels = CHANNELS * 4  # weight and bias
    assert all(t.untyped_storage().nbytes() <= of_channels for t in kept if t is not kept[2])


def test_replays_see_hardness_and_move_the_running_statistics() -> None:
    net, x = pair(), torch.randn(4, 3, CHANNELS, 3, 5)
    twin = copy.deepcopy(net)
    for module in (net, twin):
        fuse_norms(module)
    weights = torch.linspace(-1, 1, x.numel()).view_as(x)

    def run(module: Any, x: Tensor) -> list[Tensor]:
        functional.reset_net(module)
        own = x.detach().requires_grad_()
        out = module(own)
        return [out.detach(), *torch.autograd.grad(out, [own, *module.parameters()], weights)]

    def harden(hardness: float) -> None:
        for module in (net, twin):
            module[1].surrogate_function.hardness = hardness  # type: ignore[union-attr]

    harden(0.5)
    run(net, x)
    run(twin, x)
    kept: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        graph = capture(patch)
        keep = kept.append
        for name in ("empty", "empty_like", "empty_strided"):  # as a graph's pool keeps memory
            make = getattr(torch, name)
            patch.setattr(torch, name, lambda *a, m=make, **k: [t := m(*a, **k), keep(t)][0])
        found = run(net, x)
    assert len(graph) == 6
    for hardness in (0.2, 0.9):
        harden(hardness)
        htaf_snn.refresh(net)
        x.copy_(torch.randn_like(x))
        for launch, call in graph:
            launch(*call)
        for a, b in zip([*found, *net.buffers()], [*run(twin, x), *twin.buffers()], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_views_between() -> None:
    net, x = Viewed("unflatten"), torch.randn(3, 4, 3, 6, 6)
    plain = copy.deepcopy(net)
    average_norms(plain)
    fuse_norms(net)
    for wanted, got in zip(seen_of(plain, x), seen_of(net, x), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert launches.count("moments") == 2


def test_on_a_gpu_only_where_asked() -> None:
    net = pair()
    fuse_norms(net)
    norm: Any = net[0]
    assert not norm._is_fused_on(torch.device("cuda"))
    fuse_norms(net, gpu=True)
    for module in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert isinstance(module[0], DeferredNorm)
        assert module[0]._is_fused_on(torch.device("cuda"))
        assert not module[0]._is_fused_on(torch.device("mps"))
    assert "gpu" not in htaf_snn.revert(net)[0].__dict__  # type: ignore[index]


@needs_nvrtc
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_compiles(dtype: torch.dtype) -> None:
    for architecture in (nvrtc.ARCHITECTURES[0], nvrtc.ARCHITECTURES[-1]):
        source = cuda_norm_source(dtype, 2 if dtype.itemsize == 2 else 1)
        ptx = nvrtc.compile_ptx(source, architecture, cuda.FLAGS)
        assert ptx.count(b".visible .entry") == 3
