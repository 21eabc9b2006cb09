"""Switching a network between its smooth and its exact form; sharpness schedules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron, surrogate
from torch import nn

from htaf_snn import HTAFSpike, ScaledSigmoid, spike_function
from htaf_snn.transfer import (
    SharpnessSchedule,
    firing_as_trained,
    firing_hard,
    harden,
    unit_gradients,
)


@pytest.mark.parametrize(
    ("spec", "soft"),
    [("htaf", True), ("htaf:mode=soft", True), ("htaf:mode=hard", False), ("atan", False),
     ("sigmoid:spiking=false", True)],
)  # fmt: skip
def test_forms(spec: str, soft: bool) -> None:
    function = spike_function(spec)
    net = nn.Sequential(function).eval()
    x = torch.tensor([0.3, -0.3])
    before = repr(function)
    with firing_hard(net):
        assert net(x).tolist() == [1, 0]
    with firing_as_trained(net):
        assert (net(x).tolist() != [1, 0]) is soft
    assert repr(function) == before


def test_the_form_is_restored_after_an_error() -> None:
    net = nn.Sequential(HTAFSpike(), surrogate.ATan(spiking=False))
    with pytest.raises(RuntimeError, match="no"), firing_hard(net):
        raise RuntimeError("no")
    assert net[0].mode == "auto"
    assert not net[1].spiking


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


def test_parameters_end_where_the_hardening_does() -> None:
    net = network(mode="soft")
    schedule = SharpnessSchedule(net, 10, "linear", hardening=(0.2, 0.5), alpha0=(1.0, 2.0))
    expected = [1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.0, 2.0]  # by fifths, to half of the ten steps
    assert course(net, schedule, 8) == pytest.approx(expected)


def modes(net: Any, schedule: SharpnessSchedule, steps: int) -> list[tuple[str, str, float]]:
    found = []
    for _ in range(steps):
        first, second = (layer.surrogate_function for layer in net[:2])
        found.append((first.mode, second.mode, first.hardness))
        assert second.hardness == first.hardness
        schedule.step()
    return found


def test_hardening_of_what_trains_smooth() -> None:
    net = network(mode="soft")
    schedule = SharpnessSchedule(net, 8, hardening=(0.25, 0.75))
    soft = [("soft", "auto", hardness) for hardness in (0, 0, 0, 0.25, 0.5, 0.75)]
    assert modes(net, schedule, 8) == soft + [("hard", "hard", 1.0)] * 2
    assert net[2].surrogate_function.spiking and not hasattr(net[2], "hardness")


def test_with_the_true_gradient_it_stays_smooth() -> None:
    net = network(mode="soft")
    schedule = SharpnessSchedule(net, 4, hardening=(0.0, 0.5), true_gradient=True)
    assert modes(net, schedule, 5) == [("soft", "auto", h) for h in (0.0, 0.49, 0.98, 0.98, 0.98)]
    assert all(layer.surrogate_function.true_gradient for layer in net[:2])
    assert schedule.has_handed_over(2) and not schedule.has_handed_over(1)
    SharpnessSchedule(net, 4, hardening=(0.5, 0.5), true_gradient=True).set(2)
    assert net[0].surrogate_function.hardness == 0.98


def test_hand_over_at_once() -> None:
    net = network(mode="soft")
    schedule = SharpnessSchedule(net, 10, hardening=(0.6, 0.6), alpha0=(1.0, 4.0))
    assert modes(net, schedule, 10) == [("soft", "auto", 0)] * 6 + [("hard", "hard", 0)] * 4
    assert net[0].surrogate_function.alpha0 == pytest.approx(4.0)  # reached at the hand-over

    again = network(mode="soft")
    other = SharpnessSchedule(again, 1, hardening=(0.6, 0.6), alpha0=(1.0, 4.0))
    schedule.set(3)
    other.load_state_dict(schedule.state_dict())
    for a, b in zip(net, again, strict=True):
        assert repr(a.surrogate_function) == repr(b.surrogate_function)


def test_hard_throughout() -> None:
    net = network()
    SharpnessSchedule(net, 10, hardening=(0.0, 0.0))
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
        ({"shape": "step"}, "unknown shape 'step'; the known ones are linear, cosine, geometric"),
        ({"hardening": (0.5, 1.5)}, r"`hardening` \(=\(0.5, 1.5\)\) must be its begin and its end"),
        ({"hardening": (0.5, 0.4)}, r"`hardening` \(=\(0.5, 0.4\)\) must be its begin and its end"),
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


def test_gradients_become_of_unit_length_however_short() -> None:
    grads = [None, [0.0, 0.0], [3e-30, -4e-30], [3e30, 4e30]]
    parameters = [nn.Parameter(torch.zeros(2)) for _ in grads]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = None if grad is None else torch.tensor(grad)
    unit_gradients(parameters)
    absent, zero, *others = [p.grad for p in parameters]
    assert absent is None and zero is not None and zero.tolist() == [0, 0]
    for found, wanted in zip(others, ([0.6, -0.8], [0.6, 0.8]), strict=True):
        torch.testing.assert_close(found, torch.tensor(wanted))
