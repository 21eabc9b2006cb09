"""Losses over time."""

from __future__ import annotations

import pytest
import torch

from htaf_snn.training.losses import LOSSES, mean_cross_entropy, temporal_cross_entropy


def test_by_hand() -> None:
    logits_seq = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]])  # [T = 2, N = 1, classes = 2]
    labels = torch.tensor([0])
    assert mean_cross_entropy(logits_seq, labels) == pytest.approx(0.6931, abs=1e-4)
    # -log sigmoid(2) and -log sigmoid(-2), averaged
    assert temporal_cross_entropy(logits_seq, labels) == pytest.approx(1.1269, abs=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_probabilities_and_smoothing_are_those_of_labels(name: str) -> None:
    loss = LOSSES[name]
    logits_seq, labels = torch.randn(3, 5, 4), torch.randint(4, (5,))
    one_hot = torch.nn.functional.one_hot(labels, 4).float()
    torch.testing.assert_close(loss(logits_seq, one_hot, 0.0), loss(logits_seq, labels, 0.0))
    smoothed = 0.8 * one_hot + 0.2 / 4
    torch.testing.assert_close(loss(logits_seq, smoothed, 0.0), loss(logits_seq, labels, 0.2))


def test_equal_where_every_step_is_alike() -> None:
    logits_seq, labels = torch.randn(1, 5, 4).expand(3, -1, -1), torch.randint(4, (5,))
    torch.testing.assert_close(
        temporal_cross_entropy(logits_seq, labels), mean_cross_entropy(logits_seq, labels)
    )
