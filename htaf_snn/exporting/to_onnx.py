"""The hard network as ONNX: unrolled over time, or one step with states in and out."""

import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from .plain import Runs, hard_copy, recorded


class _Exported(nn.Module):
    """All steps from rest; or one step from given states, each named ``<neuron>.<state>``.

    The next states follow the logits, the spikes follow them, so that they can be compared.
    """

    def __init__(self, net: nn.Module, names: list[str], states: list[str], step: bool) -> None:
        super().__init__()
        self.net, self.names, self.states, self.step = net, names, states, step

    def forward(self, x: Tensor, values: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        for state, value in zip(self.states, values, strict=True):
            name, _, key = state.rpartition(".")
            setattr(self.net.get_submodule(name), key, value)
        x_seq = x.unsqueeze(0) if self.step else x
        logits_seq, spikes = recorded(self.net, self.names, x_seq)
        after = [operator.attrgetter(state)(self.net) for state in self.states]
        functional.reset_net(self.net)
        made = [seq[0] if self.step else seq for seq in (logits_seq, *spikes.values())]
        return made[0], *after, *made[1:]


def write(
    net: nn.Module, names: list[str], x_seq: Tensor, path: Path, step: bool
) -> tuple[str, Runs]:
    """Writes an ONNX model, and returns onnxruntime's runs of it.

    The model takes ``x_seq`` [T, N, *] and gives ``logits_seq`` [T, N, classes], T fixed; or, one
    step, ``x`` [N, *] and a state ``<neuron>.<state>`` of each neuron, and gives ``logits`` and
    the states after it, ``<neuron>.<state>.next``. The states at rest are in its metadata, as JSON
    under ``rest``.
    """
    net = hard_copy(net)
    example = x_seq[:, :1].repeat(1, 2, *[1] * (x_seq.ndim - 2))  # two, as one would be a constant
    held = _states(net, names, example[:1]) if step else {}
    rest: dict[str, float] = {state: operator.attrgetter(state)(net) for state in held}
    frames, logits = ("x", "logits") if step else ("x_seq", "logits_seq")
    batch = torch.export.Dim("N")
    program: Any = torch.onnx.export(
        _Exported(net, names, list(held), step).eval(),
        (example[0], [*held.values()]) if step else (example,),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: batch}, [{0: batch}] * len(held)) if step else ({1: batch},),
        input_names=[frames, *rest],
        output_names=[logits, *(f"{state}.next" for state in rest), *names],
    )
    model: onnx.ModelProto = program.model_proto
    onnx.checker.check_model(model, full_check=True)
    if step:
        onnx.helper.set_model_props(model, {"rest": json.dumps(rest)})
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for output in [o for o in model.graph.output if o.name in names]:
        model.graph.output.remove(output)
    onnx.save(model, path)
    shapes = {given.name: given.shape[1:] for given in session.get_inputs()}

    def run(x_seq: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        states = {
            name: np.full((x_seq.shape[1], *shapes[name]), value, dtype=np.float32)
            for name, value in rest.items()
        }
        runs = []
        for x in x_seq.numpy() if step else [x_seq.numpy()]:
            made, *others = session.run(None, {frames: x, **states})
            states = dict(zip(rest, others[: len(rest)], strict=True))
            runs.append([made, *others[len(rest) :]])
        join = np.stack if step else np.concatenate
        logits_seq, *spikes = (torch.from_numpy(join(seq)) for seq in zip(*runs, strict=True))
        return logits_seq, dict(zip(names, spikes, strict=True))

    return "onnxruntime", run


def _states(net: nn.Module, names: list[str], x_seq: Tensor) -> dict[str, Tensor]:
    """The neurons' states after a step, by ``<neuron>.<state>``; the net is at rest again."""
    with torch.no_grad():
        net(x_seq)
    nodes: dict[str, Any] = {name: net.get_submodule(name) for name in names}
    found = {
        f"{name}.{key}": state
        for name, node in nodes.items()
        for key, state in node.named_memories()
        if isinstance(state, Tensor)
    }
    functional.reset_net(net)
    return found
