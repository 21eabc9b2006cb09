"""Batch norm over several GPUs, for layers that take all time steps at once."""

from __future__ import annotations

from lightning.pytorch.plugins.layer_sync import LayerSync
from spikingjelly.activation_based import base
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..neurons.batch_norm import AveragedNorm, norm_class
from ..neurons.norm_fusion import DeferredNorm


class _MultiStepSyncBatchNorm(nn.SyncBatchNorm):
    step_mode = "m"

    def forward(self, x_seq: Tensor) -> Tensor:
        return super().forward(x_seq.flatten(0, 1)).view_as(x_seq)


class MultiStepSyncBatchNorm(LayerSync):
    """Lightning's plugin for synchronised batch norm, which keeps SpikingJelly's time dimension.

    torch's own conversion would normalise [T, N, C, H, W] over the wrong one.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        for parent in list(model.modules()):
            for name, child in parent.named_children():
                if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
                    setattr(parent, name, _synchronised(child))
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        return model  # the layers stay usable: outside of training they are batch norm


def _synchronised(norm: _BatchNorm) -> nn.SyncBatchNorm:
    multi_step = isinstance(norm, base.StepModule) and norm.step_mode == "m"
    kind = _MultiStepSyncBatchNorm if multi_step else nn.SyncBatchNorm
    made = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.weight, made.bias = norm.weight, norm.bias
    made.running_mean, made.running_var = norm.running_mean, norm.running_var
    made.num_batches_tracked = norm.num_batches_tracked
    if isinstance(norm, AveragedNorm):
        ours = DeferredNorm if isinstance(norm, DeferredNorm) else AveragedNorm
        made.__class__ = norm_class(kind, ours)  # type: ignore[assignment]
        made.__dict__["frozen"] = norm.frozen
    return made.train(norm.training)
