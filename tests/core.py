"""What the core must do where nothing else is installed; run by tests/test_core.py and .ci/run."""

import sys
import time

start = time.perf_counter()
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

host = time.perf_counter()
known = set(sys.modules)
import htaf_snn

end = time.perf_counter()
print(f"import: torch and spikingjelly {host - start:.2f} s, htaf_snn {end - host:.2f} s more")
brought = {name.partition(".")[0] for name in set(sys.modules) - known} - sys.stdlib_module_names
of_torch = {"torch", "_remote_module_non_scriptable", "sympy", "mpmath", "triton"}  # its tracing
brought -= of_torch | {"htaf_snn", "spikingjelly", "numpy", "filelock", "platformdirs", "colorama"}
assert not brought, brought

# A plain loop, on a network whose neurons are SpikingJelly's until they are converted.
torch.manual_seed(0)
net = nn.Sequential(
    layer.Linear(8, 32), neuron.LIFNode(), layer.Linear(32, 2), neuron.IFNode(step_mode="s")
)
functional.set_step_mode(net, "m")
htaf_snn.convert(net)
assert [type(net[i]).__module__.partition(".")[0] for i in (1, 3)] == ["htaf_snn"] * 2
for index in (1, 3):
    net[index].surrogate_function = htaf_snn.HTAFSpike()
x = torch.rand(64, 8) * 2
labels = (x[:, :4].sum(1) > x[:, 4:].sum(1)).long()
x_seq = x.repeat(4, 1, 1)
optimizer = torch.optim.Adam(net.parameters(), 1e-2)
sharpness = htaf_snn.SharpnessSchedule(net, total_steps=60, hardening=(0.0, 0.5))
net.train()
for _ in range(60):
    functional.reset_net(net)
    loss = nn.functional.cross_entropy(net(x_seq).mean(0), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    sharpness.step()
gap = htaf_snn.transfer_gap(net, [(x_seq, labels)])
assert gap.hard_accuracy > 0.8 and gap.gap_pp == 0, gap
print(f"trained to {gap.hard_accuracy:.2f}, gap {gap.gap_pp:.2f} pp")
