"""Parts of every network: neurons, norms, a read-out, and checks of its arguments."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from spikingjelly.activation_based import base, functional, layer, memopt
from torch import Tensor, nn

from ..arguments import in_range, one_of
from ..neurons.norm_fusion import fuse_norms

Norm = Literal["bn", "tdbn"]

SMALLEST_SIDE = 8  # pixels
LARGEST_SIDE = 128


def check_sizes(
    in_shape: Sequence[int],
    num_classes: int,
    smallest: int = SMALLEST_SIDE,
    largest: int | None = LARGEST_SIDE,
    channels: int | None = None,
) -> None:
    """Raises a ValueError that says which frames fit, unless these do."""
    sides = f"of at least {smallest}" if largest is None else f"from {smallest} to {largest}"
    if (
        len(in_shape) != 3
        or (in_shape[0] < 1 if channels is None else in_shape[0] != channels)
        or min(in_shape[1:]) < smallest
        or (largest is not None and max(in_shape[1:]) > largest)
    ):
        raise ValueError(
            f"`in_shape` (={tuple(in_shape)}) must be (C, H, W) with "
            f"{'C >= 1' if channels is None else f'C = {channels}'} and H and W {sides} pixels"
        )
    in_range("num_classes", num_classes, 1)


@dataclass(frozen=True)
class Parts:
    """Makes the layers that a network repeats, with copies of the neurons' arguments.

    Args:
        spiking_neuron: the neuron's class.
        neuron_arguments: its arguments.
        width: factor on every channel count, > 0.
        norm: "bn" for batch norm, "tdbn" for threshold-dependent batch norm, whose scale starts at
            alpha * v_threshold.

    Raises:
        ValueError: an unknown norm or a width that is not positive.

    Source:
        tdBN: Zheng et al. 2021, "Going Deeper With Directly-Trained Larger Spiking Neural
        Networks", arXiv 2011.05280.
    """

    spiking_neuron: Callable[..., nn.Module]
    neuron_arguments: Mapping[str, Any]
    width: float = 1.0
    norm: Norm = "bn"

    def __post_init__(self) -> None:
        in_range("width", self.width, 0, 64, open_=True)
        one_of("norm", self.norm, get_args(Norm))

    def channels(self, count: int) -> int:
        """``count``, scaled by ``width``, at least 1."""
        return max(1, round(count * self.width))

    def neuron(self) -> nn.Module:
        return self.spiking_neuron(**deepcopy(dict(self.neuron_arguments)))

    def norm2d(self, channels: int, alpha: float = 1.0) -> nn.Module:
        """The norm of [T, N, C, H, W]; alpha is 1, or sqrt(1/2) where two norms' outputs add."""
        if self.norm == "bn":
            return layer.BatchNorm2d(channels)
        return layer.ThresholdDependentBatchNorm2d(alpha, self._threshold, channels)

    def hidden(self, in_features: int, out_features: int) -> list[nn.Module]:
        """A fully connected layer with its norm and neurons, of a map [T, N, C, H, W]."""
        norm = layer.BatchNorm1d(out_features)
        if self.norm == "tdbn":
            norm = layer.ThresholdDependentBatchNorm1d(1.0, self._threshold, out_features)
        linear = layer.Linear(in_features, out_features, bias=False)
        return [layer.Flatten(), linear, norm, self.neuron()]

    @cached_property
    def _threshold(self) -> float:
        return float(getattr(self.neuron(), "v_threshold", 1.0))


class SpikingNetwork(nn.Module):
    """Features, dropout and a linear read-out, over all time steps at once.

    A batch norm before neurons of ours is computed within their kernel; see `htaf_snn.convert`.

    Args:
        features: from frames [T, N, C, H, W] to what the read-out sees.
        in_channels: C.
        read_out_size: numbers in the output of ``features``, per frame.
        num_classes: outputs of the read-out.
        dropout: probability that an input of the read-out is zero, the same for all time steps,
            in [0, 1).

    Raises:
        ValueError: ``dropout`` out of range; in ``forward``, an input that is not
            [T, N, in_channels, H, W].
    """

    def __init__(
        self,
        features: nn.Module,
        in_channels: int,
        read_out_size: int,
        num_classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        in_range("dropout", dropout, 0, 1, below=True)
        self.in_channels = in_channels
        self.features = features
        self.dropout = layer.Dropout(dropout) if dropout else nn.Identity()
        self.read_out = nn.Sequential(layer.Flatten(), layer.Linear(read_out_size, num_classes))
        self._checkpointing = False
        functional.set_step_mode(self, "m")
        fuse_norms(self)

    def checkpoint_activations(self) -> None:
        """Has training keep the input of each block alone, and compute the rest once more.

        A block is a residual block, or a convolution with what follows up to the next one. The
        numbers, state and names stay as they are; nothing is compressed, so smooth spikes are
        kept as they are too.
        """
        self._checkpointing = True

    def _blocks(self) -> list[nn.Module]:
        layers = [
            one
            for child in self.features.children()
            for one in (child.children() if isinstance(child, nn.Sequential) else [child])
        ]
        groups: list[list[nn.Module]] = []
        for one in layers:
            neurons = isinstance(one, base.MemoryModule)  # which have children: spike functions
            if not groups or isinstance(one, nn.Conv2d) or (any(one.children()) and not neurons):
                groups.append([])
            groups[-1].append(one)
        return [memopt.checkpoint_module(nn.Sequential(*group)) for group in groups]

    def forward(self, x_seq: Tensor) -> Tensor:
        if x_seq.ndim != 5 or x_seq.shape[2] != self.in_channels:
            raise ValueError(
                f"the input's shape is {tuple(x_seq.shape)}; "
                f"this network takes [T, N, {self.in_channels}, H, W]"
            )
        if self._checkpointing and self.training:
            for block in self._blocks():
                x_seq = block(x_seq)
        else:
            x_seq = self.features(x_seq)
        return self.read_out(self.dropout(x_seq))
