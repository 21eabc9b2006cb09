"""The fused CPU kernels against the reference: every function, neuron, dtype, layout and shape."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor

import htaf_snn
from htaf_snn import HTAFSpike, ScaledSigmoid, StraightThrough, spike_function, spike_function_names
from htaf_snn.neurons import Backend
from htaf_snn.neurons.kernels import compiler, cpu
from htaf_snn.surrogates.spike_function import say_once

NEURONS: dict[str, Any] = {
    "if": lambda **k: htaf_snn.IFNode(**k),
    "lif": lambda **k: htaf_snn.LIFNode(tau=1.7, **k),
    "lif undecayed": lambda **k: htaf_snn.LIFNode(tau=3.0, decay_input=False, **k),
    "plif": lambda **k: htaf_snn.ParametricLIFNode(init_tau=2.5, **k),
    "plif undecayed": lambda **k: htaf_snn.ParametricLIFNode(init_tau=2.5, decay_input=False, **k),
}


def hardened(function: Any, hardness: float = 0.4, true_gradient: bool = False) -> Any:
    function.hardness, function.true_gradient = hardness, true_gradient
    return function


def resets_to(function: Any) -> float | None:
    """The potential after a spike: integer spikes are subtracted."""
    return None if getattr(function, "levels", 1) > 1 else 0.0


FUNCTIONS: dict[str, Any] = {
    "htaf soft": lambda: HTAFSpike(mode="soft"),
    "htaf hardened": lambda: hardened(HTAFSpike(mode="soft")),
    "htaf hardened, true gradient": lambda: hardened(HTAFSpike(mode="soft"), 0.9, True),
    "htaf hardened, learnable": lambda: hardened(HTAFSpike(mode="soft", learnable=True)),
    "htaf hard": lambda: HTAFSpike(mode="hard"),
    "htaf step": lambda: HTAFSpike().eval(),
    "htaf learnable": lambda: HTAFSpike(learnable=True),
    "htaf hard, a channel": lambda: HTAFSpike(mode="hard", learnable=True, num_channels=3),
    "scaled sigmoid, a channel": lambda: ScaledSigmoid(learnable=True, num_channels=3),
    "straight-through": StraightThrough,
    "atan": surrogate.ATan,
}
TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 1e-5,
    torch.bfloat16: 2**-7,
    torch.float16: 2**-10,
}


@pytest.fixture(scope="module", autouse=True)
def _flags_of_users() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CXX", raising=False)
        compiler.find_compiler.cache_clear()
        cpu.kernel.cache_clear()
        yield
    compiler.find_compiler.cache_clear()
    cpu.kernel.cache_clear()


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A sentinel: the kernel's calls in this test."""
    seen: list[str] = []
    run = cpu.CPUKernel.run
    monkeypatch.setattr(cpu.CPUKernel, "run", lambda k, n, *a: [seen.append(n), run(k, n, *a)][1])  # type: ignore[func-returns-value]
    yield seen


def observe(node: neuron.BaseNode, x_seq: Tensor, v0: Tensor) -> dict[str, Tensor]:
    """Outputs, states and every gradient of one pass from the state ``v0``."""
    node = node.to(x_seq.device)
    if x_seq.dtype == torch.float64:
        node = node.double()
    x_seq, v0 = x_seq.detach().requires_grad_(), v0.clone().requires_grad_()
    node.v = v0
    spike_seq = node(x_seq)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(spike_seq.shape, generator=generator).to(x_seq.device) for _ in "ab"]
    loss = (spike_seq.double() * weights[0]).sum() + (node.v.double() ** 2).sum()
    seen = {"spikes": spike_seq, "v": node.v}
    if node.store_v_seq:
        loss = loss + (node.v_seq.double() * weights[1]).sum()
        seen["v_seq"] = node.v_seq
    loss.backward()
    seen |= {"grad x": x_seq.grad, "grad v0": v0.grad}
    seen |= {f"grad {k}": p.grad for k, p in node.named_parameters() if p.grad is not None}
    return {name: tensor.cpu() for name, tensor in seen.items()}


def assert_backends_agree(
    make: Any, x_seq: Tensor, slack: float = 1.0, backend: Backend = "cpu"
) -> None:
    """That ``backend`` does what torch does on the CPU."""
    wide = torch.promote_types(x_seq.dtype, torch.float32)
    v0 = 0.3 * torch.randn(x_seq.shape[1:]).to(wide)
    expected = observe(make(backend="torch"), x_seq, v0)
    device = "cuda" if backend == "cupy" else "cpu"
    actual = observe(make(backend=backend), x_seq.to(device), v0.to(device))
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert actual[key].dtype == value.dtype and actual[key].shape == value.shape, key
        scale = value.detach().abs().max().item() if value.numel() else 0.0
        tolerance = TOLERANCE[
            torch.float32 if "v" in key and wide == torch.float32 else x_seq.dtype
        ]
        if "surrogate" in key or key == "grad w":
            tolerance = max(TOLERANCE[x_seq.dtype], 1e-5 if wide == torch.float32 else 0)
            scale = max(scale, 1e-2)  # a sum whose terms, of magnitude 0.1 to 1, may cancel
        torch.testing.assert_close(
            actual[key],
            value,
            rtol=0,
            atol=slack * tolerance * max(scale, 1e-3),
            msg=lambda m: f"{key}: {m}",
        )


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", NEURONS)
def test_equals_the_reference(name: str, function: str, calls: list[str]) -> None:
    cases = 0
    # Each pair of neuron and function has one of the six resets, all pairs together all of them:
    # a kernel takes a second to compile.
    first = list(NEURONS).index(name) + list(FUNCTIONS).index(function)
    resets = list(itertools.product((0.0, -0.2, None), (False, True)))
    v_reset, detach_reset = resets[first % 6]
    for store_v_seq, T in itertools.product((False, True), (1, 2, 5, 16, 33, 100)):
        if T > 16 and store_v_seq != detach_reset:  # the long ones are slow on the reference
            continue

        def make(**options: Any) -> neuron.BaseNode:
            return NEURONS[name](
                surrogate_function=FUNCTIONS[function](), v_threshold=0.7, v_reset=v_reset,
                detach_reset=detach_reset, store_v_seq=store_v_seq, step_mode="m", **options,
            )  # fmt: skip

        assert_backends_agree(make, torch.randn(T, 2, 3, 5, dtype=torch.float64))
        cases += 1
    assert calls.count("forward") == calls.count("backward") == cases


@pytest.mark.parametrize("dtype", list(TOLERANCE)[1:], ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_dtype(function: str, dtype: torch.dtype) -> None:
    name = list(NEURONS)[(list(FUNCTIONS).index(function) + list(TOLERANCE).index(dtype)) % 5]
    for T, N in itertools.product((1, 7), (1, 61, 4099)):

        def make(**options: Any) -> neuron.BaseNode:
            return NEURONS[name](surrogate_function=FUNCTIONS[function](), step_mode="m", **options)

        x_seq = torch.randn(T, N, 3)
        while (away := _nearest_threshold(make, x_seq.to(dtype))).any():
            x_seq[:, away] = torch.randn(T, int(away.sum()))
        assert_backends_agree(make, x_seq.to(dtype))


def _nearest_threshold(make: Any, x_seq: Tensor) -> Tensor:
    """Neurons whose charged potential comes within 1e-5 of the threshold: rounding decides."""
    node = make(backend="torch")
    v, close = torch.zeros(x_seq.shape[1:]), torch.zeros(x_seq.shape[1:], dtype=torch.bool)
    with torch.no_grad():
        for x in x_seq:
            h = node.charge(x.float(), v)
            close |= (h - node.v_threshold).abs() < 1e-5
            v = h * (h < node.v_threshold)
    return close & (make().surrogate_function.spiking is not False)


@pytest.mark.parametrize("name", spike_function_names())
def test_every_built_in_function(name: str, calls: list[str]) -> None:
    x_seq = torch.cat(
        [3 * torch.randn(4, 500), torch.linspace(-2, 2, 801).expand(4, -1)], 1
    ).double()
    for spiking in (True, False):
        if not spiking and name in ("fake_numerical_gradient", "super_spike"):
            continue  # SpikingJelly has no primitive of theirs

        def make(**options: Any) -> neuron.BaseNode:
            function = spike_function(name)
            function.set_spiking_mode(spiking)
            return htaf_snn.LIFNode(
                surrogate_function=function,
                step_mode="m",
                v_threshold=0.31,
                v_reset=resets_to(function),
                detach_reset=True,
                **options,
            )

        assert_backends_agree(make, x_seq)
    assert "backward" in calls


def test_what_is_not_elementwise_runs_on_torch_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Centred(htaf_snn.SpikeFunction):
        @staticmethod
        def primitive_function(x: Tensor) -> Tensor:
            return torch.sigmoid(x - x.mean())

    say_once.cache_clear()
    node = htaf_snn.LIFNode(surrogate_function=Centred(), step_mode="m")
    with caplog.at_level("INFO", logger="htaf_snn"):
        for _ in range(2):
            node(torch.randn(3, 4))
    (record,) = caplog.records
    assert re.fullmatch(
        "backend 'auto' runs 'torch' for LIFNode with Centred: (mean|sum) is not elementwise, or "
        r"not known in test_fused.py:\d+: return torch.sigmoid\(x - x.mean\(\)\)",
        record.message,
    )
    node.backend = "cpu"
    with pytest.raises(
        htaf_snn.BackendUnavailableError, match=r"(mean|sum) is not .*; use .*'torch'"
    ):
        node(torch.randn(3, 4))


LAYOUTS: dict[str, Any] = {
    "channels_last": lambda x: (
        x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, x.shape[:2])
    ),
    "sliced": lambda x: torch.stack([x, x], -1).flatten(-2)[..., ::2],
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "flipped strides": lambda x: x.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("function", ["htaf soft", "htaf hard, a channel"])
def test_layouts(layout: str, function: str) -> None:
    x_seq = LAYOUTS[layout](torch.randn(4, 2, 3, 5, 7, dtype=torch.float64))

    def make(**options: Any) -> neuron.BaseNode:
        return htaf_snn.LIFNode(
            surrogate_function=FUNCTIONS[function](), step_mode="m", store_v_seq=True, **options
        )

    assert_backends_agree(make, x_seq)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_state_of_any_layout_is_detached_in_place(layout: str) -> None:
    node = htaf_snn.LIFNode(surrogate_function=HTAFSpike(), step_mode="m", backend="cpu")
    node(LAYOUTS[layout](torch.randn(4, 2, 3, 5, 7)).requires_grad_())
    functional.detach_net(node)
    assert not node.v.requires_grad


def test_expanded_input() -> None:
    x_seq = torch.randn(1, 2, 3).expand(6, -1, -1)
    outputs = [
        htaf_snn.LIFNode(surrogate_function=HTAFSpike(), step_mode="m", backend=b)(x_seq)
        for b in ("torch", "cpu")
    ]
    torch.testing.assert_close(*outputs)


@given(
    T=st.integers(1, 40),
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    tau=st.floats(1.01, 50),
    v_threshold=st.floats(-1, 3),
    v_reset=st.none() | st.floats(-2, 2),
    detach_reset=st.booleans(),
    decay_input=st.booleans(),
    alphas=st.tuples(st.floats(0.05, 8), st.floats(0.2, 20)),
    mode=st.sampled_from(["soft", "hard"]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_neuron(
    T: int, shape: list[int], tau: float, v_threshold: float, v_reset: float | None,
    detach_reset: bool, decay_input: bool, alphas: tuple[float, float], mode: Any, seed: int,
) -> None:  # fmt: skip
    def make(**options: Any) -> neuron.BaseNode:
        return htaf_snn.LIFNode(
            tau, decay_input, v_threshold, v_reset, HTAFSpike(*alphas, mode=mode), detach_reset,
            step_mode="m", **options,
        )  # fmt: skip

    torch.manual_seed(seed)
    # Over many steps, steep functions amplify the rounding of the first.
    assert_backends_agree(make, 2 * torch.randn(T, *shape, dtype=torch.float64), slack=100)


def test_nan_and_infinity_behave_as_in_the_reference() -> None:
    x_seq = torch.randn(6, 40)
    x_seq[2, ::5] = torch.nan
    x_seq[2, 4::5] = torch.tensor(0x7FC00001, dtype=torch.int32).view(torch.float32)  # NaN too
    x_seq[1, 1] = 1e30
    x_seq[3, 2] = -1e30
    for mode in ("soft", "hard"):
        nodes = [
            htaf_snn.LIFNode(surrogate_function=HTAFSpike(mode=mode), step_mode="m", backend=b)
            for b in ("torch", "cpu")
        ]
        outputs = [node(x_seq) for node in nodes]
        assert outputs[1].isnan().any()
        torch.testing.assert_close(outputs[1], outputs[0], equal_nan=True)
        torch.testing.assert_close(nodes[1].v, nodes[0].v, equal_nan=True)


def test_gradients_of_parameters_do_not_depend_on_the_number_of_threads() -> None:
    x_seq = torch.randn(8, 5, 3, 4001)
    found = []
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        node = htaf_snn.ParametricLIFNode(
            surrogate_function=HTAFSpike(learnable=True, num_channels=3),
            step_mode="m",
            backend="cpu",
        )
        node(x_seq).sum().backward()
        found.append([p.grad for p in node.parameters()])
    torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
