"""Synaptic operations and energy of the network with exact spikes, counted by SpikingJelly."""

from spikingjelly.activation_based import functional, op_counter
from torch import Tensor, nn

from .neurons import BackendNode
from .transfer import firing_hard


def operations(net: nn.Module, x_seq: Tensor) -> tuple[float, float]:
    """Synaptic operations and energy in nJ, a sample, of the network that fires exactly.

    Counted by SpikingJelly: an input of spikes costs an accumulate for each spike and synapse, any
    other a multiply-accumulate; the neurons' own operations count too; batch norm is folded into
    the weights, and memory is left out. The network is in ``eval()``, frames are [T, N, C, H, W].

    Source:
        4.6 pJ a multiply-accumulate, 0.9 pJ an accumulate, float32 at 45 nm: Horowitz, "Computing's
        energy problem", ISSCC 2014, doi.org/10.1109/ISSCC.2014.6757323.
    """
    norms = list({type(m) for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)})
    config = op_counter.SimpleEnergyConfig(extra_ignore_modules=norms)
    functional.reset_net(net)
    named = {m: m.backend for m in net.modules() if isinstance(m, BackendNode)}
    for node in named:
        node.backend = "torch"  # a counter sees no operation inside a kernel
    try:
        with firing_hard(net):
            report = op_counter.estimate_simple_energy(net, x_seq, config=config)
    finally:
        for node, backend in named.items():
            node.backend = backend
    samples = x_seq.shape[1]
    return report.counts["synop"] / samples, report.energy_compute_pj / 1000 / samples
