"""Step activations in language models: the gates of the last k MLP blocks open or stay shut.

The MLP of a Llama- or Qwen-type model is ``down(act(gate(x)) * up(x))``. In its last k blocks
``act`` becomes HTAF, smooth at first and hardened in training, or the straight-through step; the
model is fine-tuned and measured with the exact step. How do perplexity and multiple choice (which
of four second halves belongs to a text) depend on k? Each activation's constants are those of the
least perplexity on validation at the greatest k.

The texts are the docstrings of Python modules, the standard library's by default, apart by module.
Without --model, a small Llama is trained on them first, with its own activation (SiLU).

    python examples/llm_heaviside.py
    python examples/llm_heaviside.py --model Qwen/Qwen2.5-0.5B --k 6 12 --source my_package
"""

from __future__ import annotations

import argparse
import ast
import copy
import itertools
import math
import sysconfig
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common.plain import train_plain
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

import htaf_snn
from htaf_snn.comparison import aligned, plots
from htaf_snn.comparison.seed_statistics import estimate
from htaf_snn.files import write_whole
from htaf_snn.process import seed_torch

try:
    import peft
    import tokenizers
    import transformers
except ImportError as error:
    raise SystemExit(f"{error}; install it by: pip install 'htaf-snn[llm]'") from error

Constants = tuple[float, ...]
ACTIVATIONS: dict[str, tuple[Callable[..., nn.Module], Sequence[Constants]]] = {
    "HTAF": (htaf_snn.HTAF, [(0.3, 6.0), (0.67, 6.0), (1.5, 6.0)]),
    "straight-through": (htaf_snn.StraightThrough, [(0.5,), (1.0,), (2.0,)]),
}
COLORS = dict(zip(ACTIVATIONS, ("#0b3c8c", "#7a7a7a"), strict=True))
PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")  # of an MLP whose gate can be a step
START = "<|start|>"  # of each text, for the small Llama
VOCABULARY, WIDTH, HIDDEN, DEPTH = 512, 96, 256, 4  # of the small Llama
COUNTS = {"seeds": (3, 1), "steps": (320, 1), "pretraining": (1000, 1), "batch": (16, 1),
          "context": (64, 8), "questions": (200, 1)}  # fmt: skip
CHOICES = 4
MEASURES = {"perplexity": ".2f", "questions answered": ".3f"}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Question(NamedTuple):
    """The first half of a text and possible second halves, as tokens; the first is the true one."""

    start: list[int]
    ends: list[list[int]]


class Measured(NamedTuple):
    """On the test split with the exact step: perplexity a token, share of questions answered."""

    perplexity: float
    answered: float


class Result(NamedTuple):
    """An activation's perplexity on validation by constants, and its measures [k, seeds, 2]."""

    validation: dict[Constants, float]
    chosen: Constants
    measured: NDArray[np.float64]


class Texts(NamedTuple):
    """Tokens of the splits, each text begun by a start token, and the test split's questions."""

    train: Tensor
    validation: Tensor
    test: Tensor
    questions: list[Question]


def docstrings(folder: Path) -> dict[str, list[str]]:
    """The docstrings of each module under a folder, each where it is found first.

    Installed packages and tests are left out.
    """
    found: dict[str, list[str]] = {}
    known: set[str] = set()
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder)
        if {"site-packages", "dist-packages", "test", "tests"} & set(name.parts):
            continue
        with warnings.catch_warnings(action="ignore"):  # of escapes that Python will refuse one day
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError):
                continue
        nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        texts = [ast.get_docstring(n) for n in ast.walk(tree) if isinstance(n, nodes)]
        new = [text for text in dict.fromkeys(texts) if text and text not in known]
        known.update(new)
        if new:
            found[name.as_posix()] = new
    return found


def split(modules: dict[str, list[str]]) -> list[list[str]]:
    """The texts of training, validation and test: of 80, 10 and 10 % of the modules."""
    names = np.random.default_rng(0).permutation(sorted(modules))
    ends = [len(names) * 8 // 10, len(names) * 9 // 10]
    return [[t for name in part for t in modules[name]] for part in np.split(names, ends)]


def small_tokenizer(texts: Sequence[str]) -> Any:
    """Byte pairs of the texts."""
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, VOCABULARY, special_tokens=[START], show_progress=False)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, bos_token=START, eos_token=START
    )


def tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Each text's tokens after a start token."""
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return [[start, *ids] for ids in tokenizer(list(texts), add_special_tokens=False).input_ids]


def ask(texts: Sequence[list[int]], count: int, context: int) -> list[Question]:
    """Questions on texts of at least half the context, none of them with two equal ends."""
    halves = {}
    for text in texts:
        if len(text) >= context // 2:
            text = text[:context]
            halves[tuple(text[len(text) // 2 :])] = text[: len(text) // 2]
    generator = np.random.default_rng(0)
    ends = list(map(list, halves))
    questions = []
    for i in generator.permutation(len(ends))[:count]:
        others = generator.permutation(np.delete(np.arange(len(ends)), i))[: CHOICES - 1]
        questions.append(Question(halves[tuple(ends[i])], [ends[j] for j in (i, *others)]))
    return questions


def blocks(model: nn.Module) -> list[Any]:
    """The MLPs whose gate can be a step, first to last."""
    return [m for m in model.modules() if all(hasattr(m, part) for part in PARTS)]


def log_probabilities(net: nn.Module, ids: Tensor) -> Tensor:
    """Of each token [N, L] but the first, given those before it: [N, L - 1]."""
    logits = net(input_ids=ids[:, :-1]).logits.float()
    return -nn.functional.cross_entropy(logits.mT, ids[:, 1:], reduction="none")


def loss(net: nn.Module, ids: Tensor) -> Tensor:
    """Mean of the tokens' negative log-probabilities."""
    return -log_probabilities(net, ids.to(DEVICE)).mean()


@torch.no_grad()
def perplexity(net: nn.Module, stream: Tensor, options: argparse.Namespace) -> float:
    """Of a token, over windows that share no predicted token."""
    windows = stream.unfold(0, options.context + 1, options.context)
    parts = torch.split(windows, options.batch)
    return math.exp(sum(len(ids) * float(loss(net, ids)) for ids in parts) / len(windows))


@torch.no_grad()
def answered(net: nn.Module, questions: Sequence[Question]) -> float:
    """Share of the questions whose true end has the greatest mean log-probability of a token."""
    right = 0
    for question in questions:
        first = len(question.start) - 1  # the prediction of the end's first token
        rows = [torch.tensor(question.start + end) for end in question.ends]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(DEVICE)
        found = log_probabilities(net, ids)[:, first:]
        scores = [
            float(row[: len(end)].mean()) for row, end in zip(found, question.ends, strict=True)
        ]
        right += scores[0] > max(scores[1:])
    return right / len(questions)


def measure(net: nn.Module, texts: Texts, options: argparse.Namespace) -> Measured:
    """Reads the test split."""
    return Measured(perplexity(net, texts.test, options), answered(net, texts.questions))


def batches(stream: Tensor, steps: int, options: argparse.Namespace) -> list[Tensor]:
    """Windows [batch, context + 1] of the stream, at random places."""
    starts = torch.randint(len(stream) - options.context, (steps, options.batch, 1))
    return list(stream[starts + torch.arange(options.context + 1)])


def small_llama(train: Tensor, options: argparse.Namespace, progress: Any) -> Any:
    """Trained from scratch."""
    seed_torch("base")
    net = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=HIDDEN,
            num_hidden_layers=DEPTH, num_attention_heads=4, tie_word_embeddings=True,
            max_position_embeddings=options.context, bos_token_id=0, eos_token_id=0,
        )
    ).to(DEVICE)  # fmt: skip
    steps = batches(train, options.pretraining, options)
    train_plain(net, steps, loss, 1, 5e-3, on_step=progress.update)
    return net.eval().cpu()


def tuned(base: nn.Module, k: int, activation: Callable[[], nn.Module], seed: object, train: Tensor,
          options: argparse.Namespace, progress: Any) -> Any:  # fmt: skip
    """A copy of the base, its last k gates replaced, fine-tuned and with the exact step."""
    seed_torch("tuning", seed)  # the same windows for each activation and k
    steps = batches(train, options.steps, options)
    net: Any = copy.deepcopy(base)
    mlps = blocks(net)
    for mlp in mlps[len(mlps) - k :]:
        mlp.act_fn = activation()
    if options.tune == "lora":
        low_rank = peft.LoraConfig(r=8, lora_alpha=32, target_modules="all-linear")
        net = peft.get_peft_model(net, low_rank)
    net.to(DEVICE)
    train_plain(net, steps, loss, 1, options.lr, on_step=progress.update)
    if options.tune == "lora":
        net = net.merge_and_unload()
    htaf_snn.harden(net)
    return net.eval()


def study(base: nn.Module, options: argparse.Namespace, progress: Any) -> dict[str, Result]:
    """Chooses constants and measures them, for each activation and k."""
    texts: Texts = options.texts

    def net(k: int, name: str, constants: Constants, seed: object) -> Any:
        progress.set_postfix_str(f"k = {k}, {name}")
        activation = partial(ACTIVATIONS[name][0], *constants)
        return tuned(base, k, activation, seed, texts.train, options, progress)

    def measured(k: int, name: str, constants: Constants) -> list[Measured]:
        return [measure(net(k, name, constants, s), texts, options) for s in range(options.seeds)]

    own = measured(0, "HTAF", ())  # whose gates stay as they are, whatever the name
    found = {}
    for name, (_, candidates) in ACTIVATIONS.items():
        validation = {
            constants: perplexity(net(options.k[-1], name, constants, "choice"),
                                  texts.validation, options)
            for constants in candidates
        }  # fmt: skip
        chosen = min(validation, key=lambda constants: validation[constants])
        by_k = [own, *(measured(k, name, chosen) for k in options.k[1:])]
        found[name] = Result(validation, chosen, np.array(by_k))
    return found


def report(results: dict[str, Result], ks: Sequence[int]) -> str:
    """A line for each k and measure."""
    lines: list[tuple[str, ...]] = [("", "k", *results, "difference")]
    for column, (measure, form) in enumerate(MEASURES.items()):
        for place, k in enumerate(ks):
            values = [result.measured[place, :, column] for result in results.values()]
            columns = [*values, values[1] - values[0]] if k else values
            shown = (f"{estimate(v.tolist()):{form}}" for v in columns)
            lines.append(("" if place else measure, str(k), *shown, *[""] * (not k)))
    return aligned(lines)


def draw(results: dict[str, Result], ks: Sequence[int]) -> Figure:
    """Perplexity and accuracy over k, with intervals."""
    figure = plots.new_figure(2.3, 2 * plots.COLUMN)
    for column, (axes, measure) in enumerate(zip(figure.subplots(1, 2), MEASURES, strict=True)):
        for (name, result), marker, shift in zip(
            results.items(), "os", (-0.015, 0.015), strict=True
        ):
            found = [estimate(seeds.tolist()) for seeds in result.measured[:, :, column]]
            widths = [estimate.half_width or 0.0 for estimate in found]
            look = {"color": COLORS[name], "marker": marker, "linewidth": 1, "label": name}
            places = np.array(ks) + shift * ks[-1]  # apart, where they coincide
            axes.errorbar(places, [estimate.mean for estimate in found], widths, **look)
        axes.set_xlabel("blocks whose gate is a step (k)")
        axes.set_ylabel(measure)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.axhline(1 / CHOICES, color="black", linewidth=0.8, linestyle=":", label="by chance")
    axes.legend(loc="center left")
    return figure


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line asks for, with its model and its texts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", help="a checkpoint's folder or a name on the hub; default: a small Llama")
    add("--source", type=Path, help="folder of Python modules; default: the standard library's",
        default=Path(sysconfig.get_path("stdlib")))  # fmt: skip
    add("--k", type=int, nargs="+", help="beside 0; default: each quarter of the depth")
    add("--tune", choices=["lora", "all"], help="default: all weights, or lora with --model")
    add("--lr", type=float, help="of fine-tuning; default: 3e-3, or 2e-4 with --model")
    for name, (default, _) in COUNTS.items():
        add(f"--{name}", type=int, default=default, help=f"default: {default}")
    add("--out", type=Path, default=Path("runs/llm_heaviside"), help="folder of the picture")
    options = parser.parse_args(argv)
    try:
        load(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return options


def load(options: argparse.Namespace) -> None:
    """Checks the options and replaces some by what they stand for: base, k, lr and texts."""
    for name, (_, least) in COUNTS.items():
        if getattr(options, name) < least:
            raise ValueError(f"--{name} (={getattr(options, name)}) must be at least {least}")
    tune, lr = ("all", 3e-3) if options.model is None else ("lora", 2e-4)
    options.tune = options.tune or tune
    options.lr = lr if options.lr is None else options.lr
    if not 0 < options.lr < 1:
        raise ValueError(f"--lr (={options.lr}) must lie between 0 and 1")
    if not options.source.is_dir():
        raise ValueError(f"expected a folder of Python modules at {options.source}")
    options.base, tokenizer = pretrained(options.model, options.context)
    depth = DEPTH if options.base is None else len(blocks(options.base))
    options.k = sorted({0, *(options.k or (math.ceil(depth * i / 4) for i in range(1, 5)))})
    if options.k[0] < 0 or options.k[-1] > depth or options.k == [0]:
        wrong = options.k[0] if options.k[0] < 0 else options.k[-1]
        raise ValueError(f"--k (={wrong}) must lie between 1 and the model's depth, {depth}")
    options.texts = read(options, tokenizer)


def pretrained(name: str | None, context: int) -> tuple[Any, Any]:
    """The model in float32 and its tokenizer; None of both if no model is named."""
    if name is None:
        return None, None
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(name).float()
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(
            f"--model (={name}) can't be loaded; give the folder of a checkpoint with its "
            f"tokenizer, or a name on the hub within its reach: {error}"
        ) from error
    config = model.config.get_text_config()
    layers, found = config.num_hidden_layers, len(blocks(model))
    if found != layers:
        raise ValueError(
            f"{type(model).__name__} has {found} MLPs with {', '.join(PARTS)} in its {layers} "
            "layers; one in each is needed, as in the dense models of the Llama and Qwen families"
        )
    if context > config.max_position_embeddings:
        raise ValueError(
            f"--context (={context}) is above {name}'s limit, {config.max_position_embeddings}"
        )
    return model, tokenizer


def read(options: argparse.Namespace, tokenizer: Any | None) -> Texts:
    """The texts as tokens, of a tokenizer of their own if there is none yet."""
    modules = docstrings(options.source)
    if len(modules) < 10:
        raise ValueError(
            f"{options.source} has {len(modules)} modules with docstrings; 10 are needed"
        )
    parts = split(modules)
    if tokenizer is None:
        tokenizer = small_tokenizer(parts[0])
    splits = [tokens(tokenizer, texts) for texts in parts]
    train, validation, test = (torch.tensor(list(itertools.chain(*texts))) for texts in splits)
    questions = ask(splits[2], options.questions, options.context)
    if min(map(len, (train, validation, test))) <= options.context or len(questions) < CHOICES:
        raise ValueError(
            f"{options.source} has too few docstrings: {len(train)}, {len(validation)} and "
            f"{len(test)} tokens in its splits, {len(questions)} questions; more than "
            f"{options.context} tokens each and {CHOICES} questions are needed"
        )
    return Texts(train, validation, test, questions)


def main() -> None:
    """Runs the study, prints its table and draws its picture."""
    options = arguments()
    candidates = sum(len(c) for _, c in ACTIVATIONS.values())
    runs = candidates + options.seeds * (1 + len(ACTIVATIONS) * (len(options.k) - 1))
    base, texts = options.base, options.texts
    with tqdm(total=runs * options.steps + (0 if base else options.pretraining)) as progress:
        base = base or small_llama(texts.train, options, progress)
        before = measure(base.to(DEVICE), texts, options)
        results = study(base.cpu(), options, progress)
    print(f"before tuning: perplexity {before.perplexity:.2f}, answered {before.answered:.3f}")
    for name, result in results.items():
        tried = ", ".join(f"{c}: {value:.2f}" for c, value in result.validation.items())
        print(f"{name}{result.chosen}; perplexity on validation at k = {options.k[-1]}: {tried}")
    print(f"\n{report(results, options.k)}")
    options.out.mkdir(parents=True, exist_ok=True)
    with plots.drawing():
        path = options.out / "perplexity.png"
        write_whole(path, partial(draw(results, options.k).savefig, format="png", dpi=200))
    print(path)


if __name__ == "__main__":
    main()
