"""Losses of logits [T, N, classes] over time.

Labels are class indices [N], or probabilities [N, classes] (mixup); ``label_smoothing`` is the
share of the target that is spread evenly over the classes, in [0, 1).
"""

from torch import Tensor
from torch.nn.functional import cross_entropy


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
