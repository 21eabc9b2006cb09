"""The example `binary_network.py`: shortened, with bad input, paired, and binary at the end."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from tqdm import tqdm

PATH = Path(__file__).parents[2] / "examples" / "binary_network.py"
QUIET = tqdm(disable=True)


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(PATH))


@pytest.fixture(scope="module")
def digits(example: dict[str, Any]) -> Any:
    return example["load"]("digits", None)


def run(monkeypatch: pytest.MonkeyPatch, *options: str | Path | int) -> None:
    monkeypatch.setattr(sys, "argv", ["binary_network.py", *map(str, options)])
    runpy.run_path(str(PATH), run_name="__main__")


def short(epochs: int = 1, width: int = 8) -> argparse.Namespace:
    return argparse.Namespace(epochs=epochs, width=width, true_gradient=False)


def test_it_trains_packs_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, "--data", "digits", "--seeds", 2, "--epochs", 1, "--width", 8, "--tune",
        "--out", tmp_path / "new" / "folder")  # fmt: skip
    captured = capsys.readouterr()
    printed = captured.out
    assert "digits, 2 seeds x 1 epochs" in printed
    assert (captured.out + captured.err).count("validation 0.") == 24  # 12 constants, 2 rates
    for other in ("scaled sigmoid", "straight-through"):
        assert f"\nHTAF - {other}, by seed: " in printed
    contenders = ("htaf", "scaled-sigmoid", "straight-through")
    names = {f"digits_{c}_{s}{end}" for c in contenders for s in (0, 1)
             for end in (".npz", ".packed.npz")}  # fmt: skip
    assert {p.name for p in (tmp_path / "new" / "folder").iterdir()} == names | {"digits.png"}
    for name in ("HTAF", "scaled sigmoid", "straight-through"):
        [row] = [line.split("  ") for line in printed.splitlines() if line.startswith(f"{name}  ")]
        accuracy, packed, _, size, packed_size, *_ = [cell.strip() for cell in row if cell][1:]
        assert accuracy == packed and int(size) > 2 * int(packed_size)


@pytest.mark.parametrize("name", ["HTAF", "scaled sigmoid", "straight-through"])
def test_it_learns_and_ends_binary(
    example: dict[str, Any], digits: Any, name: str, tmp_path: Path
) -> None:
    chosen = example["CONTENDERS"][name]
    options = short(epochs=5, width=16)
    trained = example["train"](
        name, chosen.constants, chosen.learning_rate, 0, digits, options, QUIET
    )
    assert len(trained.exact) == len(trained.as_trained) == 5 and len(trained.weights) == 6
    assert trained.exact[-1] == trained.as_trained[-1] > 0.8
    assert trained.weights[-1].unique().tolist() == [-1, 1]
    if name != "straight-through":
        assert trained.weights[0].abs().max() < 1 and trained.exact[0] != trained.as_trained[0]
    result = example["measure"](
        name, chosen.constants, trained, tmp_path / "net", digits, options
    )  # fmt: skip
    assert result.accuracy == result.packed_accuracy > 0.8
    seen: list[torch.Tensor] = []
    for layer in example["binary_layers"](trained.net).values():
        layer.sign_of_inputs.register_forward_hook(lambda _m, _i, out: seen.append(out))
        layer.sign_of_weights.register_forward_hook(lambda _m, _i, out: seen.append(out))
    trained.net(digits.test[0])
    assert len(seen) == 6 and all(out.unique().tolist() == [-1, 1] for out in seen)


def test_the_contenders_share_initial_weights_and_batches(
    example: dict[str, Any], digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []

    def train(net: nn.Module, batches: Any, *_: Any, **__: Any) -> None:
        epochs = [torch.cat([y for _, y in batches]) for _ in range(2)]
        started.append(([p.detach().clone() for p in net.parameters()], epochs))

    monkeypatch.setitem(example["train"].__globals__, "train_plain", train)
    for name, seed in (("HTAF", 0), ("straight-through", 0), ("HTAF", 1)):
        chosen = example["CONTENDERS"][name]
        example["train"](name, chosen.constants, 1e-2, seed, digits, short(), QUIET)
    htaf, straight, other = started
    for own, theirs in zip(htaf, straight, strict=True):
        assert all(a.equal(b) for a, b in zip(own, theirs, strict=True))
    assert not htaf[0][0].equal(other[0][0]) and not htaf[1][0].equal(other[1][0])
    assert not htaf[1][0].equal(htaf[1][1])  # a new order in each epoch


def test_constants_are_chosen_without_the_test_split(
    example: dict[str, Any], digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    contenders = example["CONTENDERS"]
    for name, contender in list(contenders.items()):
        monkeypatch.setitem(
            contenders, name, contender._replace(candidates=contender.candidates[:1])
        )
    blind = digits._replace(test=None)
    chosen = example["tune"](blind, short(width=2), QUIET)
    assert {name: constants for name, (constants, _) in chosen.items()} == {
        name: contender.candidates[0] for name, contender in contenders.items()
    }


def test_equally_many_candidates_and_the_choice_is_among_them(example: dict[str, Any]) -> None:
    contenders = example["CONTENDERS"].values()
    assert len({len(contender.candidates) for contender in contenders}) == 1
    for contender in contenders:
        assert contender.constants in contender.candidates
        assert contender.learning_rate in example["RATES"]


def test_a_packed_network_that_differs_is_an_error(
    example: dict[str, Any], digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = example["build"]("HTAF", (0.67, 6), digits, short(width=2)).eval()
    trained = example["Trained"](net, [], [], [])
    monkeypatch.setattr(np, "packbits", lambda bits: np.zeros(-(-bits.size // 8), np.uint8))
    with pytest.raises(RuntimeError, match="outputs are not those of the unpacked"):
        example["measure"](
            "HTAF", (0.67, 6), trained, tmp_path / "net", digits, short(width=2)
        )  # fmt: skip


@pytest.mark.slow
def test_real_images(
    example: dict[str, Any], shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTAF_SNN_DATA", str(shared_data))
    options = example["arguments"](["--width", "8", "--epochs", "1"])
    data = options.loaded
    assert (len(data.train[1]), len(data.validation[1]), len(data.test[1])) == (8500, 1500, 2000)
    trained = example["train"]("HTAF", (0.67, 6), 1e-2, 0, data, options, QUIET)
    assert trained.exact == trained.as_trained and trained.exact[0] > 0.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--root", "none"], "no data at none; give --root"),
        ([], "no data at nowhere/fashion_mnist_subset; give --root, their folder, or take --data"),
        (["--root", "."], "no train-images-idx3-ubyte"),
        (["--data", "digits", "--root", "."], "--root (=.): digits needs no files"),
        (["--data", "cifar"], "invalid choice: 'cifar'"),
        (["--epochs", "0"], "--epochs (=0) must be at least 1"),
        (["--seeds", "-1"], "--seeds (=-1) must be at least 1"),
        (["--width", "0"], "--width (=0) must be at least 1"),
    ],
)
def test_bad_input_is_refused_first(
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HTAF_SNN_DATA", "nowhere")
    with pytest.raises(SystemExit):
        run(monkeypatch, *options)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
