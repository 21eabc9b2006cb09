"""The example `llm_heaviside.py`: shortened, with bad input, and its text, gates and scores."""

from __future__ import annotations

import argparse
import math
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

PATH = Path(__file__).parents[2] / "examples" / "llm_heaviside.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(PATH))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Modules with two docstrings each, of words drawn at random."""
    folder = tmp_path_factory.mktemp("source")
    generator = np.random.default_rng(0)
    words = ["the", "gate", "opens", "stays", "shut", "where", "values", "rise", "above", "zero"]
    for i in range(30):
        first, second = (" ".join(generator.choice(words, 40)) for _ in range(2))
        (folder / f"m{i}.py").write_text(f'"""{first}"""\n\ndef f():\n    """{second}"""\n')
    return folder


@pytest.fixture(scope="module")
def checkpoint(
    example: dict[str, Any], source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model of the Qwen type with two layers, and its tokenizer."""
    folder = tmp_path_factory.mktemp("checkpoint")
    config = transformers.Qwen2Config(vocab_size=512, max_position_embeddings=64, **SMALL)
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    texts = example["split"](example["docstrings"](source))[0]
    example["small_tokenizer"](texts).save_pretrained(folder)
    return folder


SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
SHORT = ("--seeds", 2, "--steps", 2, "--pretraining", 2, "--questions", 4, "--context", 16)


def run(monkeypatch: pytest.MonkeyPatch, *options: str | Path | int) -> None:
    monkeypatch.setattr(sys, "argv", ["llm_heaviside.py", *map(str, options)])
    runpy.run_path(str(PATH), run_name="__main__")


def read(example: dict[str, Any], source: Path, *options: str) -> Any:
    return example["arguments"]([*map(str, SHORT), "--source", str(source), *options])


@pytest.mark.parametrize("tune", ["lora", "all"])
def test_a_small_llama_and_a_checkpoint(
    tune: str,
    source: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: list[Any] = ["--model", checkpoint] if tune == "all" else ["--k", 1, 4]
    run(monkeypatch, *SHORT, *model, "--tune", tune, "--source", source, "--out", tmp_path)
    printed = capsys.readouterr().out
    first, *rows = printed.split("difference\n")[1].splitlines()[:6]
    assert "before tuning: perplexity" in printed and first.startswith("perplexity")
    ks = [0, 1, 2] if tune == "all" else [0, 1, 4]
    shown = [line.replace("questions answered", "").split()[0] for line in rows]
    assert shown == [str(k) for k in [*ks[1:], *ks]]
    assert [p.name for p in tmp_path.iterdir()] == ["perplexity.png"]


def test_no_text_is_in_two_splits(example: dict[str, Any], source: Path, tmp_path: Path) -> None:
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / f"again_{path.name}").write_bytes(path.read_bytes())
    for name in ("test", "site-packages"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.py").write_text(f'"""In {name}."""')
    (tmp_path / "broken.py").write_text("def f(:")
    modules = example["docstrings"](tmp_path)
    parts = example["split"](modules)
    assert [len(part) for part in parts] == [48, 6, 6]
    assert len({text for part in parts for text in part}) == 60
    assert len(modules) == 30 and not any("In " in t for part in parts for t in part)


def test_questions_ask_for_a_texts_own_end(example: dict[str, Any]) -> None:
    texts = [[i] * 6 + [100 + i // 2] * 6 for i in range(10)] + [[50, 51]]
    questions = example["ask"](texts, 3, 12)
    assert len(questions) == 3
    for question in questions:
        assert len(question.start) == 6 and len({tuple(end) for end in question.ends}) == 4
        assert question.ends[0][0] == 100 + question.start[0] // 2
    assert len(example["ask"](texts, 100, 12)) == 5


class Fixed(nn.Module):
    """A language model that gives each next token the logit of a table [tokens, tokens]."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, input_ids: Tensor) -> Any:
        return SimpleNamespace(logits=self.table[input_ids])


def test_perplexity_and_answers_of_known_models(example: dict[str, Any]) -> None:
    options = argparse.Namespace(context=4, batch=2)
    stream = torch.arange(14) % 5
    uniform = Fixed(torch.zeros(5, 5))
    assert math.isclose(example["perplexity"](uniform, stream, options), 5, rel_tol=1e-6)
    follows = Fixed(math.log(6) * torch.eye(5).roll(1, 1))  # a token's follower has 6 / (6 + 4)
    stream = torch.tensor([0, 1, 2, 3, 4, 2, 3, 4, 0, 1])  # the last is not in a window
    expected = (10 / 6) ** (7 / 8) * 10 ** (1 / 8)
    assert math.isclose(example["perplexity"](follows, stream, options), expected, rel_tol=1e-6)
    question = example["Question"]
    own = question([0, 1], [[2, 3], [2, 4, 4], [4], [4, 3]])
    tied = question([0, 1], [[2, 3], [2], [1], [0, 0]])
    foreign = question([0, 1], [[3, 3, 3], [2, 3], [1], [0]])
    long = question([0, 1], [[2, 3, 4, 0, 1], [3], [0], [1]])  # the sum is less than of [3]
    assert example["answered"](follows, [own, foreign, long]) == 2 / 3
    assert example["answered"](follows, [tied]) == example["answered"](uniform, [own]) == 0


@pytest.mark.parametrize("tune", ["lora", "all"])
@pytest.mark.parametrize("name", ["HTAF", "straight-through"])
def test_the_last_gates_are_steps_of_a_copy(
    example: dict[str, Any], source: Path, checkpoint: Path, tune: str, name: str
) -> None:
    options = read(example, source, "--model", str(checkpoint), "--tune", tune)
    before = {key: weight.clone() for key, weight in options.base.named_parameters()}
    activation, [constants, *_] = example["ACTIVATIONS"][name]
    progress = SimpleNamespace(update=lambda: None)
    texts = options.texts
    net = example["tuned"](
        options.base, 1, lambda: activation(*constants), 0, texts.train, options, progress
    )
    first, last = example["blocks"](net)
    assert type(first.act_fn).__name__ == "SiLUActivation"
    seen: list[Tensor] = []
    last.act_fn.register_forward_hook(lambda module, inputs, output: seen.append(output))
    net(input_ids=texts.test[None, :16])
    assert set(seen[0].unique().tolist()) == {0, 1}
    changed = {key for key, weight in net.named_parameters() if not weight.equal(before[key])}
    assert all(weight.equal(before[key]) for key, weight in options.base.named_parameters())
    assert changed == {key for key in before if tune == "all" or key.endswith("proj.weight")}


def test_constants_by_validation_and_the_same_windows_for_all(
    example: dict[str, Any], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = read(example, source, "--k", "2")
    names = example["study"].__globals__
    trained: list[Tensor] = []

    def train(net: nn.Module, steps: list[Tensor], *_: Any, **__: Any) -> None:
        trained.append(torch.stack(steps))

    def perplexity(net: nn.Module, stream: Tensor, options: Any) -> float:
        assert stream is options.texts.validation
        function = example["blocks"](net)[-1].act_fn
        value = function.clip if hasattr(function, "clip") else function.alpha0
        return abs(float(value) - 1.7)

    monkeypatch.setitem(names, "train_plain", train)
    monkeypatch.setitem(names, "perplexity", perplexity)
    monkeypatch.setitem(names, "measure", lambda net, texts, options: (1.0, 0.5))
    progress = SimpleNamespace(update=lambda: None, set_postfix_str=lambda text: None)
    base = example["small_llama"](options.texts.train, options, progress)
    trained.clear()
    found = example["study"](base, options, progress)
    assert found["HTAF"].chosen == (1.5, 6.0) and found["straight-through"].chosen == (2.0,)
    assert found["HTAF"].measured.shape == (2, 2, 2)  # k, seeds, measures
    own, (_, _, _, *htaf), (_, _, _, *through) = trained[:2], trained[2:7], trained[7:]
    for windows in (htaf, through):
        assert all(a.equal(b) for a, b in zip(own, windows, strict=True))
    assert not own[0].equal(own[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "gpt2"], "GPT2LMHeadModel has 0 MLPs with gate_proj, up_proj, down_proj"),
        (["--model", "empty"], "--model (=empty) can't be loaded"),
        (["--model", "./none"], "--model (=./none) can't be loaded"),
        (["--model", "checkpoint", "--k", "3"], "--k (=3) must lie between 1 and the model's"),
        (["--model", "checkpoint", "--context", "65"], "--context (=65) is above checkpoint's"),
        (["--k", "5"], "--k (=5) must lie between 1 and the model's depth, 4"),
        (["--k", "2", "-1"], "--k (=-1) must lie between 1"),
        (["--k", "0"], "--k (=0) must lie between 1"),
        (["--source", "none"], "expected a folder of Python modules at none"),
        (["--source", "empty"], "empty has 0 modules with docstrings; 10 are needed"),
        (["--context", "150"], "modules has too few docstrings"),
        (["--seeds", "0"], "--seeds (=0) must be at least 1"),
        (["--lr", "nan"], "--lr (=nan) must lie between 0 and 1"),
    ],
)
def test_bad_input_is_refused_first(
    options: list[str],
    message: str,
    source: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("checkpoint").symlink_to(checkpoint)
    Path("modules").symlink_to(source)
    if "gpt2" in options:
        config = transformers.GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1)
        transformers.GPT2LMHeadModel(config).save_pretrained("gpt2")
        transformers.AutoTokenizer.from_pretrained(checkpoint).save_pretrained("gpt2")
    before = set(tmp_path.iterdir())
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--source", "modules", *options)
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("missing", ["transformers", "peft"])
def test_the_missing_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit, match=r"pip install 'htaf-snn\[llm\]'"):
        runpy.run_path(str(PATH))
