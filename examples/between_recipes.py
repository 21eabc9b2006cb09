"""What a surrogate-free network loses against a hardened one: its gradient, or its optimizer.

    python examples/between_recipes.py --data_folder DIR --data "CIFAR-10 JPEG" --out runs/between

The surrogate-free gradient has a factor of 1 - hardness for each layer of neurons that it passes.
AdamW forgets the larger gradients of before if its memory is short, or never sees them if each
parameter's gradient is scaled to the length 1, as the recipe does. Both are tried with both
recipes, paired by seed at one learning rate. Beside the surrogate-free training the true gradient
and the surrogate's are taken of the same weights and batch after each epoch: the cosine of the
angle between the two, and the quotient of their norms, by layer.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from tqdm import tqdm

from htaf_snn.comparison import Run, aligned, read_results
from htaf_snn.comparison.run import run
from htaf_snn.comparison.seed_statistics import Estimate, estimate
from htaf_snn.comparison.study import Task, preset
from htaf_snn.data.splits import frames_first
from htaf_snn.files import write_whole
from htaf_snn.surrogates import SpikeFunction
from htaf_snn.transfer import unit_gradients

ANGLES = "angles.json"
SAMPLES = 64  # of the validation split, of which gradients are taken
PRESET = Path(__file__).parent / "presets" / "standard.yaml"
LONG: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8}  # AdamW's defaults
SHORT: dict[str, Any] = {"betas": (0.9, 0.95), "eps": 1e-20}
FREE = "htaf@recipe=surrogate_free"
VARIANTS: dict[str, tuple[str, dict[str, Any], bool]] = {
    # by title: contender, AdamW's constants, whether gradients are scaled to the length 1
    "hardened": ("htaf", LONG, False),
    "hardened, unit gradients": ("htaf", LONG, True),
    "hardened, short memory": ("htaf", SHORT, False),
    "surrogate-free": (FREE, LONG, True),
    "surrogate-free, short memory": (FREE, SHORT, False),
}


class _Constants(L.Callback):
    """Gives AdamW other constants."""

    def __init__(self, constants: dict[str, Any]) -> None:
        self._constants = constants

    def on_train_start(self, trainer: L.Trainer, _module: L.LightningModule) -> None:
        for group in trainer.optimizers[0].param_groups:
            group.update(self._constants)


class Angles(L.Callback):
    """Compares the true gradient with the surrogate's of the same weights, after each epoch.

    Attributes:
        found: for each epoch its hardness, and by layer of weights the cosine and the quotient of
            norms, true over surrogate.
    """

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        samples = trainer.datamodule.splits.validation  # which lie class by class
        every = range(0, len(samples), -(-len(samples) // SAMPLES))
        x_seq, labels = frames_first([samples[i] for i in every])
        functional.reset_net(module.net)  # a state with a graph can't be copied
        net = copy.deepcopy(module.net).train()
        true, surrogate = (gradients(net, x_seq, labels, kind) for kind in (True, False))
        hardness = {f.hardness for f in net.modules() if isinstance(f, SpikeFunction)}
        self.found.append(
            {
                "hardness": max(hardness),
                "cosine": {n: _cosine(true[n], surrogate[n]) for n in true},
                "quotient": {n: float(true[n].norm() / surrogate[n].norm()) for n in true},
            }
        )


def gradients(net: nn.Module, x_seq: Tensor, labels: Tensor, true: bool) -> dict[str, Tensor]:
    """The loss's gradient of each convolution's and linear layer's weights.

    Args:
        net: in training.
        x_seq: frames [T, N, C, H, W].
        labels: [N].
        true: of what is put out, instead of the smooth function's derivative.
    """
    for function in net.modules():
        if isinstance(function, SpikeFunction):
            function.true_gradient = true
    functional.reset_net(net)
    net.zero_grad()
    loss: Any = nn.functional.cross_entropy(net(x_seq).mean(0), labels)
    loss.backward()
    layers = {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    return {n: m.weight.grad.double() for n, m in layers.items() if m.weight.grad is not None}


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0, eps=0.0))


@dataclass(frozen=True)
class _Variant(Task):
    """A run with an optimizer of its own; its title is the variant's."""

    angles: Angles = field(default_factory=Angles, compare=False)

    def build(self) -> Any:
        data, model = super().build()
        own: Any = model
        _, constants, unit = VARIANTS[self.title]
        callbacks = [_Constants(constants), self.angles]

        def configure_callbacks() -> list[L.Callback]:
            return callbacks if model.trainer.state.fn == "fit" else []

        def on_before_optimizer_step(_optimizer: object) -> None:
            if unit:
                unit_gradients(own.parameters())

        own.configure_callbacks = configure_callbacks
        own.on_before_optimizer_step = on_before_optimizer_step
        return data, model


def tasks(data_folder: Path, data: str, seeds: Sequence[int], rate: float) -> list[_Variant]:
    """The runs, seed by seed, of one data set of the preset."""
    study = next(one for one in preset(PRESET, data_folder) if one.name == data)
    model = replace(study.model, learning_rate=rate)
    return [
        _Variant(title, task.data, model, contender, task.seed, task.epochs)
        for task in replace(study, contenders=["htaf"], seeds=seeds).tasks()
        for title, (contender, *_) in VARIANTS.items()
    ]


def pairs_of(runs: Collection[Run]) -> dict[str, list[tuple[Run, Run]]]:
    """By variant, its runs, each with the hardened recipe's of the seed."""
    by_seed = {title: {r.seed: r for r in runs if r.data == title} for title in VARIANTS}
    hardened = by_seed.pop("hardened")
    pairs = {t: [(own[s], hardened[s]) for s in own if s in hardened] for t, own in by_seed.items()}
    return {title: own for title, own in pairs.items() if own}


def points(pairs: Sequence[tuple[Run, Run]], name: str) -> Estimate:
    """The mean difference of an accuracy, in percentage points."""
    return estimate([100 * (getattr(a, name) - getattr(b, name)) for a, b in pairs])


def rows(runs: Collection[Run]) -> list[list[str]]:
    """Each variant's accuracies and training loss, less those of the hardened recipe, by seed."""
    found = [
        ["variant", "seeds", "test accuracy (pp)", "validation accuracy (pp)", "training loss"]
    ]
    for title, pairs in pairs_of(runs).items():
        losses = [a.history[-1]["train_loss"] - b.history[-1]["train_loss"] for a, b in pairs]
        cells = [f"{points(pairs, name):+z.2f}" for name in ("hard_accuracy", "val_accuracy")]
        found.append([title, str(len(pairs)), *cells, f"{estimate(losses):+z.4f}"])
    return found


def angles(folder: Path) -> list[list[dict[str, Any]]]:
    """What `Angles` found in each surrogate-free training in a folder."""
    found = json.loads((folder / ANGLES).read_text())
    runs = read_results(folder).runs.items()
    return [found[n] for n, r in runs if r.treatment == "surrogate-free" and n in found]


def directions(found: Sequence[Sequence[dict[str, Any]]]) -> str:
    """The angles of surrogate-free trainings, in a sentence."""
    cosines = [v for epochs in found for epoch in epochs for v in epoch["cosine"].values()]
    ends = [min(epochs[-1]["quotient"].values()) for epochs in found]
    return (
        f"In {len(found)} surrogate-free trainings the true gradient's cosine to the surrogate's "
        f"is at least {min(cosines):.3f} in every layer and epoch, {np.median(cosines):.3f} by "
        f"median; in the first layer it ends {np.median(ends):.0e} times as long."
    )


def main(argv: Sequence[str] | None = None) -> str:
    """Makes the runs that ``--out`` lacks; returns the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_folder", type=Path, required=True)
    parser.add_argument(
        "--data", default="CIFAR-10 JPEG", help="its title in presets/standard.yaml"
    )
    parser.add_argument("--learning_rate", type=float, default=0.006)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--out", type=Path, default=Path("runs/between"))
    chosen = parser.parse_args(argv)
    chosen.out.mkdir(parents=True, exist_ok=True)
    results, path = read_results(chosen.out), chosen.out / ANGLES
    found = json.loads(path.read_text()) if path.exists() else {}
    results.command = f"python examples/between_recipes.py --data {chosen.data!r}"
    plan = tasks(chosen.data_folder, chosen.data, chosen.seeds, chosen.learning_rate)
    for task in tqdm(plan, "runs", unit="run", file=sys.stderr):
        if task.name not in results.runs:
            results.add(task.name, run(task, show=False))
            found[task.name] = task.angles.found
            # before the run, which is not made again once it is written
            write_whole(path, functools.partial(Path.write_text, data=json.dumps(found)))
            results.write(chosen.out)
    table = aligned(rows(results.runs.values()))
    return f"{table}\n{directions(angles(chosen.out))}"


if __name__ == "__main__":
    print(main())
