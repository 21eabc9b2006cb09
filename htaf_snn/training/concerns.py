"""Errors for trainings that diverge, and warnings about networks that fail without an error."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..neurons.host import is_neuron
from ..transfer.firing import hooked

GAP_PP = 10.0  # percentage points between two accuracies that need an explanation
SILENT = 1e-4  # spikes a neuron and time step, below which a layer counts as silent
_QUANTILE = 1.645  # of the normal distribution, for a one-sided test at 5 %


def concerns(found: Mapping[str, float], train_accuracy: float | None = None) -> list[str]:
    """Names what is wrong with a trained network, a sentence each with its remedy.

    Args:
        found: metrics of `SpikingClassifier.test_step` on held-out data.
        train_accuracy: of the last epoch, in [0, 1]; None where it is not known.
    """
    hard, soft, trained = (found[f"{form}_accuracy"] for form in ("hard", "soft", "trained"))
    wide = max(GAP_PP, 300 / found["samples"])  # three samples at least
    said = []
    if found["statistics_gap_pp"] > wide:
        said.append(
            f"with each batch's statistics, as trained, the accuracy is {trained:.2f}, with "
            f"running statistics, as used, {soft:.2f}: freeze the norms earlier "
            "(--model.freeze_norm 0.8) or take larger batches (--data.batch_size)"
        )
    if found["gap_pp"] > wide:
        said.append(
            f"smooth the accuracy is {soft:.2f}, with the exact step {hard:.2f}: bring the step in "
            "during training (--model.recipe hardened), and see htaf-snn gap"
        )
    if train_accuracy is not None and 100 * (train_accuracy - trained) > wide:
        said.append(
            f"the training accuracy is {train_accuracy:.2f}, on held-out data {trained:.2f} "
            "without any gap: it has learned its samples by heart; take more of them, "
            "--data.augment, or a smaller --model.width"
        )
    commonest = found["commonest_class"]
    chance = commonest + _QUANTILE * math.sqrt(commonest * (1 - commonest) / found["samples"])
    if hard <= min(chance, 1 - 1e-9):
        said.append(
            f"the accuracy, {hard:.2f}, can't be told from naming the commonest class each time "
            f"({commonest:.2f} of {found['samples']:.0f} samples): train longer "
            "(--trainer.max_epochs), try another --model.learning_rate, and look at the data with "
            "htaf-snn data inspect"
        )
    silent = [n.partition("/")[2] for n, rate in found.items() if "/" in n and rate < SILENT]
    if silent:
        said.append(
            f"{', '.join(silent)} fire less than once in {1 / SILENT:.0f} time steps: lower the "
            "threshold (--model.neuron_options '{v_threshold: 0.5}') or put more events into a "
            "frame (a smaller --data.T)"
        )
    return said


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
