"""Errors for trainings that diverge, with the place and the remedy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..neurons.host import is_neuron
from ..transfer.firing import hooked


class DivergedError(RuntimeError):
    """A loss, gradient or weight is no longer finite."""


def first_not_finite(net: nn.Module, run: Callable[[], object]) -> str | None:
    """The first layer whose output is not finite when ``run`` runs ``net``.

    Args:
        net: the network.
        run: a forward pass through it.

    Returns:
        the layer's name and class; None if every output is finite.
    """
    names = {m: f"{name} ({type(m).__name__})" for name, m in net.named_modules() if name}
    for node in filter(is_neuron, [*names]):
        for inner in [*node.modules()][1:]:  # seen at its neuron
            names.pop(inner, None)
    found: list[str] = []

    def look(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and not found and not output.isfinite().all():
            found.append(names[module])

    with hooked(names, look), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        run()
    return found[0] if found else None
