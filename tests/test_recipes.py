"""Every recipe starts, and its original surrogate is one that is known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from htaf_snn.cli import main
from htaf_snn.surrogates import spike_function
from tests.data.test_event_sets import write_set
from tests.data.test_images import cifar

RECIPES = sorted((Path(__file__).parents[1] / "examples/recipes").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_starts(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    text = recipe.read_text()
    settings = yaml.safe_load(text)
    name, root = settings["data"]["name"], tmp_path / "data"
    if name == "nmnist":
        root = request.getfixturevalue("shared_data") / "nmnist_small"
    elif name in ("cifar10", "cifar100"):
        cifar(root, name.upper(), monkeypatch)
    else:
        write_set(name, root)
    original = re.search(r"^# Original surrogate: (\S+)$", text, re.MULTILINE)
    assert original or recipe.stem == "nmnist_small"
    if original:
        spike_function(original[1])
    out = tmp_path / "out"
    widths = settings["model"].get("widths")
    main([
        "fit", f"--config={recipe}", f"--data.root={root}",
        f"--model.widths={[4] * len(widths)}" if widths else "--model.width=0.05",
        "--data.batch_size=4", "--data.num_workers=0", "--data.validation=0.3",
        "--trainer.max_epochs=1", "--trainer.limit_train_batches=2",
        "--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu", f"--out={out}",
    ])  # fmt: skip
    assert (out / "checkpoints/last.ckpt").is_file()
    assert "# Not yet run here." in text or not original
