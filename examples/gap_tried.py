"""What was tried against the transfer gap and is not in the library: a regulariser, noise, a shift.

On held-out samples, soft and hard: HTAF hardened (the default recipe) and smooth to the end, each
alone and with

- a regulariser that pulls potentials away from the threshold, ``weight * mean(4 s (1 - s))`` of the
  outputs s of every layer;
- random hardening: at each step a layer drawn with probability 1/2 fires exactly;

and the smooth network's step with the smooth function's levels at rest and at a spike,
``sigmoid(-alpha1)`` and ``sigmoid(alpha1)``, instead of 0 and 1 (compensation of the leak).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lightning as L
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn
from tqdm import tqdm

from htaf_snn import HTAFSpike, calibrate
from htaf_snn.comparison.seed_statistics import estimate
from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.surrogates import functional
from htaf_snn.training import ModelConfig, SpikingClassifier
from htaf_snn.transfer import accuracy, firing_as_trained, firing_hard, spike_functions


class Regularised(SpikingClassifier):
    """A classifier whose loss has the regulariser too."""

    def __init__(self, *arguments: Any, weight: float = 0.0, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.weight = weight
        self.uncertain: list[Tensor] = []
        for module in self.net.modules():
            if isinstance(module, neuron.BaseNode):
                module.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: Any, s: Tensor) -> None:
        if self.training and self.weight:
            self.uncertain.append((4 * s * (1 - s)).mean())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        self.uncertain.clear()
        loss = super().training_step(batch, batch_index)
        return loss + self.weight * sum(self.uncertain) / max(1, len(self.uncertain))


class RandomHardening(L.Callback):
    """Half of the layers, drawn anew at each step, fire exactly."""

    def on_train_batch_start(self, _trainer: Any, module: Any, _batch: Any, _index: int) -> None:
        for function in spike_functions(module.net):
            function.set_spiking_mode(bool(torch.rand(()) < 0.5))

    def on_train_end(self, _trainer: Any, module: Any) -> None:
        for function in spike_functions(module.net):
            function.mode = "auto"


class Leaking(HTAFSpike):
    """The exact step between HTAF's levels far from the threshold."""

    def forward(self, x: Tensor) -> Tensor:
        leak = 1 / (1 + torch.tensor(self.alpha1).exp())
        return leak + (1 - 2 * leak) * functional.heaviside(x)


def measure(options: argparse.Namespace, seed: int, hardening: Any, weight: float = 0.0,
            noise: bool = False, after: bool = False) -> dict[str, float]:  # fmt: skip
    """Trains a network and measures it, soft, hard and, if ``after``, with what mends the step."""
    L.seed_everything(seed, verbose=False)
    config = DataConfig(
        options.data, options.root, T=options.T, batch_size=options.batch_size, split_seed=seed
    )
    data = SpikingDataModule(config, seed)
    network = ModelConfig(widths=(16, 32, 32), hardening=hardening)
    model = Regularised(data.in_shape, data.num_classes, network, seed, weight=weight)
    L.Trainer(
        max_epochs=options.epochs, callbacks=[RandomHardening()] if noise else [], logger=False,
        enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
    ).fit(model, data)  # fmt: skip
    model.eval()
    held_out = data.val_dataloader()
    found = {}
    with firing_as_trained(model.net):
        found["soft"] = accuracy(model, held_out)
    with firing_hard(model.net):
        found["hard"] = accuracy(model, held_out)
    if after:
        exact = {n: m.surrogate_function for n, m in model.net.named_modules()
                 if isinstance(m, neuron.BaseNode)}  # fmt: skip
        for name in exact:
            node: Any = model.net.get_submodule(name)
            node.surrogate_function, node.backend = Leaking(), "torch"
        found["levels"] = accuracy(model, held_out)
        for name, function in exact.items():
            node = model.net.get_submodule(name)
            node.surrogate_function, node.backend = function, "auto"
        calibrate(model.net, data.train_dataloader())
        found["calibrated"] = accuracy(model, held_out)
    return found


def main() -> None:
    """Prints a line for each variant: means over the seeds with 95 % intervals."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits_events", help="as htaf-snn data lists them")
    parser.add_argument("--root", type=Path, help="folder of the data")
    for name, default in (("T", 8), ("batch_size", 16), ("epochs", 10), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    recipe, smooth = (0.0, 0.8), None
    variants: dict[str, dict[str, Any]] = {
        "hardened (the default)": {"hardening": recipe},
        "hardened, regulariser 0.01": {"hardening": recipe, "weight": 0.01},
        "hardened, regulariser 0.1": {"hardening": recipe, "weight": 0.1},
        "smooth to the end": {"hardening": smooth, "after": True},
        "smooth, regulariser 0.01": {"hardening": smooth, "weight": 0.01},
        "smooth, regulariser 0.1": {"hardening": smooth, "weight": 0.1},
        "smooth, regulariser 1": {"hardening": smooth, "weight": 1.0},
        "smooth, random hardening": {"hardening": smooth, "noise": True},
    }
    with tqdm(total=len(variants) * options.seeds, unit="run") as progress:
        for name, variant in variants.items():
            runs = []
            for seed in range(options.seeds):
                runs.append(measure(options, seed, **variant))
                progress.update()
            cells = (f"{key} {estimate([run[key] for run in runs]):.4f}" for key in runs[0])
            progress.write(f"{name:28} {'   '.join(cells)}")


if __name__ == "__main__":
    main()
