"""Batch norm that the neurons behind it compute within their kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from .backends import modes, normed
from .backends.emit import X_TYPES
from .batch_norm import AveragedNorm

_DIMENSIONS = {"1d": (2, 3), "2d": (4,), "3d": (5,)}  # of what a norm of torch's takes


class Normalised(Tensor):
    """What a batch norm puts out, not computed yet.

    A neuron of ours computes it within its kernel. Anything else that asks for its numbers gets
    them from the norm, which then runs once.

    Attributes:
        norm: the norm.
        x: its input.
        known: its output, once that was asked for.
    """

    norm: DeferredNorm
    x: Tensor
    known: Tensor | None

    @staticmethod
    def of(norm: DeferredNorm, x: Tensor) -> Normalised:
        made: Normalised = _Deferred.apply(x)
        made.norm, made.x, made.known = norm, x, None
        return made

    def value(self) -> Tensor:
        """The numbers."""
        if self.known is None:
            self.known = self.norm.compute(self.x)
        return self.known

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        # All that is asked of it, its device too: torch's checkpointing does so of its inputs, and
        # a norm must run outside of what is recomputed if its output is an input of that.
        args, kwargs = tree_map_only(Normalised, Normalised.value, (args, kwargs or {}))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's stub lacks the class
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return cls.__torch_function__(func, types, args, kwargs)


class _Deferred(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return modes.without_storage(Normalised, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise RuntimeError(
            "an autograd function took the output of a batch norm that the neurons behind it "
            "were to compute, and its gradient would be lost; give the function norm(x).clone(), "
            "or call htaf_snn.revert on the network first"
        )


class DeferredNorm(AveragedNorm):
    """A batch norm whose output goes to neurons of ours alone, and may wait for them.

    Listed before a class of torch's or SpikingJelly's. It computes what that class does, at once
    where its output is wanted for anything else, a hook watches it or the neurons' input, or torch
    compiles or traces; and on a GPU, where cuDNN's norm and then the neurons take less time.

    Attributes:
        reader: the neurons; no submodule of it.
    """

    reader: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return Normalised.of(self, x) if self._may_wait(x) else self.compute(x)

    def compute(self, x: Tensor) -> Tensor:
        """The output, as the class behind this one computes it."""
        made: Tensor = super().forward(x)
        return made

    @property
    def multi_step(self) -> bool:
        """Whether it takes sequences [T, N, C, *], and not single steps [N, C, *]."""
        return getattr(self, "step_mode", "s") == "m"

    def norm(self, x: Tensor) -> normed.Norm:
        """What it does to ``x`` [T, N, C, *]; in training its running statistics take part."""
        batch = self.training or self.running_mean is None
        group = None
        if batch and isinstance(self, nn.SyncBatchNorm) and _world() > 1:
            group = self.process_group or torch.distributed.group.WORLD
        if batch:
            moments, count = normed.batch_moments(x, group)
        else:
            assert self.running_mean is not None and self.running_var is not None
            moments, count = torch.stack([self.running_mean, self.running_var]).double(), 0
        if self.training and self.running_mean is not None:
            self._follow(moments, count)
        return normed.Norm(self.weight, self.bias, moments, count, self.eps, group)

    @torch.no_grad()
    def _follow(self, moments: Tensor, count: int) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        factor = self.share()
        mean, variance = moments
        unbiased = variance * (count / (count - 1))
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.copy_((1 - factor) * running.double() + factor * new)

    def _may_wait(self, x: Tensor) -> bool:
        if torch.compiler.is_compiling() or modes.obstacle(x) is not None:
            return False
        if self._forward_hooks or any(
            m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
            for m in (self, self.reader)
        ):
            return False
        dimensions = _DIMENSIONS.get(type(self).__name__[-2:], (2, 3, 4, 5))
        channel = 2 if self.multi_step else 1
        if x.ndim - channel + 1 not in dimensions or x.shape[channel] != self.num_features:
            return False
        if x.dtype not in X_TYPES or x.device.type != "cpu":
            return False
        if self.weight is not None and self.weight.dtype not in (x.dtype, torch.float32):
            return False
        return x.numel() > self.num_features  # of one number a channel there is no variance


def _world() -> int:
    of = torch.distributed
    return of.get_world_size() if of.is_available() and of.is_initialized() else 1
