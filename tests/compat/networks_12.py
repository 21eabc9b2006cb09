"""Small networks in the style of those written for 0.0.0.0.12, for the tests alone."""

# mypy: ignore-errors
from __future__ import annotations

import os
from functools import partial

import torch
from spikingjelly.clock_driven import functional, layer, neuron, surrogate
from spikingjelly.clock_driven.neuron import (
    MultiStepIFNode,
    MultiStepLIFNode,
    MultiStepParametricLIFNode,
)
from torch import nn

BACKEND = os.environ.get("OLD_BACKEND", "cupy")


class Patches(nn.Module):
    """Convolutions whose norm and neurons see [T * N] and [T, N] in turn."""

    def __init__(self, channels=8):
        super().__init__()
        self.proj_conv = nn.Conv2d(2, channels, 3, 1, 1, bias=False)
        self.proj_bn = nn.BatchNorm2d(channels)
        self.proj_lif = MultiStepLIFNode(tau=2.0, detach_reset=True, backend=BACKEND)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.rpe_conv = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.rpe_bn = nn.BatchNorm2d(channels)
        self.rpe_lif = MultiStepLIFNode(tau=2.0, detach_reset=True, backend=BACKEND)

    def forward(self, x):
        T, B, _, H, W = x.shape
        x = self.proj_bn(self.proj_conv(x.flatten(0, 1)))
        x = self.proj_lif(x.reshape(T, B, -1, H, W).contiguous()).flatten(0, 1).contiguous()
        x = self.maxpool(x)
        residual = x.reshape(T, B, -1, H // 2, W // 2).contiguous()
        x = self.rpe_bn(self.rpe_conv(x)).reshape(T, B, -1, H // 2, W // 2).contiguous()
        return (self.rpe_lif(x) + residual).flatten(-2).transpose(-1, -2)


class Attention(nn.Module):
    """Spiking attention, its neurons' threshold 0.5."""

    def __init__(self, dim=8, heads=2):
        super().__init__()
        self.heads = heads
        for name in ("q", "k", "v"):
            setattr(self, f"{name}_linear", nn.Linear(dim, dim))
            setattr(self, f"{name}_bn", nn.BatchNorm1d(dim))
            lif = MultiStepLIFNode(tau=2.0, detach_reset=True, backend=BACKEND)
            setattr(self, f"{name}_lif", lif)
        self.attn_lif = MultiStepLIFNode(
            tau=2.0, v_threshold=0.5, detach_reset=True, backend=BACKEND
        )

    def forward(self, x):
        T, B, N, C = x.shape
        parts = []
        for name in ("q", "k", "v"):
            y = getattr(self, f"{name}_linear")(x.flatten(0, 1))
            y = getattr(self, f"{name}_bn")(y.transpose(-1, -2)).transpose(-1, -2)
            y = getattr(self, f"{name}_lif")(y.reshape(T, B, N, C).contiguous())
            y = y.reshape(T, B, N, self.heads, C // self.heads).permute(0, 1, 3, 2, 4)
            parts.append(y.contiguous())
        q, k, v = parts
        x = (q @ k.transpose(-2, -1)) @ v * 0.25
        return self.attn_lif(x.transpose(2, 3).reshape(T, B, N, C).contiguous())


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.attention, self.head = Patches(), Attention(), nn.Linear(8, 3)

    def forward(self, x):
        x = self.patches(x)
        return self.head((x + self.attention(x)).mean(2)).mean(0)


class OwnCharge(MultiStepLIFNode):
    """Neurons with a charge equation of their own, as in papers' repositories."""

    def neuronal_charge(self, x):
        self.v = self.v * (1.0 - 1.0 / self.tau) + x * 0.75


class OwnNode(neuron.BaseNode):
    """A neuron with a second state, stepped by hand."""

    def __init__(self, decay=0.5, **kwargs):
        super().__init__(**kwargs)
        self.decay = decay
        self.register_memory("m", 0.0)

    def neuronal_charge(self, x):
        self.m = self.m * self.decay + x
        self.v = self.v * 0.5 + self.m

    def neuronal_reset(self, spike):
        self.v = self.v - spike.detach() * self.v_threshold


class Containers(nn.Module):
    """Layers in containers, one step at a time and all at once; a learned time constant."""

    def __init__(self):
        super().__init__()
        self.conv = layer.SeqToANNContainer(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.sn = MultiStepParametricLIFNode(2.0, True, 0.4, 0.0, surrogate.ATan())
        self.own = OwnCharge(v_threshold=0.4, surrogate_function=surrogate.ATan(), backend=BACKEND)
        self.norm = layer.MultiStepThresholdDependentBatchNorm2d(1.0, 1.0, 4)
        self.node = MultiStepIFNode(1.0, None, surrogate.PiecewiseLeakyReLU(), False, BACKEND)
        self.single = layer.MultiStepContainer(OwnNode(surrogate_function=surrogate.Sigmoid()))
        self.pool = layer.SeqToANNContainer(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        x = self.own(self.sn(self.conv(x)))
        return self.pool(self.single(self.node(self.norm(2.0 * x))))


class Looped(nn.Module):
    """A loop over time in the network."""

    def __init__(self):
        super().__init__()
        node = partial(neuron.LIFNode, surrogate_function=surrogate.ATan(), detach_reset=True)
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(128, 6), node(tau=4.0 / 3), nn.Linear(6, 3))
        self.last = neuron.IFNode(v_threshold=0.5, surrogate_function=surrogate.ATan())

    def forward(self, x):
        made = functional.multi_step_forward(x, [self.fc, self.last])
        assert isinstance(self.last.v, torch.Tensor)
        return made


NETWORKS = {"transformer": Transformer, "containers": Containers, "looped": Looped}
