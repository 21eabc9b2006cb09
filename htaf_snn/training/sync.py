"""Batch norm over several GPUs, for layers that take all time steps at once."""

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
        for name, norm in list(model.named_modules(remove_duplicate=False)):
            if not isinstance(norm, _BatchNorm) or isinstance(norm, nn.SyncBatchNorm):
                continue
            made = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
            if isinstance(norm, base.StepModule) and norm.step_mode == "m":
                made.__class__ = _MultiStepSyncBatchNorm
            if isinstance(norm, AveragedNorm):
                ours = DeferredNorm if isinstance(norm, DeferredNorm) else AveragedNorm
                made.__class__ = norm_class(type(made), ours)
                made.__dict__["frozen"] = norm.frozen
            model.set_submodule(name, made)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        return model  # the layers stay usable: outside of training they are batch norm
