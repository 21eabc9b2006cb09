"""Batch norm whose running averages are right from the first step on, and which can be frozen."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .classes import ORIGINAL_OF, mixed


class AveragedNorm(_BatchNorm):
    """A batch norm whose running statistics hold nothing of their initial values 0 and 1.

    Step n of the training averages with ``max(momentum, 1 / n)`` instead of ``momentum``: the
    plain mean of the first steps, then the usual moving average. With torch's rule and a momentum
    of 0.1, 8 % of a variance after 24 steps is still the initial 1, so that a network trained for
    few steps computes something else at inference. All else is as in the class that is listed
    behind this one.

    Attributes:
        frozen: whether it normalises with its running statistics in training too, and keeps them.
    """

    frozen = False

    def train(self, mode: bool = True) -> Any:
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor) -> Tensor:
        count = self.num_batches_tracked
        momentum = self.momentum
        if not (self.training and momentum) or count is None or self._is_settled(count, momentum):
            return super().forward(x)
        running, variance = self.running_mean, self.running_var
        assert running is not None and variance is not None
        # Of its own: torch's backward pass refuses running statistics that change after it.
        self.running_mean, self.running_var = torch.zeros_like(running), torch.zeros_like(variance)
        self.momentum = 1.0  # they become the batch's
        try:
            made = super().forward(x)
            with torch.no_grad():
                share = count.double().reciprocal().clamp(min=momentum)
                running.lerp_(self.running_mean, share.to(running.dtype))
                variance.lerp_(self.running_var, share.to(variance.dtype))
        finally:
            self.momentum, self.running_mean, self.running_var = momentum, running, variance
        return made

    def _is_settled(self, count: Tensor, momentum: float) -> bool:
        """Returns True if torch's own rule averages alike from now on; does not wait for a GPU."""
        if torch.compiler.is_compiling() or count.device.type != "cpu":
            return False
        return (int(count) + 1) * momentum >= 1


# Whose output is a scale and a shift by channel of the input, and nothing more.
_FORWARDS = (
    "torch.nn.modules.batchnorm._BatchNorm", "torch.nn.modules.batchnorm.SyncBatchNorm",
    *(f"spikingjelly.activation_based.layer.bn.BatchNorm{d}d" for d in (1, 2, 3)),
    "spikingjelly.activation_based.layer.bn._ThresholdDependentBatchNormBase",
    "htaf_snn.training.gpu._MultiStepSyncBatchNorm",
)  # fmt: skip

N = TypeVar("N", bound=AveragedNorm)


def norm_class(host: type[Any], base: type[N]) -> type[N] | None:
    """The class ``base`` before a batch norm's class; None where that does more than a batch norm.

    Args:
        host: a class of torch's or SpikingJelly's, or one that this function made of it.
        base: `AveragedNorm` or a subclass.
    """
    host = ORIGINAL_OF.get(host, host)
    owner = next((c for c in host.__mro__ if "forward" in vars(c)), host)
    if (
        not issubclass(host, _BatchNorm)
        or f"{owner.__module__}.{owner.__qualname__}" not in _FORWARDS
    ):
        return None
    return mixed(base, host)  # type: ignore[arg-type]  # classes can be hashed


def average_norms(net: nn.Module) -> None:
    """Makes the batch norms in ``net`` an `AveragedNorm`, in place, but for those that are."""
    for module in net.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, AveragedNorm):
            made = norm_class(type(module), AveragedNorm)
            if made is not None:
                module.__class__ = made
