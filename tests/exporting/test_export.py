"""Exported networks fire as the network does, or are refused with the reason."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.surrogate import ATan
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import htaf_snn
from htaf_snn.exporting import Exported, Format
from htaf_snn.models import model

# Of onnx's exporter, which torch and we can't mend.
pytestmark = pytest.mark.filterwarnings("ignore:.*axis name.*:UserWarning")
SHAPE, CLASSES = (2, 12, 12), 4
LIVELY: dict[str, Any] = {"decay_input": False}


def network(
    name: str = "vgg_small", node: type[nn.Module] = htaf_snn.LIFNode, **kw: Any
) -> nn.Module:
    """Untrained, with batch norm whose statistics are those of the frames."""
    net = model(
        name, SHAPE, CLASSES, node, width=0.2, surrogate_function=htaf_snn.HTAFSpike(), **kw
    )
    htaf_snn.calibrate(net, frames())
    return net.eval()


def frames() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, n, *SHAPE, generator=generator) * 2 for n in (4, 3)]


def export(net: nn.Module, path: Path, format: Format, **kw: Any) -> Exported:
    made: Exported = htaf_snn.export(net, frames(), path, format, **kw)
    return made


def agrees(made: Exported) -> None:
    found = made.agreement
    assert found.samples == found.labels == 7
    assert found.spikes > 0.999 and found.neurons > 0.99 and found.logit_difference < 0.1
    assert made.synaptic_operations > 0 and made.energy_nj > 0
    assert all(file.stat().st_size for file in made.files)


def fires(net: nn.Module) -> None:
    functional.reset_net(net)
    rates = [m for m in net.modules() if isinstance(m, neuron.BaseNode)]
    outputs: list[Tensor] = []
    hooks = [m.register_forward_hook(lambda _m, _i, o: outputs.append(o)) for m in rates]
    with torch.no_grad():
        net(frames()[0])
    for hook in hooks:
        hook.remove()
    assert all(0.01 < float(o.mean()) < 0.99 for o in outputs[:2])


@pytest.mark.parametrize(
    ("name", "node", "options", "reader"),
    [
        ("vgg_small", htaf_snn.LIFNode, LIVELY, "snnTorch's importer"),  # batch norm and max pool
        ("vgg_small", htaf_snn.ParametricLIFNode, {"norm": "tdbn"}, "snnTorch's importer"),
        ("vgg_small", htaf_snn.LIFNode, {"v_reset": -0.1}, "SpikingJelly's importer"),
        ("vgg_small", htaf_snn.IFNode, {"dropout": 0.1}, "SpikingJelly's importer"),
        ("resnet18", htaf_snn.LIFNode, LIVELY, "snnTorch's importer"),  # sums
    ],
)
def test_nir(
    name: str, node: type[nn.Module], options: dict[str, Any], reader: str, tmp_path: Path
) -> None:
    net = network(name, node, **options)
    fires(net)
    made = export(net, tmp_path / "net.nir", "nir")
    agrees(made)
    assert made.reader == reader


@pytest.mark.parametrize("step", [False, True])
def test_onnx(step: bool, tmp_path: Path) -> None:
    import onnx

    made = export(network(**LIVELY), tmp_path / "net.onnx", "onnx", step=step)
    agrees(made)
    graph = onnx.load(made.files[0])
    outputs = [o.name for o in graph.graph.output]
    assert outputs[0] == ("logits" if step else "logits_seq") and len(outputs) == (4 if step else 1)
    rest = {p.key: p.value for p in graph.metadata_props}.get("rest")
    assert (rest is not None and set(json.loads(rest).values()) == {0.0}) == step


@pytest.mark.parametrize(
    ("name", "node"),
    [("vgg_small", htaf_snn.ParametricLIFNode), ("sew_resnet20", htaf_snn.LIFNode)],
)
def test_spikingjelly_without_us(name: str, node: type[nn.Module], tmp_path: Path) -> None:
    net = network(name, node)
    made = export(net, tmp_path / "net.py", "spikingjelly")
    agrees(made)
    assert [f.name for f in made.files] == ["net.pt", "net.py"]
    functional.reset_net(net)
    x_seq = frames()[0]
    torch.save((x_seq, net(x_seq)), tmp_path / "run.pt")
    subprocess.run(
        [sys.executable, "-c",
         "import sys; sys.modules['htaf_snn'] = None\n"
         "import net, torch\n"
         "x_seq, logits_seq = torch.load('run.pt')\n"
         "assert torch.allclose(net.load()(x_seq), logits_seq, atol=1e-5)"],
        cwd=tmp_path, check=True,
    )  # fmt: skip


def readme() -> Any:
    """A flat network as README's: its layers' names are numbers."""
    net = nn.Sequential(
        layer.Conv2d(2, 8, 3), htaf_snn.LIFNode(v_threshold=0.2, surrogate_function=ATan()),
        layer.Flatten(), layer.Linear(800, 4),
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    return net


def pruned(net: Any) -> Any:
    prune.l1_unstructured(net[3], "weight", 0.5)
    return net


def weight_normed(net: Any) -> Any:
    torch.nn.utils.weight_norm(net[0])
    parametrizations.weight_norm(net[3])
    return net


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("change", [lambda net: net, pruned, weight_normed])
@pytest.mark.parametrize("format", ["nir", "spikingjelly", "onnx"])
def test_flat_networks_and_computed_weights(format: Format, change: Any, tmp_path: Path) -> None:
    net = change(readme())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(frames()[0]).sum().backward()  # computed weights are part of a graph then
    agrees(export(net, tmp_path / f"net.{format}", format))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net(frames()[0]).sum().backward()


def test_layers_of_one_name_are_refused(tmp_path: Path) -> None:
    net = nn.Sequential(OrderedDict(a=nn.Sequential(OrderedDict(b=layer.Linear(4, 5)))))
    net.add_module("a_b", layer.Linear(5, 2))
    net.append(htaf_snn.LIFNode())
    functional.set_step_mode(net, "m")
    with pytest.raises(ValueError, match="two layers would have the name a_b"):
        htaf_snn.export(net, [torch.rand(2, 3, 4)], tmp_path / "out", "nir")


def test_the_documented_lines_read_a_nir_file(tmp_path: Path) -> None:
    import nir
    from snntorch.import_nir import import_from_nir

    net, x_seq = readme(), frames()[0]
    export(net, tmp_path / "net.nir", "nir")
    functional.reset_net(net.eval())
    wanted = net(x_seq)
    read = import_from_nir(nir.read(tmp_path / "net.nir"))
    state, alone = None, []
    for x in x_seq[:, 0]:  # one sample, without a batch dimension: as it comes
        made, state = read(x, state)
        alone.append(made)
    torch.testing.assert_close(torch.stack(alone), wanted[:, 0])


class Adaptive(htaf_snn.Neuron):
    def step(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        spike = self.surrogate_function(v + x - self.v_threshold)
        return spike, (1 - spike) * (v + x)


@pytest.mark.parametrize(
    ("format", "layers", "message"),
    [
        ("nir", [htaf_snn.LIFNode(v_reset=None)], "1: NIR can't tell a soft reset .*v_reset: 0.0"),
        ("nir", [neuron.QIFNode()], "not QIFNode: train with --model.neuron lif"),
        ("nir", [htaf_snn.LIFNode(), layer.BatchNorm1d(5)], "2: NIR has no batch norm"),
        ("nir", [layer.Linear(5, 5), Adaptive()], "one's own that SpikingJelly does not have"),
        ("spikingjelly", [Adaptive()], "one's own that SpikingJelly does not have"),
        ("spikingjelly", [htaf_snn.LIFNode(learn=("tau",), num_channels=5)], "`tau` for each of 5"),
    ],
)
def test_refused_before_anything_is_written(
    format: Format, layers: list[nn.Module], message: str, tmp_path: Path
) -> None:
    net = nn.Sequential(layer.Linear(4, 5), *layers, layer.Linear(5, 2))
    functional.set_step_mode(net, "m")
    with pytest.raises(ValueError, match=message):
        htaf_snn.export(net, [torch.rand(2, 3, 4)], tmp_path / "out", format)
    assert not list(tmp_path.iterdir())


def test_disagreement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from htaf_snn.exporting import to_nir

    path = tmp_path / "net.nir"
    path.write_text("old")
    monkeypatch.setattr(to_nir, "DT", 2e-4)  # not what importers assume
    with pytest.raises(ValueError, match="nothing is written: run by snnTorch's importer"):
        export(network(**LIVELY), path, "nir")
    assert path.read_text() == "old"


def test_own_neurons_and_learned_constants_go_to_onnx(tmp_path: Path) -> None:
    net = nn.Sequential(
        layer.Linear(4, 5), htaf_snn.LIFNode(learn=("tau",), num_channels=5),
        layer.Linear(5, 5), Adaptive(), layer.Linear(5, 2),
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    made = htaf_snn.export(net, [torch.rand(2, 3, 4)], tmp_path / "net.onnx", "onnx", step=True)
    assert made.agreement.spikes == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "nirr"}, "unknown format 'nirr'"),
        ({"format": "nir", "step": True}, "`step` is for ONNX"),
        ({"format": "nir", "least": 2}, "`least`"),
        ({"format": "nir", "batches": []}, "`batches` is empty"),
        (
            {"format": "onnx", "net": nn.Linear(4, 2), "batches": [torch.ones(2, 3, 4)]},
            "no neurons",
        ),
    ],
)
def test_arguments(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "net": network(),
        "batches": frames(),
        "path": tmp_path / "net",
    } | arguments
    with pytest.raises(ValueError, match=message):
        htaf_snn.export(**given)
