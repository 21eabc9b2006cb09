"""Errors for trainings that diverge, with the place and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from ..neurons.host import is_neuron


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
    found: list[str] = []

    def watch(name: str, kind: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and not found and not output.isfinite().all():
                found.append(f"{name} ({kind})")

        return hook

    neurons = [name for name, module in net.named_modules() if name and is_neuron(module)]
    with ExitStack() as hooks, torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for name, module in net.named_modules():
            within = any(name.startswith(f"{node}.") for node in neurons)  # seen at its neuron
            if name and not within and (name in neurons or not any(module.children())):
                handle = module.register_forward_hook(watch(name, type(module).__name__))
                hooks.callback(handle.remove)
        run()
    return found[0] if found else None
