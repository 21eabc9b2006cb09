"""Losses of logits [T, N, classes] over time, and the error of a training that diverges.

Labels are class indices [N], or probabilities [N, classes] (mixup); ``label_smoothing`` is the
share of the target that is spread evenly over the classes, in [0, 1).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..neurons.host import is_neuron
from ..transfer.firing import hooked


def mean_cross_entropy(logits_seq: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the logits averaged over time."""
    return cross_entropy(logits_seq.mean(0), labels, label_smoothing=label_smoothing)


def temporal_cross_entropy(
    logits_seq: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Temporal efficient training (TET): the cross-entropy of every time step, averaged.

    The paper's second term, which pulls logits towards a constant, is not part of it.

    Source:
        Deng et al., "Temporal Efficient Training of Spiking Neural Network via Gradient
        Re-weighting", arXiv 2202.11946, equation 9.
    """
    labels = labels.repeat(len(logits_seq), *[1] * (labels.ndim - 1))
    return cross_entropy(logits_seq.flatten(0, 1), labels, label_smoothing=label_smoothing)


LOSSES = {"mean": mean_cross_entropy, "tet": temporal_cross_entropy}


class DivergedError(RuntimeError):
    """A loss, gradient or weight is no longer finite."""


def first_not_finite(net: nn.Module, run: Callable[[], object]) -> str | None:
    """The name and class of the first layer whose output is not finite in a forward pass."""
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
