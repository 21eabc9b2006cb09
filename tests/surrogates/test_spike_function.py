"""The spike function's contract: modes, parameters, and life as a module."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor

from htaf_snn import HTAF, HTAFSpike, ScaledSigmoid, SpikeFunction, StraightThrough
from htaf_snn.surrogates import functional as F
from htaf_snn.surrogates.spike_function import say_once

FUNCTIONS: list[Callable[..., SpikeFunction]] = [HTAFSpike, HTAF, ScaledSigmoid, StraightThrough]
X = torch.tensor([-2.0, -0.4, -0.0, 0.0, 1e-30, 0.4, 2.0])
STEP = [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def gradient(function: Callable[[Tensor], Tensor], x: Tensor = X) -> Tensor:
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(function(x).sum(), x)
    return grad


@pytest.mark.parametrize("make", FUNCTIONS)
class TestModes:
    def test_hard_is_the_step_with_the_primitives_derivative(
        self, make: Callable[..., SpikeFunction]
    ) -> None:
        function = make(mode="hard")
        for training in (True, False):
            function.train(training)
            assert function.spiking
            assert function(X).tolist() == STEP
            assert torch.equal(gradient(function), gradient(make(mode="soft")))

    def test_soft_is_smooth_in_eval_too(self, make: Callable[..., SpikeFunction]) -> None:
        function = make(mode="soft").eval()
        assert not function.spiking
        expected = function.primitive_function(X, **function.current_parameters())
        assert torch.equal(function(X), expected)

    def test_auto_is_soft_in_train_and_the_step_in_eval(
        self, make: Callable[..., SpikeFunction]
    ) -> None:
        function = make(mode="auto")
        assert torch.equal(function(X), make(mode="soft")(X))
        function.eval()
        assert function(X).tolist() == STEP
        assert (gradient(function) == 0).all()

    def test_hardness_mixes_in_the_step(self, make: Callable[..., SpikeFunction]) -> None:
        soft, function = make(mode="soft"), make(mode="soft")
        for hardness in (0.0, 0.25, 1.0):
            function.hardness = hardness
            mixed = (1 - hardness) * soft(X) + hardness * torch.tensor(STEP)
            torch.testing.assert_close(function(X), mixed.to(X.dtype))
            assert torch.equal(gradient(function), gradient(soft))
            function.true_gradient = True
            torch.testing.assert_close(function(X), mixed.to(X.dtype))
            torch.testing.assert_close(gradient(function), (1 - hardness) * gradient(soft))
            function.true_gradient = False
        with pytest.raises(ValueError, match=r"`hardness` \(=1.5\) must lie in \[0, 1\]"):
            function.hardness = 1.5

    def test_spiking_jelly_switches_it(self, make: Callable[..., SpikeFunction]) -> None:
        function = make()
        assert isinstance(function, SurrogateFunctionBase)
        function.set_spiking_mode(False)
        assert function.mode == "soft"
        function.set_spiking_mode(True)
        assert function.mode == "hard"

    def test_nan_stays_nan(self, make: Callable[..., SpikeFunction]) -> None:
        for mode in ("hard", "soft"):
            assert make(mode=mode)(torch.tensor([torch.nan, 1.0])).isnan().tolist() == [True, False]


@pytest.mark.parametrize("mode", ["soft", "hard", "auto"])
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_dtype_in_is_dtype_out(mode: str, dtype: torch.dtype) -> None:
    x = X.clone().to(dtype).requires_grad_()
    y = HTAFSpike(mode=mode)(x)  # type: ignore[arg-type]
    y.sum().backward()
    assert x.grad is not None and y.dtype == x.grad.dtype == dtype


def test_straight_through_passes_where_clip_says() -> None:
    x = torch.tensor([-1.01, -1.0, 0.0, 1.0, 1.01])
    assert gradient(StraightThrough(), x).tolist() == [0, 1, 1, 1, 0]


def test_sign_form_of_htaf() -> None:
    sign = HTAF(signed=True)
    assert torch.allclose(sign(X), 2 * HTAF()(X) - 1)
    assert sign.eval()(X).tolist() == [-1, -1, 1, 1, 1, 1, 1]


def test_repr_shows_the_parameters() -> None:
    assert repr(HTAFSpike(0.67, 6)) == "HTAFSpike(alpha0=0.67, alpha1=6.0, mode='auto')"
    assert "alpha0=0.67 (learnable, 4 channels)" in repr(HTAFSpike(learnable=True, num_channels=4))


@pytest.mark.parametrize("channels", [None, 3])
def test_learnable_parameters_get_gradients(channels: int | None) -> None:
    x = torch.randn(5, 3, 2, dtype=torch.float64)
    for mode in ("soft", "hard"):
        function = HTAFSpike(mode=mode, learnable=True, num_channels=channels).double()
        (function(x) * torch.arange(2.0)).sum().backward()
        for name in ("alpha0", "alpha1"):
            parameter = getattr(function, name)
            assert parameter.grad.shape == (() if channels is None else (3,))
            assert parameter.grad.abs().min() > 0


def test_a_learned_functions_own_state_dict_is_no_others(caplog: pytest.LogCaptureFixture) -> None:
    say_once.cache_clear()
    function = HTAFSpike(learnable=True)
    function.load_state_dict(function.state_dict())
    assert not caplog.records


@pytest.mark.parametrize("learnable", [False, True])
def test_state_dict_round_trips_the_sharpness(learnable: bool) -> None:
    source = HTAFSpike(0.75, 8, learnable=learnable)
    state = source.state_dict()
    assert {k: float(v) for k, v in state.items()} == {"alpha0": 0.75, "alpha1": 8}
    for target in (HTAFSpike(), HTAFSpike(learnable=True)):
        target.load_state_dict(state)
        assert torch.equal(target(X), HTAFSpike(0.75, 8)(X))
    with pytest.raises(RuntimeError, match="alpha1"):
        HTAFSpike().load_state_dict({"alpha0": torch.tensor(1.0)})
    with pytest.raises(RuntimeError, match="num_channels"):
        HTAFSpike().load_state_dict(HTAFSpike(learnable=True, num_channels=2).state_dict())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))])
def test_copies(clone: Callable[[SpikeFunction], SpikeFunction]) -> None:
    function = HTAFSpike(0.8, 7, mode="hard").eval()
    copied = clone(function)
    assert repr(copied) == repr(function)
    copied.set_parameters(alpha0=2.0)
    assert function.current_parameters()["alpha0"] == 0.8


@pytest.mark.parametrize("mode", ["soft", "hard", "auto"])
def test_compiles_whole(mode: str) -> None:
    function = HTAFSpike(mode=mode)  # type: ignore[arg-type]
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for training in (True, False):
        function.train(training)
        assert torch.equal(compiled(X), function(X))
        assert torch.allclose(gradient(compiled), gradient(function))


def test_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        y = HTAFSpike()(torch.nn.functional.linear(torch.ones(2, 3), torch.ones(1, 3)))
    assert y.dtype == torch.bfloat16


def test_functional_transforms() -> None:
    function = HTAFSpike(mode="hard")
    derivative = F.htaf_derivative(X, 0.67, 6)
    assert torch.allclose(torch.func.vmap(torch.func.grad(function))(X), derivative)
    made: Any = torch.func.jvp(function, (X,), (torch.full_like(X, 2.0),))
    spikes, tangents = made
    assert torch.equal(spikes, (X >= 0).to(X)) and torch.allclose(tangents, 2 * derivative)


def test_set_parameters() -> None:
    constant, learnable = HTAFSpike(), HTAFSpike(learnable=True)
    for function in (constant, learnable):
        function.set_parameters(alpha0=2.5)
        assert repr(function).count("alpha0=2.5")
        with pytest.raises(ValueError, match="no parameter 'alpha2'; it has alpha0, alpha1"):
            function.set_parameters(alpha0=3, alpha2=1.0)
        with pytest.raises(ValueError, match="alpha1"):
            function.set_parameters(alpha0=3, alpha1=-1.0)
        assert repr(function).count("alpha0=2.5")  # nothing changes by halves
    assert isinstance(learnable.alpha0, torch.nn.Parameter)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha0": 0.0}, r"`alpha0` \(=0.0\)"),
        ({"alpha1": float("nan")}, r"`alpha1` \(=nan\)"),
        ({"alpha1": float("inf")}, r"`alpha1` \(=inf\)"),
        ({"mode": "smooth"}, r"`mode` \(='smooth'\) must be one of auto, soft, hard"),
        ({"num_channels": 3}, "needs learnable=True"),
        ({"num_channels": 0, "learnable": True}, r"`num_channels` \(=0\)"),
    ],
)
def test_refuses(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HTAFSpike(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3,), (2, 4)])
def test_refuses_input_without_its_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="`alpha0` has 3 channels"):
        HTAFSpike(learnable=True, num_channels=3)(torch.zeros(shape))
