"""Binary convolutions, against counted bits, and their one-bit files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from common.binary import BinaryConv2d, ClippedSign, binary_layers, read_signs, write_signs
from torch import nn

import htaf_snn

SIGNS: dict[str, Callable[[], nn.Module]] = {
    "HTAF": partial(htaf_snn.HTAF, signed=True),
    "HTAF, learned": partial(htaf_snn.HTAF, signed=True, learnable=True),
    "straight-through": ClippedSign,
}
each_sign = pytest.mark.parametrize("sign", SIGNS.values(), ids=SIGNS)


def network(sign: Callable[[], nn.Module], width: int = 5) -> nn.Sequential:
    net = nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.BatchNorm2d(width),
        BinaryConv2d(width, width, 2, sign),
        nn.BatchNorm2d(width),
        BinaryConv2d(width, width, 1, sign),
        nn.BatchNorm2d(width),
        sign(),
        nn.Flatten(),
        nn.Linear(width * 9, 4),
    )
    net(torch.randn(16, 3, 7, 7))  # batch norm has seen something
    return net


@each_sign
@pytest.mark.parametrize("stride", [1, 2])
def test_it_counts_equal_bits(sign: Callable[[], nn.Module], stride: int) -> None:
    layer = BinaryConv2d(3, 4, stride, sign).eval()
    x = torch.randn(2, 3, 5, 7)
    x[0, 0, 0, 0] = layer.weight.data[0, 0, 1, 1] = 0.0  # the sign of 0 is +1
    bits = np.pad(x.numpy() >= 0, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=True)
    weights = layer.weight.detach().numpy() >= 0
    expected = np.empty((2, 4, -(-5 // stride), -(-7 // stride)))
    for row, column in np.ndindex(expected.shape[2:]):
        top, left = stride * row, stride * column
        window = bits[:, None, :, top : top + 3, left : left + 3]
        expected[:, :, row, column] = 27 - 2 * (window ^ weights).sum((2, 3, 4))
    np.testing.assert_array_equal(layer(x).detach().numpy(), expected)


def test_the_gradients_of_the_signs() -> None:
    x = torch.tensor([-1.5, -1.0, -0.2, 0.0, 0.9, 1.1])
    for sign, passes in ((ClippedSign(1.0), [0, 2, 2, 2, 2, 0]), (SIGNS["HTAF"](), None)):
        leaf = x.clone().requires_grad_()
        sign(leaf).sum().backward()
        if passes is None:
            assert leaf.grad is not None and (leaf.grad > 0).all()
        else:
            assert leaf.grad is not None and leaf.grad.tolist() == passes


def test_latent_weights_are_clipped_at_the_straight_through_band_only() -> None:
    for sign, greatest in ((partial(ClippedSign, 0.5), 0.5), (SIGNS["HTAF"], 3.0)):
        layer = BinaryConv2d(2, 2, 1, sign)
        layer.weight.data.fill_(3)
        layer.clip()
        assert layer.weight.unique().tolist() == [greatest]


@each_sign
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_read_back_gives_the_same_outputs(
    sign: Callable[[], nn.Module], packed: bool, tmp_path: Path
) -> None:
    net, back = network(sign), network(sign)
    path = tmp_path / "net.npz"
    assert write_signs(net, path, packed) == path.stat().st_size
    read_signs(back, path)
    x = torch.randn(8, 3, 7, 7)
    assert net.eval()(x).equal(back.eval()(x))
    for layer in binary_layers(back).values():
        assert layer.weight.unique().tolist() == [-1, 1]
    with np.load(path) as arrays:
        assert arrays["2.weight"].nbytes == (29 if packed else 4 * 225)  # 225 bits
        assert len(arrays) == 18 and not any("sign" in key for key in arrays)


def test_a_file_of_another_network_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    write_signs(network(ClippedSign), path)
    other = network(ClippedSign, width=6)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"0.weight is \(5, 3, 3, 3\), the network's \(6, 3, 3, 3"):
        read_signs(other, path)
    with pytest.raises(ValueError, match=r"another network; 0.running_mean, .* in one only"):
        read_signs(nn.Sequential(nn.BatchNorm2d(5)), path)
    assert all(value.equal(before[key]) for key, value in other.state_dict().items())


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.npz"
    write_signs(network(ClippedSign), path)
    old = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        write_signs(network(ClippedSign), path)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]
