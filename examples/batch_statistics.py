"""Why a network can lose accuracy between training and use without any transfer gap.

A network is trained with the statistics of each batch to the end. Printed are, for each batch norm,
how far its input's mean moves from batch to batch (in standard deviations of the input) and its
variance (as a share of its mean), and the validation accuracy

- with each batch's statistics, as trained;
- with running averages, as used;
- with all norms re-estimated at once, each batch normalised by itself;
- with one norm re-estimated after the other, those before it as at inference (`calibrate`).

    python examples/batch_statistics.py --data fashion_mnist --root DIR --model vgg9 --width 0.125
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from htaf_snn import calibrate
from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.training import ModelConfig, SpikingClassifier
from htaf_snn.transfer import accuracy, batch_statistics, firing_hard, norms_of

BATCHES = 60  # whose statistics are compared, and from which they are re-estimated


def spread(model: SpikingClassifier, batches: list[tuple[Tensor, Tensor]]) -> list[list[float]]:
    """Of each norm: the mean's and the variance's movement between batches, median of channels."""
    seen: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms_of(model.net)}

    def keep(norm: nn.Module, inputs: Any) -> None:
        x = inputs[0].flatten(0, 1).transpose(0, 1).flatten(1)  # [C, *]
        seen[norm].append(torch.stack(torch.var_mean(x.double(), 1)))

    handles = [norm.register_forward_pre_hook(keep) for norm in seen]
    with torch.no_grad(), firing_hard(model.net), batch_statistics(model.net):
        for x_seq, _ in batches:
            model(x_seq)
    for handle in handles:
        handle.remove()
    rows = []
    for found in map(torch.stack, seen.values()):
        variance, mean = found[:, 0], found[:, 1]
        moves = (mean.std(0) / variance.mean(0).sqrt(), variance.std(0) / variance.mean(0))
        rows.append([float(move.median()) for move in moves])
    return rows


def main(data: DataConfig, config: ModelConfig, epochs: int, seed: int) -> None:
    L.seed_everything(seed, verbose=False)
    module = SpikingDataModule(data, seed)
    model = SpikingClassifier(module.in_shape, module.num_classes, config, seed)
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, module)
    net = model.net.eval()
    train = [batch for batch, _ in zip(module.train_dataloader(), range(BATCHES), strict=False)]
    validation = list(module.val_dataloader())
    print("norm  mean moves by  variance moves by")
    for number, (mean, variance) in enumerate(spread(model, train)):
        print(f"{number:4}  {mean:13.2f}  {variance:17.2f}")
    with firing_hard(net):
        with batch_statistics(net):
            print(f"as trained, with batch statistics  {accuracy(model, validation):.4f}")
        print(f"as used, with running averages     {accuracy(model, validation):.4f}")
        norms = norms_of(net)
        update_bn([x_seq for x_seq, _ in train], model)
        model.eval()
        print(f"re-estimated at once               {accuracy(model, validation):.4f}")
    calibrate(net, train)
    with firing_hard(net):
        print(f"re-estimated one after the other   {accuracy(model, validation):.4f}")
    print(f"({len(norms)} norms, {len(train)} batches)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="digits", help="a data set of htaf-snn data")
    parser.add_argument("--root", type=Path, help="its folder")
    parser.add_argument("--model", default="vgg_small", help="a network of htaf-snn models")
    parser.add_argument("--width", type=float, default=1.0, help="factor on its channels")
    parser.add_argument("--T", type=int, default=1, help="time steps")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    main(
        DataConfig(name=given.data, root=given.root, T=given.T, batch_size=32, augment=""),
        ModelConfig(model=given.model, width=given.width, freeze_norm=None),
        given.epochs,
        given.seed,
    )
