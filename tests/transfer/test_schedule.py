"""Sharpness schedules and the hand-over to exact firing."""

from __future__ import annotations

from typing import Any

import pytest
from spikingjelly.activation_based import neuron, surrogate
from torch import nn

from htaf_snn import HTAFSpike, ScaledSigmoid
from htaf_snn.transfer import SharpnessSchedule, harden


def network(**options: Any) -> Any:
    return nn.Sequential(
        neuron.LIFNode(surrogate_function=HTAFSpike(**options)),
        neuron.LIFNode(surrogate_function=ScaledSigmoid(beta=3.0)),
        neuron.IFNode(surrogate_function=surrogate.ATan()),
    )


def course(net: Any, schedule: SharpnessSchedule, steps: int) -> list[float]:
    values = []
    for _ in range(steps):
        values.append(net[0].surrogate_function.alpha0)
        schedule.step()
    return values


@pytest.mark.parametrize(
    ("shape", "expected"),
    [("linear", [1, 2, 3, 4, 5, 5]), ("geometric", [1, 5**0.25, 5**0.5, 5**0.75, 5, 5]),
     ("cosine", [1, 3 - 2**0.5, 3, 3 + 2**0.5, 5, 5])],
)  # fmt: skip
def test_shapes(shape: Any, expected: list[float]) -> None:
    net = network()
    schedule = SharpnessSchedule(net, 4, shape, alpha0=(1.0, 5.0))
    assert course(net, schedule, 6) == pytest.approx(expected)
    assert net[0].surrogate_function.alpha1 == 6 and net[1].surrogate_function.beta == 3


def test_hand_over_of_what_trains_smooth() -> None:
    net = network(mode="soft")
    schedule = SharpnessSchedule(net, 10, hard_share=0.4, alpha0=(1.0, 4.0))
    modes = []
    for _ in range(10):
        modes.append((net[0].surrogate_function.mode, net[1].surrogate_function.mode))
        schedule.step()
    assert modes == [("soft", "auto")] * 6 + [("hard", "hard")] * 4
    assert net[0].surrogate_function.alpha0 == pytest.approx(4.0)  # reached at the hand-over
    assert net[2].surrogate_function.spiking

    again = network(mode="soft")
    other = SharpnessSchedule(again, 10, hard_share=0.4, alpha0=(1.0, 4.0))
    schedule.set(3)
    other.load_state_dict(schedule.state_dict())
    for a, b in zip(net, again, strict=True):
        assert repr(a.surrogate_function) == repr(b.surrogate_function)


def test_hard_throughout() -> None:
    net = network()
    SharpnessSchedule(net, 10, hard_share=1.0)
    assert net[0].surrogate_function.mode == "hard"


def test_harden() -> None:
    net = network()
    net[2].surrogate_function.set_spiking_mode(False)
    harden(net)
    assert [layer.surrogate_function.spiking for layer in net.train()] == [True] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total_steps": 0}, r"`total_steps` \(=0\) must be at least 1"),
        ({"shape": "step"}, r"`shape` \(='step'\) must be one of linear, cosine, geometric"),
        ({"hard_share": 1.5}, r"`hard_share` \(=1.5\) must lie in \[0, 1\]"),
        ({"alpha2": (1.0, 2.0)}, "no spike function of the network has a parameter 'alpha2'"),
        ({"alpha0": (0.0, 2.0)}, r"`alpha0` \(=\(0.0, 2.0\)\) must be its start and its end, both"),
        ({"alpha0": (1.0,)}, r"`alpha0` \(=\(1.0,\)\) must be its start and its end"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SharpnessSchedule(network(), **{"total_steps": 3, **options})


def test_learned_parameters_are_not_scheduled() -> None:
    with pytest.raises(ValueError, match="`alpha0` is learned; leave it out"):
        SharpnessSchedule(network(learnable=True), 3, alpha0=(1.0, 2.0))
