"""Losses of logits over time."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

# Of logits [T, N, classes] and labels [N], or class probabilities [N, classes]; to a scalar.
Loss = Callable[[Tensor, Tensor, float], Tensor]


def mean_cross_entropy(logits_seq: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the logits averaged over time.

    Args:
        logits_seq: logits.
        labels: class indices, or probabilities (mixup).
        label_smoothing: share of the target spread evenly over the classes, in [0, 1).

    Shape:
        ``logits_seq`` [T, N, classes]; ``labels`` [N] or [N, classes].
    """
    return nn.functional.cross_entropy(logits_seq.mean(0), labels, label_smoothing=label_smoothing)


def temporal_cross_entropy(
    logits_seq: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Temporal efficient training (TET): the cross-entropy of every time step, averaged.

    The paper's second term, which pulls logits towards a constant, is not part of it.

    Args:
        logits_seq: logits.
        labels: class indices, or probabilities (mixup).
        label_smoothing: share of the target spread evenly over the classes, in [0, 1).

    Shape:
        ``logits_seq`` [T, N, classes]; ``labels`` [N] or [N, classes].

    Source:
        Deng et al., "Temporal Efficient Training of Spiking Neural Network via Gradient
        Re-weighting", arXiv 2202.11946, equation 9.
    """
    T = len(logits_seq)
    return nn.functional.cross_entropy(
        logits_seq.flatten(0, 1),
        labels.repeat(T, *[1] * (labels.ndim - 1)),
        label_smoothing=label_smoothing,
    )


LOSSES: dict[str, Loss] = {"mean": mean_cross_entropy, "tet": temporal_cross_entropy}
