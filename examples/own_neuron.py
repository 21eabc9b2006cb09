"""A neuron of one's own, an adaptive LIF with a learned tau a channel, trained on events."""

import sys
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn

import htaf_snn
from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.neurons.kernels.buffers import cuda_source
from htaf_snn.neurons.kernels.cuda import backward_segment
from htaf_snn.neurons.step.graph import decode
from htaf_snn.neurons.traced import step_of


class AdaptiveLIF(htaf_snn.Neuron):
    """Each spike raises the threshold by beta, which decays with tau_a."""

    states = {"v": 0.0, "a": 0.0}  # noqa: RUF012
    w: float = 0.0  # 1 / tau = sigmoid(w), which stays between 0 and 1 while it is learned
    tau_a: float = 10.0
    beta: float = 0.2

    def step(self, x: Tensor, v: Tensor, a: Tensor) -> tuple[Tensor, ...]:
        h = v + (x - v) * torch.sigmoid(torch.as_tensor(self.w))
        spike = self.surrogate_function(h - self.v_threshold - self.beta * a)
        return spike, (1 - spike) * h, a + (spike - a / self.tau_a)


def network(channels: int = 16) -> nn.Sequential:
    """A small convolutional network; the neuron's backend is named, so nothing falls back."""
    net = nn.Sequential(
        layer.Conv2d(2, channels, 3, stride=2, padding=1),
        layer.BatchNorm2d(channels),
        AdaptiveLIF(learn=("w",), num_channels=channels, backend="cpu"),
        layer.AdaptiveAvgPool2d(4),
        layer.Flatten(),
        layer.Linear(16 * channels, 10),
    )
    functional.set_step_mode(net, "m")
    return net


def main(epochs: int = 8) -> None:
    """Trains on `digits_events`, prints accuracy and the learned taus, and compiles for CUDA."""
    torch.manual_seed(0)
    data = SpikingDataModule(DataConfig("digits_events", T=8, batch_size=64))
    data.prepare_data()
    data.setup("fit")
    net = network()
    steps = epochs * len(data.train_dataloader())
    schedule = htaf_snn.SharpnessSchedule(net, steps, hardening=(0.0, 0.8))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for epoch in range(epochs):
        net.train()
        for frames, labels in data.train_dataloader():
            loss = nn.functional.cross_entropy(net(frames).mean(0), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            functional.reset_net(net)
        net.eval()
        right = count = 0
        with torch.no_grad():
            for frames, labels in data.val_dataloader():
                right += int((net(frames).mean(0).argmax(-1) == labels).sum())
                count += len(labels)
                functional.reset_net(net)
        print(f"epoch {epoch}: loss {loss.item():.3f}, hard accuracy {right / count:.3f}")
    node: Any = net[2]
    print("learned tau:", [round(1 / w, 2) for w in node.w.sigmoid().tolist()])
    program = decode(step_of(node).traced.program)
    print(f"CUDA text: {len(cuda_source(program, torch.float32, 8).splitlines())} lines, "
          f"{backward_segment(program)} steps in registers")  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
