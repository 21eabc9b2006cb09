"""A spike function of one's own, fused on every backend, trained on events."""

import sys
import tempfile
from pathlib import Path

import torch

import htaf_snn
from htaf_snn import comparison
from htaf_snn.data import DataConfig
from htaf_snn.training import ModelConfig


class GaussianSpike(htaf_snn.SpikeFunction):
    """Gaussian error function: smooth in training, the exact step at inference."""

    sigma: float = 0.4

    @staticmethod
    def primitive_function(x: torch.Tensor, sigma: float) -> torch.Tensor:
        value: torch.Tensor = torch.special.ndtr(x / sigma)
        return value


def main(epochs: int = 6) -> None:
    """Trains the small VGG with it on `digits_events` and prints the comparison with HTAF."""
    study = comparison.Study(
        contenders=[f"{__name__}.GaussianSpike", "htaf"],
        seeds=[0],
        epochs=epochs,
        data=DataConfig("digits_events", T=4),
        model=ModelConfig(backend="cpu"),
    )
    print(comparison.table(comparison.compare([study], Path(tempfile.mkdtemp()))))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
