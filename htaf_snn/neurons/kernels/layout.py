"""Memory layouts of sequences."""

from collections.abc import Sequence

import torch
from torch import Tensor


def dense(x_seq: Tensor) -> Tensor:
    """``x_seq`` [T, N, *] contiguous, or as it is if the channels alone are last in memory."""
    if x_seq.is_contiguous() or channels_last(x_seq):
        return x_seq
    return x_seq.contiguous()


def channels_last(x_seq: Tensor) -> bool:
    """Returns True if a sequence [T, N, C, *] lies in memory as [T, N, *, C]."""
    return x_seq.ndim > 3 and x_seq.movedim(2, -1).is_contiguous()


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """``tensor`` in the layout of ``other``, which has its shape and is dense."""
    if tensor.stride() == other.stride() or (tensor.is_contiguous() and other.is_contiguous()):
        return tensor
    return torch.empty_like(other, dtype=tensor.dtype).copy_(tensor)


def memory_order(x_seq: Tensor) -> list[int]:
    """The dimensions of one step from the slowest to the fastest."""
    last = x_seq.ndim - 1
    return [0, *range(2, last), 1] if not x_seq.is_contiguous() else list(range(last))


def varied(parameters: Sequence[Tensor], x_seq: Tensor) -> list[int]:
    """The dimensions of a step along which parameters vary, and those between."""
    order, dimensions = memory_order(x_seq), x_seq.ndim - 1
    along = {
        dimensions - p.ndim + a for p in parameters for a, size in enumerate(p.shape) if size != 1
    }
    found = [place for place, a in enumerate(order) if a in along]
    return order[min(found) : max(found) + 1] if found else []
