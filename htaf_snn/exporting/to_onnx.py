"""The hard network as ONNX: unrolled over time, or one step with states in and out."""

from __future__ import annotations

import functools
import json
import operator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from .agreement import Runs, recorded


class _Sequence(nn.Module):
    """All steps from rest; the spikes follow the logits, so that they can be compared."""

    def __init__(self, net: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.net = net
        self.neurons = {name: net.get_submodule(name) for name in names}

    def forward(self, x_seq: Tensor) -> tuple[Tensor, ...]:
        functional.reset_net(self.net)
        with recorded(self.neurons) as spikes:
            logits_seq = self.net(x_seq)
        functional.reset_net(self.net)
        return logits_seq, *spikes.values()


class _Step(_Sequence):
    """One step from given states, each named ``<neuron>.<state>``.

    The next states follow the logits, the spikes follow them.
    """

    def __init__(self, net: nn.Module, names: list[str], states: list[str]) -> None:
        super().__init__(net, names)
        self.states = states

    def forward(self, x: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        for state, value in zip(self.states, values, strict=True):
            name, _, key = state.rpartition(".")
            setattr(self.net.get_submodule(name), key, value)
        with recorded(self.neurons) as spikes:
            logits_seq = self.net(x.unsqueeze(0))
        after = [operator.attrgetter(state)(self.net) for state in self.states]
        functional.reset_net(self.net)
        return logits_seq[0], *after, *(seq[0] for seq in spikes.values())


def write(net: nn.Module, names: list[str], x_seq: Tensor, path: Path, step: bool) -> Runs:
    """Writes an ONNX model, and returns onnxruntime's runs of it.

    The model takes ``x_seq`` [T, N, *] and gives ``logits_seq`` [T, N, classes], T fixed; or, one
    step, ``x`` [N, *] and a state ``<neuron>.<state>`` of each neuron, and gives ``logits`` and
    the states after it, ``<neuron>.<state>.next``. The states at rest are in its metadata, as JSON
    under ``rest``.

    Args:
        net: what `hard_copy` makes.
        names: of its neurons, in the order in which they run.
        x_seq: frames, [T, N, *].
        step: whether the model is of one step.
    """
    example = x_seq[:, :1].repeat(1, 2, *[1] * (x_seq.ndim - 2))  # two, as one would be a constant
    batch = torch.export.Dim("N")
    if not step:
        program = torch.onnx.export(
            _Sequence(net, names).eval(), (example,), dynamo=True, verbose=False,
            dynamic_shapes=({1: batch},),
            input_names=["x_seq"], output_names=["logits_seq", *names],
        )  # fmt: skip
        return functools.partial(_run, _written(program, names, path), names)
    with torch.no_grad():
        net(example[:1])
    nodes: dict[str, Any] = {name: net.get_submodule(name) for name in names}
    held = {
        f"{name}.{key}": state
        for name, node in nodes.items()
        for key, state in node.named_memories()
        if isinstance(state, Tensor)
    }
    functional.reset_net(net)
    rest: dict[str, float] = {state: operator.attrgetter(state)(net) for state in held}
    program = torch.onnx.export(
        _Step(net, names, list(held)).eval(), (example[0], *held.values()), dynamo=True,
        verbose=False, dynamic_shapes=({0: batch}, ({0: batch},) * len(held)),
        input_names=["x", *rest], output_names=["logits", *(f"{s}.next" for s in rest), *names],
    )  # fmt: skip
    session = _written(program, names, path, rest=json.dumps(rest))
    return functools.partial(_run_steps, session, names, rest)


def _written(
    program: Any, names: list[str], path: Path, **metadata: str
) -> onnxruntime.InferenceSession:
    """Writes the model without the spikes among its outputs; returns its session, with them."""
    model: onnx.ModelProto = program.model_proto
    onnx.checker.check_model(model, full_check=True)
    if metadata:
        onnx.helper.set_model_props(model, metadata)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for output in [o for o in model.graph.output if o.name in names]:
        model.graph.output.remove(output)
    onnx.save(model, path)
    return session


def _run(
    session: onnxruntime.InferenceSession, names: list[str], x_seq: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    logits, *spikes = map(torch.from_numpy, session.run(None, {"x_seq": x_seq.numpy()}))
    return logits, dict(zip(names, spikes, strict=True))


def _run_steps(
    session: onnxruntime.InferenceSession,
    names: list[str],
    rest: dict[str, float],
    x_seq: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    shapes = {i.name: i.shape[1:] for i in session.get_inputs()}
    count = x_seq.shape[1]
    states = {
        name: np.full((count, *shapes[name]), value, dtype=np.float32)
        for name, value in rest.items()
    }
    logits, steps = [], []
    for x in x_seq.numpy():
        made, *others = session.run(None, {"x": x, **states})
        states = dict(zip(rest, others[: len(rest)], strict=True))
        logits.append(torch.from_numpy(made))
        steps.append([torch.from_numpy(spikes) for spikes in others[len(rest) :]])
    sequences = [torch.stack(seq) for seq in zip(*steps, strict=True)]
    return torch.stack(logits), dict(zip(names, sequences, strict=True))
