"""How the size of the gradient changes over a network's layers, by depth and by sharpness.

Of an untrained network: the gradient norm of the first convolution's weights over that of the last
one's, on one batch of `digits_events`. Far above 1 it explodes, far below it vanishes. This is what
the default constants were chosen by.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import nn
from tqdm import tqdm

from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.training import ModelConfig, SpikingClassifier

NETWORKS = ("vgg5", "vgg9", "vgg16", "resnet20", "sew_resnet20", "ms_resnet20")
SPIKES = (
    "htaf:alpha0=0.33",
    "htaf",  # alpha0 = 0.67
    "htaf:alpha0=1.0",
    "htaf:alpha0=1.5",
    "htaf:alpha0=2.0:alpha1=11.0",
    "atan",
    "sigmoid",
)


def ratio(network: str, spike: str, hard: bool, data: SpikingDataModule) -> float:
    """The first convolution's gradient norm over the last one's, dimensionless."""
    torch.manual_seed(0)
    hardening = (0.0, 0.0) if hard else None
    config = ModelConfig(spike=spike, model=network, width=0.25, hardening=hardening)
    model = SpikingClassifier(data.in_shape, data.num_classes, config).train()
    x_seq, labels = next(iter(data.train_dataloader()))
    loss = nn.functional.cross_entropy(model(x_seq), labels)
    weights = [m.weight for m in model.net.modules() if isinstance(m, nn.Conv2d)]
    first, last = torch.autograd.grad(loss, (weights[0], weights[-1]))
    return float(first.norm() / last.norm())


def main(networks: Sequence[str] = NETWORKS) -> None:
    data = SpikingDataModule(DataConfig(T=4, batch_size=32, augment=""))
    rows = [(spike, hard) for spike in SPIKES for hard in (False, True)]
    rows = [(spike, hard) for spike, hard in rows if spike.startswith("htaf") or hard]
    cells = [(network, spike, hard) for spike, hard in rows for network in networks]
    found = {
        (network, spike, hard): ratio(network, spike, hard, data)
        for network, spike, hard in tqdm(cells, "networks", unit="network", file=sys.stderr)
    }
    print(f"{'gradient norm, first over last layer':39}" + "".join(f"{n:>14}" for n in networks))
    for spike, hard in rows:
        label = f"{spike}{', exact step' if hard else ', smooth'}"
        print(f"{label:39}" + "".join(f"{found[n, spike, hard]:14.3g}" for n in networks))


if __name__ == "__main__":
    main(sys.argv[1:] or NETWORKS)
