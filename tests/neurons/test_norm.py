"""Batch norm within the neurons' kernel, against torch's batch norm before the same neurons."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.memopt import checkpoint_module
from spikingjelly.activation_based.model import (
    ms_resnet,
    parametric_lif_net,
    sew_resnet,
    spiking_resnet,
    spiking_vgg,
)
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

import htaf_snn
from htaf_snn import HTAFSpike
from htaf_snn.neurons.batch_norm import average_norms
from htaf_snn.neurons.kernels import cpu, norm
from htaf_snn.neurons.kernels import layer as kernels
from htaf_snn.neurons.norm_fusion import DeferredNorm, fuse_norms
from htaf_snn.neurons.step.graph import decode
from htaf_snn.neurons.step.simplify import with_norm
from htaf_snn.neurons.traced import step_of

EXAMPLES = int(os.environ.get("HTAF_SNN_EXAMPLES", "24"))

NEURONS: dict[str, Callable[..., Any]] = {
    "if": htaf_snn.IFNode,
    "lif": htaf_snn.LIFNode,
    "lif learned": lambda **k: htaf_snn.LIFNode(learn=("tau", "v_threshold"), num_channels=4, **k),
    "plif": htaf_snn.ParametricLIFNode,
    "izhikevich": lambda **k: htaf_snn.convert(neuron.IzhikevichNode(**k)),
    "cubalif": lambda **k: htaf_snn.convert(neuron.CUBALIFNode(**k)),
}
FUNCTIONS: dict[str, Callable[[], nn.Module]] = {
    "soft": lambda: HTAFSpike(mode="soft"),
    "hard": lambda: HTAFSpike(mode="hard"),
    "a channel": lambda: HTAFSpike(mode="soft", learnable=True, num_channels=4),
    "atan": surrogate.ATan,
}
SHAPES: dict[int, list[tuple[int, ...]]] = {
    1: [(3, 4), (2, 4, 5)],
    2: [(3, 4, 5, 2)],
    3: [(2, 4, 2, 3, 2)],
}


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A sentinel: a number for each norm that ran within a kernel in this test."""
    seen: list[int] = []
    original = cpu.CPUKernel.norm

    def watched(kernel: Any, name: str, *arguments: Any) -> Any:
        if name == "norm_forward":
            seen.append(len(seen))
        return original(kernel, name, *arguments)

    monkeypatch.setattr(cpu.CPUKernel, "norm", watched)
    yield seen


def pair(seed: int) -> tuple[nn.Sequential, Tensor, str]:
    """A norm and neurons chosen at random, an input, and what they are."""
    chance = random.Random(seed)
    torch.manual_seed(seed)
    dimensions = chance.choice([1, 2, 3])
    kind = chance.choice(["layer", "tdbn", "torch"])
    options: dict[str, Any] = {
        "affine": chance.random() < 0.8,
        "momentum": chance.choice([None, 0.1, 0.7]),
        "track_running_stats": chance.random() < 0.8,
        "eps": chance.choice([1e-5, 1e-2]),
    }
    if kind == "tdbn":
        options["affine"] = True  # it initialises the weight
        norm = getattr(layer, f"ThresholdDependentBatchNorm{dimensions}d")(0.7, 0.9, 4, **options)
    elif kind == "layer":
        norm = getattr(layer, f"BatchNorm{dimensions}d")(4, **options)
    else:
        norm = getattr(nn, f"BatchNorm{dimensions}d")(4, **options)
    if norm.affine:
        nn.init.uniform_(norm.weight, -2, 2)
        nn.init.uniform_(norm.bias, -1, 1)
    name, function = chance.choice(list(NEURONS)), chance.choice(list(FUNCTIONS))
    node = NEURONS[name](surrogate_function=FUNCTIONS[function]())
    net = nn.Sequential(norm, node).double()
    multi = kind != "torch" and (kind == "tdbn" or chance.random() < 0.8)
    functional.set_step_mode(net, "m" if multi else "s")
    if chance.random() < 0.3:
        norm.eval()  # frozen, or with statistics of the batch where it has no others
    shape = chance.choice(SHAPES[dimensions])
    x = 2 * torch.randn((chance.choice([1, 3, 6]), *shape) if multi else shape).double() + 1
    if chance.random() < 0.5 and x.ndim > 3:
        x = x.movedim(2 if multi else 1, -1).contiguous().movedim(-1, 2 if multi else 1)
    return net, x, f"{kind} {dimensions}d {options} {name} {function} {tuple(x.shape)} {multi}"


def seen_of(net: nn.Module, x: Tensor) -> list[Tensor]:
    """What a network puts out in two steps of training, its gradients, states and statistics."""
    seen = []
    for _ in range(2):
        functional.reset_net(net)
        net.zero_grad()
        own = x.detach().clone().requires_grad_()
        y = net(own)
        weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=y.device).view_as(y)
        (y * weights).sum().backward()
        assert own.grad is not None
        seen += [y, own.grad, *(p.grad for p in net.parameters() if p.grad is not None)]
        seen += [
            m
            for n in net.modules()
            for m in getattr(n, "_memories", {}).values()
            if isinstance(m, Tensor)
        ]
    net.eval()
    functional.reset_net(net)
    with torch.no_grad():
        seen.append(net(x))
    return [t.detach().to("cpu", copy=True) for t in (*seen, *net.buffers())]


@pytest.mark.parametrize("part", range(6))
def test_random_pairs_equal_torchs(part: int, fused: list[int]) -> None:
    count = 0
    for seed in range(part, EXAMPLES, 6):
        net, x, what = pair(seed)
        twin = copy.deepcopy(net)
        for module in twin.modules():
            if isinstance(module, htaf_snn.neurons.base.BackendNode):
                module.backend = "torch"
        average_norms(twin)
        assert fuse_norms(net) == {}, what
        wanted, got = seen_of(twin, x), seen_of(net, x)
        assert len(wanted) == len(got)
        for a, b in zip(wanted, got, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9, msg=what)
        count += 3
        assert len(fused) == count, what


def batch_moments(x: Tensor) -> tuple[Tensor, int]:
    """What a kernel finds of its input's statistics."""
    step = step_of(htaf_snn.IFNode())
    assert step.traced.program is not None
    program = with_norm(decode(step.traced.program))
    of, found = kernels.Layer(program, x, True, [], (0.0,), normed=True), []
    head = of.head(step.numbers)
    of.forward(
        (x, *of.rest),
        head,
        True,
        False,
        lambda _, w, *__: found.append(norm.batch_moments(of, w, None)),
    )
    return found[0]


@pytest.mark.parametrize("mean", [1e4, -1e4])
@pytest.mark.parametrize("last", [False, True])
def test_statistics_do_not_cancel(mean: float, last: bool) -> None:
    x = torch.randn(4, 16, 6, 9, 7) * torch.arange(1, 7).view(1, 1, 6, 1, 1) + mean
    x[0, 0, :, 0, 0] = 0  # where a pivot would be chosen
    if last:
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (4, 16))
    moments, count = batch_moments(x)
    wanted = torch.var_mean(x.double(), (0, 1, 3, 4), correction=0)
    torch.testing.assert_close(moments[0], wanted[1], rtol=1e-12, atol=0)
    torch.testing.assert_close(moments[1], wanted[0], rtol=1e-9, atol=0)
    assert count == 4 * 16 * 9 * 7
    with torch.random.fork_rng():
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        again, _ = batch_moments(x)
        torch.set_num_threads(threads)
    assert torch.equal(moments, again)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("last", [False, True])
def test_every_dtype_is_as_near_as_torchs_own(
    dtype: torch.dtype, last: bool, fused: list[int]
) -> None:
    torch.manual_seed(1)
    net = small("soft")[1:3]
    x = (3 * torch.randn(4, 5, 8, 6, 6) + 2).to(dtype)
    if last:
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (4, 5))
    average_norms(net)
    exact = seen_of(copy.deepcopy(net).double(), x.double())
    apart = seen_of(copy.deepcopy(net), x)
    assert not fused
    fuse_norms(net)
    got = seen_of(net, x)
    assert len(fused) == 3 and got[0].dtype == dtype

    def error(seen: list[Tensor]) -> list[float]:
        return [float((a - b.double()).abs().max()) for a, b in zip(exact, seen, strict=True)]

    for mine, torchs, size in zip(error(got), error(apart), exact, strict=True):
        assert mine <= 2 * torchs + 2e-6 * float(size.abs().max())


def small(function: str, **options: Any) -> nn.Sequential:
    net = nn.Sequential(
        layer.Conv2d(3, 8, kernel_size=3, padding=1, bias=False),
        layer.BatchNorm2d(8),
        htaf_snn.LIFNode(surrogate_function=FUNCTIONS[function](), **options),
        layer.MaxPool2d(2),
        layer.Conv2d(8, 4, kernel_size=1, bias=False),
        nn.Sequential(layer.BatchNorm2d(4)),
        htaf_snn.IFNode(surrogate_function=FUNCTIONS[function](), **options),
    )
    functional.set_step_mode(net, "m")
    return net


def twins(function: str = "soft") -> tuple[nn.Sequential, nn.Sequential, Tensor]:
    net = small(function)
    fused_net = copy.deepcopy(net)
    average_norms(net)
    assert fuse_norms(fused_net) == {}
    return net, fused_net, torch.randn(3, 4, 3, 6, 6)


def assert_same(a: nn.Module, b: nn.Module, x: Tensor, **tolerance: Any) -> None:
    for wanted, got in zip(seen_of(a, x), seen_of(b, x), strict=True):
        torch.testing.assert_close(got, wanted, **({"rtol": 1e-4, "atol": 1e-5} | tolerance))


def test_nothing_between_norm_and_neuron_is_kept() -> None:
    net, fused_net, x = twins()
    kept = []
    for module in (net, fused_net):
        storages: dict[int, Tensor] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: storages.setdefault(t.untyped_storage().data_ptr(), t),
            lambda t: t,
        ):
            module(x)
        kept.append(sum(t.untyped_storage().nbytes() for t in storages.values()))
    assert kept[1] < 0.8 * kept[0]


def test_names_parameters_and_saved_weights_stay(tmp_path: Path, fused: list[int]) -> None:
    net, fused_net, x = twins()
    assert list(dict(fused_net.named_modules())) == list(dict(net.named_modules()))
    assert isinstance(fused_net[1], layer.BatchNorm2d) and repr(fused_net) == repr(net)
    seen_of(fused_net, x)
    torch.save(fused_net.state_dict(), tmp_path / "weights.pt")
    net.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert_same(net.train(), fused_net.train(), x)
    for copy_of in (copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))):
        del fused[:]
        copied = copy_of(fused_net)
        assert_same(copied.train(), fused_net.train(), x, rtol=0, atol=0)
        assert len(fused) == 2 * 2 * 3
    plain: Any = htaf_snn.revert(fused_net)
    assert type(plain[1]) is layer.BatchNorm2d and type(plain[2]) is neuron.LIFNode


@pytest.mark.parametrize(
    "where", ["norm", "norm before", "neuron", "neuron before", "backward", "neuron backward"]
)
def test_hooks_see_the_truth(where: str, fused: list[int]) -> None:
    net, fused_net, x = twins()
    seen: list[list[Tensor]] = []
    for module in (net, fused_net):
        found: list[Tensor] = []
        hook = lambda _, i, o, found=found: found.append(o.clone())  # noqa: E731
        before = lambda _, i, found=found: found.append(i[0].clone())  # noqa: E731
        back = lambda _, gi, go, found=found: found.append(go[0].clone())  # noqa: E731
        {
            "norm": lambda m=module, h=hook: m[1].register_forward_hook(h),
            "norm before": lambda m=module, h=before: m[1].register_forward_pre_hook(h),
            "neuron": lambda m=module, h=hook: m[2].register_forward_hook(h),
            "neuron before": lambda m=module, h=before: m[2].register_forward_pre_hook(h),
            "backward": lambda m=module, h=back: m[1].register_full_backward_hook(h),
            "neuron backward": lambda m=module, h=back: m[2].register_full_backward_hook(
                lambda _, gi, go: h(_, go, gi)
            ),
        }[where]()
        seen_of(module, x)
        seen.append(found)
    assert len(seen[0]) == len(seen[1]) > 0
    for a, b in zip(*seen, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)
    assert len(fused) == 3  # the pair that is watched is computed apart


def test_anybody_else_gets_the_numbers_and_the_norm_runs_once() -> None:
    net, fused_net, x = twins()
    a = net[1](net[0](x))
    norm: Any = fused_net[1]
    b = norm(fused_net[0](x))
    assert type(b) is Tensor
    assert b.shape == a.shape and b.dtype == a.dtype and b.requires_grad
    torch.testing.assert_close(b + 0, a)
    torch.testing.assert_close(torch.relu(b), torch.relu(a))
    torch.testing.assert_close(net[2](a), fused_net[2](b))
    assert int(norm.num_batches_tracked) == 1
    (b.sum() + b.square().sum()).backward()
    assert fused_net[0].weight.grad is not None


def test_a_branch_that_depends_on_an_attribute_is_followed_anew(fused: list[int]) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.adds, self.calls = layer.BatchNorm1d(3, step_mode="m"), False, [0]
            self.node, self.within = htaf_snn.LIFNode(step_mode="m"), Within()

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            spikes: Tensor = self.node(y)
            return spikes + y if self.adds or self.within.flag else spikes

    class Within(nn.Identity):
        flag = False

    block, x = Block(), torch.randn(4, 5, 3)
    plain = copy.deepcopy(block)
    assert fuse_norms(block) == {}
    for adds, count in ((False, 1), (True, 1), (False, 2)):
        for module in (plain, block):
            module.adds = adds
            functional.reset_net(module)
        torch.testing.assert_close(block(x), plain(x), rtol=1e-4, atol=1e-5)
        assert len(fused) == count
    for module in (plain, block):
        functional.reset_net(module)
        module.within.flag = True
    torch.testing.assert_close(block(x), plain(x), rtol=1e-4, atol=1e-5)
    assert len(fused) == 2
    for module in (plain, block):
        module.within.flag = False
        module.eval().train()
        functional.reset_net(module)
    torch.testing.assert_close(block(x), plain(x), rtol=1e-4, atol=1e-5)
    assert len(fused) == 3
    block.node = nn.Identity()  # type: ignore[assignment]
    plain.node = nn.Identity()  # type: ignore[assignment]
    torch.testing.assert_close(block(x), plain(x), rtol=1e-4, atol=1e-5)
    assert len(fused) == 3
    norm: Any = block.norm
    torch.testing.assert_close(norm.forward(x), plain.norm(x), rtol=1e-4, atol=1e-5)


class ConvNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = layer.SeqToANNContainer(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4)))

    def forward(self, x: Tensor) -> Any:
        if x.ndim != 5:
            raise ValueError(f"5 dimensions, not {x.shape}")
        return self.block(x)


class Viewed(nn.Module):
    """A norm and neurons, and between them what its ``way`` names."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.block, self.norm = way, ConvNorm(), nn.BatchNorm2d(4)
        self.conv, self.node = nn.Conv2d(3, 4, 3), htaf_snn.LIFNode(step_mode="m")
        self.other = htaf_snn.LIFNode(step_mode="m")

    def forward(self, x: Tensor) -> Any:
        if self.way == "nested":
            return self.node(self.block(x))
        T, N = x.shape[:2]
        y = self.norm(self.conv(x.flatten(0, 1)))
        if self.way == "unflatten":
            return self.node(y.unflatten(0, (T, N)))
        if self.way == "reshape":
            return self.node(y.reshape(T, N, 4, 4, 4).contiguous())
        if self.way == "two readers":
            return self.node(y.unflatten(0, (T, N))) + y.unflatten(0, (T, N))
        if self.way == "in place":
            return self.node(y.unflatten(0, (T, N)).add_(1))
        if self.way == "branch":
            return (self.node if x.shape[-1] > 6 else self.other)(y.unflatten(0, (T, N)))
        if self.way == "channels":
            return self.node(y.view(T, N, 2, 2, -1))
        return self.node(y.transpose(2, 3).unflatten(0, (T, N)))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("way", "count"),
    [("nested", 3), ("unflatten", 3), ("reshape", 3), ("channels", 0), ("two readers", 0),
     ("in place", 0), ("branch", 0), ("transpose", 0)],
)  # fmt: skip
def test_views_between_norm_and_neurons(way: str, count: int, last: bool, fused: list[int]) -> None:
    torch.manual_seed(0)
    net, x = Viewed(way), torch.randn(3, 4, 3, 6, 6)
    plain = copy.deepcopy(net)
    average_norms(plain)
    fuse_norms(net)
    if last:
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (3, 4))
        if way == "channels":
            return  # torch can't view it so
        count = 0 if way == "reshape" else count  # which copies
    assert_same(plain, net, x)
    assert len(fused) == count
    for copy_of in (copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))):
        del fused[:]
        copied = copy_of(net).train()
        assert_same(copied, net.train(), x, rtol=0, atol=0)
        assert len(fused) == 2 * count
    net.train().block.eval()  # it might put out something else now than when it was followed
    del fused[:]
    assert net(x).shape[:2] == (3, 4)
    assert len(fused) == (way in ("unflatten", "reshape") and count > 0)


@pytest.mark.parametrize("place", ["block", "block.block", "block.block.1"])
def test_a_hook_on_a_module_between_sees_the_truth(place: str, fused: list[int]) -> None:
    net, x, seen = Viewed("nested"), torch.randn(3, 4, 3, 6, 6), []
    plain = copy.deepcopy(net)
    average_norms(plain)
    fuse_norms(net)
    for module in (plain, net):
        module.get_submodule(place).register_forward_hook(lambda _, i, o: seen.append(o.clone()))
        module(x)
    assert torch.equal(seen[1], seen[0]) and not fused


def test_a_function_of_autograds_gets_the_numbers_and_their_gradient() -> None:
    class Mine(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * 2

    seen = []
    *nets, x = twins()
    for net in nets:
        y = Mine.apply(net[1](net[0](x)))
        y.square().sum().backward()
        seen.append([y, *(p.grad for p in net[:2].parameters())])
    for a, b in zip(*seen, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)


def test_train_and_eval_in_turn_and_a_frozen_norm() -> None:
    net, fused_net, x = twins()
    for training, frozen in itertools.product((True, False, True), (False, True)):
        for module in (net, fused_net):
            module.train(training)
            for own in filter(lambda m: isinstance(m, _BatchNorm), module.modules()):
                own.train(training and not frozen)
            functional.reset_net(module)
        torch.testing.assert_close(fused_net(x), net(x), rtol=1e-4, atol=1e-5)
    for a, b in zip(net.buffers(), fused_net.buffers(), strict=True):
        torch.testing.assert_close(b, a)


def test_checkpointing_and_compile_equal_eager() -> None:
    net, fused_net, x = twins()
    compiled: Any = torch.compile(copy.deepcopy(fused_net), fullgraph=True, backend="aot_eager")
    assert_same(copy.deepcopy(fused_net), compiled, x)

    class Checkpointed(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Any:
            def run(x: Tensor) -> Any:
                functional.reset_net(self.net)
                return self.net(x)

            return checkpoint(run, x, use_reentrant=False) if self.training else run(x)

    seen = [seen_of(Checkpointed(module), x) for module in (net, fused_net)]
    for a, b in zip(*seen, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


def test_a_norm_outside_of_what_is_recomputed() -> None:
    seen = []
    for net in twins()[:2]:
        x = torch.linspace(-2, 2, 3 * 4 * 3 * 36).view(3, 4, 3, 6, 6)
        before, after = checkpoint_module(net[:2]), checkpoint_module(net[2:])
        after(before(x)).square().sum().backward()
        seen.append([*(p.grad for p in net.parameters()), *net.buffers()])
    for a, b in zip(*seen, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


def test_one_number_a_channel_is_refused_as_torch_does() -> None:
    net = nn.Sequential(layer.BatchNorm1d(4), htaf_snn.LIFNode())
    functional.set_step_mode(net, "m")
    fuse_norms(net)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        net(torch.randn(1, 1, 4))
    with pytest.raises(ValueError, match=r"expected|but got"):
        net(torch.randn(3, 2, 4, 4, 4))


OPTIONS: dict[str, Any] = {
    "spiking_neuron": neuron.LIFNode, "surrogate_function": surrogate.ATan(), "detach_reset": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("make", "pairs", "norms"),
    [
        (lambda: spiking_vgg.spiking_vgg11_bn(**OPTIONS), 8, 8),
        (lambda: spiking_resnet.spiking_resnet18(**OPTIONS), 9, 20),
        (lambda: sew_resnet.sew_resnet18(cnf="ADD", **OPTIONS), 20, 20),
        (lambda: ms_resnet.ms_resnet18(**OPTIONS), 8, 21),
        (lambda: parametric_lif_net.DVSGestureNet(channels=8, **OPTIONS), 5, 5),
        (lambda: parametric_lif_net.CIFAR10Net(channels=8, **OPTIONS), 6, 6),
    ],
    ids=["vgg", "resnet", "sew", "ms", "dvs gesture", "cifar10"],
)
def test_pairs_of_spikingjellys_networks(
    make: Callable[[], nn.Module], pairs: int, norms: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        net = htaf_snn.convert(make(), fuse_norm=True)
    found = [m for m in net.modules() if isinstance(m, _BatchNorm)]
    assert (sum(isinstance(m, DeferredNorm) for m in found), len(found)) == (pairs, norms)
    assert ("add reads its output" in caplog.text) == (pairs < norms)
    htaf_snn.revert(net)
    assert not any(isinstance(m, DeferredNorm) for m in net.modules())


def test_what_is_not_certain_stays() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.node = layer.BatchNorm2d(3), htaf_snn.LIFNode()
            self.twice, self.other = layer.BatchNorm2d(3), neuron.IFNode()
            self.shared = nn.Sequential(layer.BatchNorm2d(3), htaf_snn.LIFNode())
            self.again = nn.Sequential(self.shared[0], htaf_snn.LIFNode())

        def forward(self, x: Tensor) -> Any:
            y = self.norm(x)
            return self.node(y) + y + self.other(self.twice(x)) + self.again(self.shared(x))

    assert fuse_norms(Branching()) == {
        "norm": "2 others read its output",
        "twice": "IFNode reads its output",
        "shared.0": "it stands in several places",
    }

    class Branched(Branching):
        def forward(self, x: Tensor) -> Any:
            return self.norm(x) if float(x.sum()) > 0 else x

    left = fuse_norms(Branched())
    assert left["norm"].startswith("the forward of Branched can't be followed: ")


def run_ddp(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    net, x = synchronised()
    net(x[:, rank::2]).square().sum().backward()
    for parameter in net.parameters():  # DDP itself refuses SyncBatchNorm on the CPU
        assert parameter.grad is not None
        torch.distributed.all_reduce(parameter.grad)
    if rank == 0:
        torch.save([*(p.grad for p in net.parameters()), *net.buffers()], f"{folder}/got.pt")
    torch.distributed.destroy_process_group()


def synchronised() -> tuple[nn.Module, Tensor]:
    from htaf_snn.training.gpu import MultiStepSyncBatchNorm

    torch.manual_seed(0)
    net = small("soft").double()
    fuse_norms(net)
    return MultiStepSyncBatchNorm().apply(net), torch.randn(3, 4, 3, 6, 6).double()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    pytest.importorskip("lightning")  # the core alone has no SyncBatchNorm
    spawn(run_ddp, (str(tmp_path),), nprocs=2)
    got = torch.load(tmp_path / "got.pt", weights_only=True)
    net, x = synchronised()
    net(x).square().sum().backward()
    nodes: Any = [m for m in net.modules() if isinstance(m, htaf_snn.LIFNode)]
    assert nodes and all(node._resolved.normed is not None for node in nodes)
    wanted = [*(p.grad for p in net.parameters()), *net.buffers()]
    for a, b in zip(wanted, got, strict=True):
        torch.testing.assert_close(b, a)


def test_norms_before_neurons_of_ones_own_are_reverted() -> None:
    class Own(htaf_snn.Neuron):
        def step(self, x: Tensor, v: Tensor) -> Any:
            h = v + x
            spike = self.surrogate_function(h - self.v_threshold)
            return spike, h - spike

    net = nn.Sequential(layer.BatchNorm1d(3), Own())
    assert fuse_norms(net) == {} and isinstance(net[0], DeferredNorm)
    assert type(htaf_snn.revert(net)[0]) is layer.BatchNorm1d  # type: ignore[index]
    with pytest.raises(ValueError, match="no neuron of htaf_snn's to revert"):
        htaf_snn.revert(net)
