"""Small networks in the style of those written for 0.0.0.0.14, for the tests alone."""

# mypy: ignore-errors
from __future__ import annotations

import os

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

BACKEND = os.environ.get("OLD_BACKEND", "cupy")


class LIF(neuron.LIFNode):
    """The neuron of a repository, all arguments set."""

    def __init__(self, tau=2.0, v_threshold=1.0):
        super().__init__(tau, True, v_threshold, 0.0, surrogate.ATan(), True, "m", BACKEND)


class Block(nn.Module):
    """A residual block whose neurons come first."""

    def __init__(self, channels):
        super().__init__()
        self.lif1, self.lif2 = LIF(), LIF(v_threshold=0.5)
        self.conv1 = layer.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = layer.BatchNorm2d(channels)
        self.conv2 = layer.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = layer.BatchNorm2d(channels)

    def forward(self, x):
        y = self.bn1(self.conv1(self.lif1(x)))
        return x + self.bn2(self.conv2(self.lif2(y)))


class Complementary(neuron.BaseNode):
    """A neuron with a second memory, its step in parts and its loop that of the base."""

    def __init__(
        self, tau=2.0, v_threshold=1.0, v_reset=None, surrogate_function=None,
        detach_reset=False, step_mode="s", backend="torch", store_v_seq=False,
    ):  # fmt: skip
        function = surrogate.Sigmoid() if surrogate_function is None else surrogate_function
        super().__init__(
            v_threshold, v_reset, function, detach_reset, step_mode, backend, store_v_seq
        )
        self.tau = tau
        self.register_memory("m", 0.0)

    def neuronal_charge(self, x):
        self.v = self.v * (1.0 - 1.0 / self.tau) + x
        self.m = self.m * torch.sigmoid(self.v / self.tau)

    def neuronal_reset(self, spike):
        self.m = self.m + spike
        self.v = self.v - spike * (self.v_threshold + torch.sigmoid(self.m))


class ByHand(neuron.BaseNode):
    """A neuron whose single step is its own; of an IFNode, 0.0.0.0.14 ignores it in eval()."""

    def neuronal_charge(self, x):
        self.v = self.v + x

    def single_step_forward(self, x):
        self.v_float_to_tensor(x)
        self.neuronal_charge(0.5 * x)
        spike = self.neuronal_fire()
        self.neuronal_reset(spike)
        return spike


class Steep(surrogate.SurrogateFunctionBase):
    """A surrogate of a repository's own."""

    def __init__(self, alpha=1.5, spiking=True):
        super().__init__(alpha, spiking)

    @staticmethod
    def spiking_function(x, a):
        return surrogate.atan.apply(x, 2 * a)

    @staticmethod
    def primitive_function(x, a):
        return torch.sigmoid(x * a)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(layer.Conv2d(2, 4, 3, padding=1), layer.BatchNorm2d(4))
        self.blocks = nn.Sequential(Block(4), Block(4))
        self.own = Complementary(surrogate_function=Steep(), step_mode="m")
        self.pool = layer.AdaptiveAvgPool2d((1, 1))
        self.hand = ByHand(surrogate_function=surrogate.ATan(), step_mode="m")
        self.head = layer.Linear(4, 3)
        functional.set_step_mode(self, "m")
        functional.set_backend(self, BACKEND, instance=neuron.LIFNode)

    def forward(self, x):
        x = self.own(self.blocks(self.stem(x)))
        return self.head(self.hand(self.pool(x * 4.0)).flatten(2))


NETWORKS = {"resnet": ResNet}
