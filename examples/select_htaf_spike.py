"""HTAFSpike as the firing function of a network that SpikingJelly defines."""

import torch
from spikingjelly.activation_based import functional, monitor, neuron
from spikingjelly.activation_based.model.spiking_resnet import spiking_resnet18

import htaf_snn


def main() -> None:
    """One training step, smooth; then one inference, exact."""
    torch.manual_seed(0)
    net = spiking_resnet18(
        spiking_neuron=htaf_snn.LIFNode, surrogate_function=htaf_snn.HTAFSpike(), num_classes=10
    )
    functional.set_step_mode(net, "m")
    optimizer = torch.optim.AdamW(net.parameters())
    x_seq, labels = torch.rand(4, 2, 3, 32, 32), torch.tensor([3, 7])  # [T, N, C, H, W]

    loss = torch.nn.functional.cross_entropy(net(x_seq).mean(0), labels)
    loss.backward()  # type: ignore[no-untyped-call]  # the true gradient of a smooth network, through all 4 steps
    optimizer.step()
    functional.reset_net(net)
    print(f"trained a step, loss {loss.item():.4f}")

    net.eval()
    with monitor.OutputMonitor(net, neuron.BaseNode) as fired, torch.no_grad():
        net(x_seq)
    assert all(((s == 0) | (s == 1)).all() for s in fired.records)
    print(f"in eval() the spikes of all {len(fired.records)} neuron layers are exactly 0 or 1")


if __name__ == "__main__":
    main()
