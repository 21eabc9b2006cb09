"""Training on GPUs: CUDA graphs that are replayed without Python, and batch norm over several."""

import logging
from typing import Any

import torch
from lightning.pytorch.plugins.layer_sync import LayerSync
from spikingjelly.activation_based import base, functional
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..neurons import refresh
from ..neurons.batch_norm import AveragedNorm, norm_class
from ..neurons.norm_fusion import DeferredNorm
from ..surrogates import SpikeFunction
from ..transfer import norms_of, spike_functions

_logger = logging.getLogger(__name__)
_MOST_GRAPHS = 8


class CapturedNetwork:
    """A network in training whose passes are captured as CUDA graphs and replayed.

    The first call of a kind runs as it is, and from the second on its graph does; a kind is a
    shape and dtype of frames, and the modes of spike functions and norms. Numbers that a schedule
    changes, such as hardness, are written where the graph reads them. What can't be captured
    runs as it is, and a warning says why, once.

    Args:
        net: the network; its modules stay what they are.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.obstacle: str | None = None
        self._functions = [f for f in spike_functions(net) if isinstance(f, SpikeFunction)]
        self._norms = norms_of(net)
        self._graphs: dict[Any, Any] = {}  # by kind; None after its first call

    def __call__(self, x_seq: Tensor) -> Tensor:
        """The network's output for frames [T, N, C, H, W], from neurons that were just reset."""
        if self.obstacle is None and not self._runs_on_gpu(x_seq):
            self._give_up(f"the network is on {x_seq.device}")
        if self.obstacle is not None:
            return self.net(x_seq)
        kind = self._kind(x_seq)
        is_known = kind in self._graphs
        if is_known and self._graphs[kind] is None:
            self._capture(kind, x_seq)
        elif not is_known and len(self._graphs) < _MOST_GRAPHS:
            self._graphs[kind] = None
        graph = self._graphs.get(kind)
        if graph is None:
            return self.net(x_seq)
        refresh(self.net)
        return graph(x_seq)

    def check(self, accumulated: int, processes: int) -> None:
        """Gives up where gradients outlive the next replay, which overwrites them."""
        if accumulated > 1:
            self._give_up(f"`trainer.accumulate_grad_batches` (={accumulated}) sums gradients")
        if processes > 1:
            self._give_up(f"{processes} processes exchange gradients")

    @staticmethod
    def _runs_on_gpu(x_seq: Tensor) -> bool:
        return x_seq.is_cuda

    def _kind(self, x_seq: Tensor) -> tuple[Any, ...]:
        return (
            x_seq.shape, x_seq.stride(), x_seq.dtype, torch.is_autocast_enabled(x_seq.device.type),
            *((f.mode, f.hardness > 0) for f in self._functions),
            *(norm.training for norm in self._norms),
        )  # fmt: skip

    def _capture(self, kind: Any, x_seq: Tensor) -> None:
        """Makes a kind's graphs; its passes leave buffers and random numbers as they were."""
        buffers = [(buffer, buffer.clone()) for buffer in self.net.buffers()]
        device = x_seq.device.type
        dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        try:
            with (
                torch.random.fork_rng([x_seq.device] if x_seq.is_cuda else []),
                torch.autocast(device, dtype, enabled, cache_enabled=False),
            ):
                sample = x_seq.clone(memory_format=torch.preserve_format)
                graph = torch.cuda.make_graphed_callables(_Whole(self.net), (sample,))
        except RuntimeError as error:  # a step that waits for the GPU, or allocates elsewhere
            self._give_up(str(error).partition("\n")[0])
        else:
            self._graphs[kind] = graph
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)

    def _give_up(self, reason: str) -> None:
        self.obstacle = reason
        self._graphs.clear()
        _logger.warning("no CUDA graphs, the training goes on without: %s", reason)


class _Whole(nn.Module):
    """A network with its reset, which a capture needs before each of its passes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.training = net.training

    def forward(self, x_seq: Tensor) -> Tensor:
        functional.reset_net(self.net)
        return self.net(x_seq)


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
