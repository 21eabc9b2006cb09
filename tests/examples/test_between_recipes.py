"""What lies between the surrogate-free recipe and the hardened one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import between_recipes
import lightning as L
import pytest
import torch
from between_recipes import angles, directions, gradients, main, rows, tasks
from torch import nn

from htaf_snn import HTAFSpike
from htaf_snn.comparison.results import Results
from htaf_snn.comparison.study import Study
from htaf_snn.data import DataConfig
from htaf_snn.training import ModelConfig
from tests.comparison.synthetic import make_run

HARDNESS = 0.75


def test_the_true_gradient_is_shorter_by_a_factor_a_layer_and_points_alike() -> None:
    spikes = [HTAFSpike(mode="soft"), HTAFSpike(mode="soft")]
    for spike in spikes:
        spike.hardness = HARDNESS
    layers: list[Any] = [nn.Linear(6, 8), spikes[0], nn.Linear(8, 8), spikes[1], nn.Linear(8, 3)]
    net = nn.Sequential(*layers)
    x_seq, labels = torch.randn(1, 5, 6), torch.arange(5) % 3
    true, surrogate = (gradients(net, x_seq, labels, kind) for kind in (True, False))
    for name, behind in (("0", 2), ("2", 1), ("4", 0)):
        shorter = (1 - HARDNESS) ** behind
        torch.testing.assert_close(true[name], shorter * surrogate[name], rtol=1e-4, atol=1e-8)


def small(*_: Any) -> list[Study]:
    data, model = DataConfig("digits", T=2), ModelConfig(widths=(4,), freeze_norm=None)
    return [Study(contenders=["htaf"], seeds=[0], epochs=1, data=data, model=model)]


def test_it_trains_each_variant_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(between_recipes, "preset", small)
    arguments = ["--data_folder", ".", "--data", "digits", "--seeds", "0", "--out", str(tmp_path)]
    printed = main(arguments)
    *lines, said = printed.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == list(between_recipes.VARIANTS)[1:]
    assert said.startswith("In 2 surrogate-free trainings the true gradient")
    monkeypatch.setattr(between_recipes, "run", None)  # which would raise
    assert main(arguments) == printed


def test_constants_and_lengths_are_the_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(between_recipes, "preset", small)
    found = {}
    for task in tasks(Path(), "digits", [0], 0.01):
        data, model = task.build()
        trainer = L.Trainer(
            max_steps=1, limit_val_batches=0, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(model, data)
        group = trainer.optimizers[0].param_groups[0]
        found[task.title] = group["betas"][1], group["eps"]
        norms = [p.grad.norm().item() for p in model.parameters()]
        is_unit = max(norms) - min(norms) < 1e-6
        assert is_unit == (task.title in ("surrogate-free", "hardened, unit gradients"))
    short = {title for title, constants in found.items() if constants == (0.95, 1e-20)}
    assert short == {"hardened, short memory", "surrogate-free, short memory"}
    assert {found[title] for title in found.keys() - short} == {(0.999, 1e-8)}


def test_pairs_are_by_seed_and_angles_are_summed_up(tmp_path: Path) -> None:
    free = make_run().settings | {
        "model": make_run().settings["model"] | {"recipe": "surrogate_free"}
    }
    results, found = Results(), {}
    for seed, (hard, own) in enumerate(((0.5, 0.49), (0.6, 0.57), (0.7, None))):
        results.add(f"a{seed}", make_run(data="hardened", seed=seed, hard_accuracy=hard))
        if own is not None:
            run = make_run(data="surrogate-free", seed=seed, hard_accuracy=own, settings=free)
            results.add(f"b{seed}", run)
            epochs = [{"cosine": {"x": c}, "quotient": {"x": q, "y": 1.0}}
                      for c, q in ((1.0, 1.0), (0.9 + seed / 100, 1e-5))]  # fmt: skip
            found[f"b{seed}"] = epochs
    results.write(tmp_path)
    (tmp_path / "angles.json").write_text(json.dumps(found))
    (row,) = rows(results.runs.values())[1:]
    assert row == ["surrogate-free", "2", "-2.00 ± 12.71", "+0.00 ± 0.00", "+0.0000 ± 0.0000"]
    said = directions(angles(tmp_path))
    assert "In 2 surr" in said and "at least 0.900 in" in said and "ends 1e-05 times" in said
