"""Old SpikingJelly code on ours: its own numbers, names, arguments, checkpoints and command."""

from __future__ import annotations

import copy
import importlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import spikingjelly
import torch

import htaf_snn
from tests.compat import cases

HERE = Path(__file__).parent
OLD: dict[str, dict[str, Any]] = json.loads((HERE / "old.json").read_text())
RELEASES = ("12", "14")
PAGE = HERE.parents[1] / "docs/coming_from.md"


@pytest.fixture(scope="module", autouse=True)
def compat() -> Iterator[Any]:
    modules = [importlib.import_module(f"spikingjelly.activation_based.{n}") for n in cases.MODULES]
    before = [(module, dict(vars(module))) for module in (spikingjelly, *modules)]
    found = importlib.import_module("htaf_snn.compat")
    found.install()
    yield found
    for module, names in before:
        vars(module).clear()
        vars(module).update(names)
    ours = ("spikingjelly.clock_driven", "spikingjelly.cext", "tests.compat.networks_")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        del sys.modules[name]


def close(made: list[float], old: list[float]) -> bool:
    ours, theirs = torch.tensor(made), torch.tensor(old)
    theirs = torch.where(theirs.isnan(), ours, theirs)  # a fault that SpikingJelly 2 mended
    return len(made) == len(old) and torch.allclose(ours, theirs, rtol=1e-4, atol=4e-5)


@pytest.mark.parametrize("title", list(cases.CASES))
@pytest.mark.parametrize("release", RELEASES)
def test_the_old_packages_own_numbers(
    release: str, title: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if title == "nodes":  # the networks run on kernels
        monkeypatch.setattr(cases, "BACKEND", ["torch"])
    old = OLD[release][title]
    made = {name: case() for name, case in cases.CASES[title](release) if name in old}
    assert made.keys() == old.keys()
    assert {name: made[name] for name in old if not close(made[name], old[name])} == {}


@pytest.mark.parametrize("release", RELEASES)
def test_every_old_name_is_there_or_raises(release: str, compat: Any) -> None:
    gone = {name for names in compat.GONE.values() for name in names}
    for module, names in OLD[release]["names"].items():
        found = cases.module(release, module)
        absent = [name for name in names if not hasattr(found, name)]
        assert absent == [], module
        for name in gone.intersection(names):
            with pytest.raises(NotImplementedError, match=f"{name} has no counterpart"):
                getattr(found, name)(1.0)


@pytest.mark.parametrize("release", RELEASES)
def test_arguments_by_position(release: str) -> None:
    neuron = cases.module(release, "neuron")
    told_by_type = {"backend", "step_mode", "store_v_seq", "lava_s_cale", "cupy_fp32_inference"}
    for name, old in OLD[release]["signatures"].items():
        own = getattr(neuron, name).arguments
        assert own == tuple(old[: len(own)]) and told_by_type.issuperset(old[len(own) :]), name
    if release == "14":
        node = neuron.LIFNode(3.0, False, 0.5, None, None, True, "m", "cupy", True)
        assert (node.step_mode, node.store_v_seq, node.backend) == ("m", True, "auto")
    else:
        node = neuron.MultiStepLIFNode(3.0, False, 0.5, None, None, True, "torch", 64)
        assert not neuron.LIFNode(3.0, False, 0.5, None, None, True, True).store_v_seq
    assert (node.tau, node.decay_input, node.v_threshold, node.v_reset) == (3.0, False, 0.5, None)
    with pytest.raises(TypeError, match="must be a bool"):
        neuron.LIFNode(2.0, 0.5, 0.0)
    with pytest.raises(NotImplementedError, match="'lava' has no counterpart"):
        neuron.IFNode(backend="lava")


@pytest.mark.parametrize("release", RELEASES)
def test_every_neuron_is_an_instance_of_the_base(release: str) -> None:
    neuron = cases.module(release, "neuron")
    new = cases.module("14", "neuron")
    nodes = [htaf_snn.LIFNode(), neuron.IFNode(), new.SimpleLIFNode(2.0, True), new.KLIFNode()]
    assert all(isinstance(node, neuron.BaseNode) for node in nodes)
    assert [isinstance(node, neuron.LIFNode) for node in nodes] == [True, False, False, False]
    assert not isinstance(torch.nn.ReLU(), neuron.BaseNode)
    assert issubclass(new.IzhikevichNode, neuron.BaseNode)


def test_a_copy_a_pickle_a_reset_and_a_way_back() -> None:
    neuron, functional = cases.module("12", "neuron"), cases.module("12", "functional")
    node: Any = neuron.MultiStepLIFNode(v_threshold=0.5, detach_reset=True, backend="cupy")
    twins = [node, copy.deepcopy(node), pickle.loads(pickle.dumps(node))]
    x = cases.wave(3, 2, 4)
    spikes = [twin(x) for twin in twins]
    assert spikes[0].any() and all(s.equal(spikes[0]) for s in spikes)
    assert node.v_seq.shape == x.shape
    node.v_threshold = 5.0
    functional.reset_net(node)
    assert (node.v, node.v_threshold) == (0.0, 0.5)
    htaf_snn.revert(node)
    assert type(node).__module__.startswith("spikingjelly.") and node(x).equal(spikes[0])


def test_parts_of_a_step_are_fused_where_they_can_be() -> None:
    networks = importlib.import_module("tests.compat.networks_12")
    charged, own = networks.OwnCharge(v_threshold=0.4), networks.OwnNode(step_mode="m")

    class Counting(networks.OwnNode):  # type: ignore[name-defined]
        def neuronal_charge(self, x: torch.Tensor) -> None:
            self.seen = getattr(self, "seen", 0) + 1
            super().neuronal_charge(x)

    counting = Counting(step_mode="m")
    x = cases.wave(4, 2, 3)
    nodes: Any = ((charged, None), (own, None), (counting, "changes attributes"))
    for node, reason in nodes:
        spikes = node(x)
        why = htaf_snn.neurons.host.why_not(node)
        assert why is reason is None or (reason and reason in str(why))
        htaf_snn.convert(node, backend="torch")
        node.reset()
        assert node(x).equal(spikes)
    assert counting.seen == 8


def test_old_checkpoints(compat: Any) -> None:
    layer, neuron = cases.module("12", "layer"), cases.module("12", "neuron")
    conv = torch.nn.Conv2d(2, 3, 1)
    net = torch.nn.Sequential(
        layer.SeqToANNContainer(conv), layer.SeqToANNContainer(torch.nn.Conv2d(3, 3, 1),
        torch.nn.BatchNorm2d(3)), neuron.MultiStepParametricLIFNode(),
    )  # fmt: skip
    state = net.state_dict()
    old = {key.replace("0.0.", "0.module.").replace("1.", "1.module.", 1): value
           for key, value in state.items()}  # fmt: skip
    old["2.w"] = old["2.w"].reshape(1)  # as of 2020
    fresh = copy.deepcopy(net)
    for parameter in fresh.parameters():
        torch.nn.init.zeros_(parameter)
    fresh.load_state_dict(old)
    assert all(fresh.state_dict()[key].equal(value) for key, value in state.items())
    assert net[0].module is conv


def test_surrogates_of_old_code(compat: Any) -> None:
    surrogate = cases.module("12", "surrogate")
    steep = importlib.import_module("tests.compat.networks_14").Steep(3.0)
    assert isinstance(surrogate.ATan(), surrogate.SurrogateFunctionBase)
    assert (steep.alpha, steep.spiking) == (3.0, True)
    steep.set_spiking_mode(False)
    assert steep(torch.zeros(1)).item() == 0.5
    with pytest.raises(NotImplementedError, match="learnable=True"):
        surrogate.ATan(learnable=True)


def test_the_first_extension() -> None:
    cext = importlib.import_module("spikingjelly.cext.neuron")
    node = cext.MultiStepLIFNode(10.0, 0.5, 0.0, "Sigmoid", 3.0, True)
    assert (node.tau, node.v_threshold, node.surrogate_function.alpha) == (10.0, 0.5, 3.0)
    assert cext.LIFNode().tau == 100.0 and type(cext.IFNode().surrogate_function).__name__ == "ATan"
    with pytest.raises(NotImplementedError, match="detach_input"):
        cext.MultiStepParametricLIFNode(detach_input=True)


def test_set_backend() -> None:
    functional, neuron = cases.module("14", "functional"), cases.module("14", "neuron")
    net: Any = torch.nn.Sequential(neuron.IFNode(), torch.nn.ReLU(), neuron.LIFNode())
    functional.set_backend(net, "torch", instance=neuron.LIFNode)
    assert (net[0].backend, net[2].backend) == ("auto", "torch")
    functional.set_backend(net, "cupy")
    assert net[2].backend == "auto"


def test_the_command(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torch, beside\n"
        "from spikingjelly.clock_driven.neuron import MultiStepIFNode\n"
        "node = MultiStepIFNode(surrogate_function=torch.relu, backend='cupy')\n"
        "print(__name__, sys.argv[1:], type(node).__name__, node.backend, beside.x)\n"
    )
    (tmp_path / "beside.py").write_text("x = 3\n")
    done = subprocess.run(
        [sys.executable, "-m", "htaf_snn.compat", str(script), "--epochs", "2"],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )  # fmt: skip
    assert done.stdout == "__main__ ['--epochs', '2'] MultiStepIFNode auto 3\n"


def test_the_table_in_the_docs(compat: Any) -> None:
    """Write it anew with ``python -m tests.compat.test_compat``."""
    assert page(compat) == PAGE.read_text()


def page(compat: Any) -> str:
    """The page with a table of what old names become, by module."""
    rows = [
        "| old module | the same | on our nodes, or as they were | raises; use instead |",
        "|---|---|---|---|",
    ]
    for release in RELEASES:
        for name, old in OLD[release]["names"].items():
            gone, own = compat.GONE.get(name, {}), compat.SHARED.get(name, {})
            if release == "12":
                own = own | compat.CLOCK_DRIVEN_ALONE.get(name, {})
            kept = [f"`{one}`" for one in old if one not in own and one not in gone]
            ours = [f"`{one}`" for one in old if one in own]
            left = [f"`{one}`" + f": `{gone[one]}`" * bool(gone[one]) for one in old if one in gone]
            module = f"`{cases.OLD[release].rpartition('.')[2]}.{name}`"
            rows.append("| " + " | ".join([module, *map(", ".join, (kept, ours, left))]) + " |")
    before, rest = PAGE.read_text().split("<!-- old names -->\n")
    after = rest.split("<!-- end old names -->")[1]
    return "\n".join([f"{before}<!-- old names -->", *rows, f"<!-- end old names -->{after}"])


if __name__ == "__main__":
    PAGE.write_text(page(importlib.import_module("htaf_snn.compat")))
