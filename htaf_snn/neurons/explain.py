"""Reading a fused neuron: its step in Python, the traced graph, and the C that is made of it."""

import inspect
from typing import Any

import torch
from torch import nn

from .kernels.buffers import cpu_source, cuda_source
from .step.graph import LEAVES, Program, decode
from .traced import step_of


def explain(node: nn.Module, dtype: torch.dtype = torch.float32, cuda: bool = False) -> str:
    """A neuron's step, its graph, and the text that a compiler gets.

    Args:
        node: a neuron of ours, or one that `convert` made ours.
        dtype: of the input.
        cuda: the text for CUDA, with T = 4, instead of the CPU's.

    Returns:
        three sections, ready to print. In the graph, a letter marks what a value depends on: "l"
        the layer's numbers, "n" parameters of neurons, "s" the step's input and states, "g" the
        incoming gradients; a star marks what the recording pass keeps for the backward pass.

    Raises:
        ValueError: the neuron can't be fused; the message says why.
    """
    traced = step_of(node).traced
    if traced.program is None:
        raise ValueError(f"{type(node).__name__} runs on torch: {traced.reason}")
    program = decode(traced.program)
    source = cuda_source(program, dtype, 4) if cuda else cpu_source(program, dtype)
    return "\n\n".join(
        [
            f"# The step of {type(node).__name__}, in Python\n\n{_python(node)}{_outside(node)}",
            f"# Its graph: {len(program.kept)} numbers kept a step\n\n{_graph(program)}",
            f"// The text for {'CUDA' if cuda else 'the CPU'}, {dtype}\n\n{source}",
        ]
    )


def _step(node: nn.Module) -> Any:
    kind: Any = type(node)
    return getattr(kind, "step", None) or kind.single_step_functional_forward


def _python(node: nn.Module) -> str:
    try:
        return inspect.cleandoc(inspect.getsource(_step(node)))
    except (OSError, TypeError):
        return "(no source at hand)"


def _outside(node: nn.Module) -> str:
    """Names what a step reads that is no attribute, so that a change of it goes unseen."""
    found = inspect.getclosurevars(_step(node))
    kinds = (bool, int, float, str, list, tuple, dict, torch.Tensor)
    read = [
        f"{name} = {value!r}"
        for name, value in {**found.globals, **found.nonlocals}.items()
        if isinstance(value, kinds)
    ]
    if not read:
        return ""
    return f"\n\n# Read once, when it was traced; a change of it is not seen: {', '.join(read)}"


def _graph(program: Program) -> str:
    lines = []
    for value, op in enumerate(program.ops):
        arguments = ", ".join(f"{a!r}" if op.name in LEAVES else f"a{a}" for a in op.args)
        star = "*" if value in program.kept else " "
        lines.append(f"{program.levels[value][0]}{star} a{value} = {op.name}({arguments})")
    outputs, states, inputs = program.outputs, program.states, program.inputs
    names = [f"output {k}" for k in range(outputs)] + [f"state {k}" for k in range(states)]
    names += [f"gradient of input {k}" for k in range(inputs)]
    names += [f"gradient of state {k}" for k in range(states)]
    names += [f"gradient of parameter {k}" for k in program.learned]
    found = zip(names, program.results, strict=True)
    return "\n".join([*lines, *(f"   {name}: a{value}" for name, value in found)])
