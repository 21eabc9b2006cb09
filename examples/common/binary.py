"""Binary networks: convolutions whose inputs and weights are signs, and their one-bit files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from htaf_snn.files import write_whole
from htaf_snn.surrogates import ScaledSigmoid, SpikeFunction, StraightThrough


class ClippedSign(StraightThrough):
    """The straight-through sign, -1 or +1, whose gradient passes where ``|x| <= clip``.

    +1 at exactly 0. The gradient that passes is doubled, as the output's range is.

    Args:
        clip: half-width of the band that lets gradients pass, > 0, dimensionless.

    Source:
        Hubara et al., "Binarized Neural Networks", NeurIPS 2016, section 1.3.
    """

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x) - 1


class SignedSigmoid(ScaledSigmoid):
    """``2 sigmoid(beta x) - 1``, and the exact sign once hard: the control of HTAF's shape."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x) - 1


class BinaryConv2d(nn.Conv2d):
    """A 3x3 convolution of the inputs' signs with the weights' signs, without bias.

    ``weight`` is latent: real while it trains, and only its sign takes part once the signs are
    exact. The border is padded with +1, so that a binary device meets no third value.

    Args:
        in_channels: >= 1.
        out_channels: >= 1.
        stride: >= 1.
        sign: makes the sign of the inputs and that of the weights: ``HTAF(signed=True)``,
            `SignedSigmoid` or `ClippedSign`.

    Shape:
        ``[N, in_channels, H, W]`` to ``[N, out_channels, ceil(H / stride), ceil(W / stride)]``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, sign: Callable[[], nn.Module]
    ) -> None:
        super().__init__(in_channels, out_channels, 3, stride, bias=False)
        self.sign_of_inputs, self.sign_of_weights = sign(), sign()

    def forward(self, x: Tensor) -> Tensor:
        signs = F.pad(self.sign_of_inputs(x), (1, 1, 1, 1), value=1.0)
        return F.conv2d(signs, self.sign_of_weights(self.weight), stride=self.stride)

    @torch.no_grad()
    def clip(self) -> None:
        """Keeps latent weights where a straight-through gradient passes; others have no end."""
        if isinstance(self.sign_of_weights, ClippedSign):
            self.weight.clamp_(-self.sign_of_weights.clip, self.sign_of_weights.clip)


def binary_layers(net: nn.Module) -> dict[str, BinaryConv2d]:
    """The binary layers of a network by name."""
    return {name: m for name, m in net.named_modules() if isinstance(m, BinaryConv2d)}


def write_signs(net: nn.Module, path: Path, packed: bool = True) -> int:
    """Writes what a network needs once its signs are exact, as .npz: no latent weights.

    Args:
        net: with `BinaryConv2d` layers.
        path: of the file, which is whole or not there.
        packed: whether a binary weight takes one bit, or is a float32 of -1 or +1.

    Returns:
        the file's size in bytes.

    Raises:
        OSError: the file can't be written.
    """
    arrays: dict[str, Any] = {key: value.cpu().numpy() for key, value in _needed(net).items()}
    for name in binary_layers(net):
        positive = arrays[f"{name}.weight"] >= 0
        signs = np.where(positive, np.float32(1), np.float32(-1))
        arrays[f"{name}.weight"] = np.packbits(positive) if packed else signs

    def save(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, **arrays)

    write_whole(path, save)
    return path.stat().st_size


def read_signs(net: nn.Module, path: Path) -> None:
    """Puts what `write_signs` wrote, packed or not, into a network of the same shape.

    Raises:
        ValueError: the file is of another network.
        OSError: it can't be read.
    """
    needed = _needed(net)
    binary = {f"{name}.weight" for name in binary_layers(net)}
    with np.load(path) as arrays:
        if arrays.keys() != needed.keys():
            odd = sorted(arrays.keys() ^ needed.keys())
            raise ValueError(f"{path} is of another network; {', '.join(odd)} in one only")
        for key, tensor in needed.items():
            array = arrays[key]
            packed = key in binary and array.dtype == np.uint8
            shape = (-(-tensor.numel() // 8),) if packed else tuple(tensor.shape)
            if array.shape != shape:
                raise ValueError(f"{path}: {key} is {array.shape}, the network's {shape}")
            if packed:
                bits = np.unpackbits(array, count=tensor.numel()).astype(np.float32)
                array = (2 * bits - 1).reshape(tensor.shape)
            needed[key] = torch.from_numpy(array)
    net.load_state_dict(needed, strict=False)


def _needed(net: nn.Module) -> dict[str, Tensor]:
    """Weights and statistics: not the signs' constants, nor batch norm's counts of batches."""
    state = dict(net.state_dict())
    for name, module in net.named_modules():
        if isinstance(module, SpikeFunction):
            for parameter in module.parameter_names:
                del state[f"{name}.{parameter}"]
    return {k: v for k, v in state.items() if not k.endswith(".num_batches_tracked")}
