"""Implicit concept bottleneck models: image classifiers that decide by exact 0/1 concepts.

The last features of a ResNet pass a batch norm and HTAF, and a linear head reads them: smooth in
training, sharpened and hardened on the way, and at inference each feature is a concept that an
image has or lacks. In training a second linear head reads what the step is taken of. What does the
step cost against ReLU features, and what are the concepts? A page shows for each one the images
that switch it on and off most, the classes that have it, what to ask a language model about them,
and what its switching does to predictions.

    python examples/concept_bottleneck.py
    python examples/concept_bottleneck.py --data fashion_mnist --ask-command "ollama run llama3.2"
    python examples/concept_bottleneck.py --backbone resnet18 --seeds 0
"""

from __future__ import annotations

import argparse
import base64
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

import torch
import torchvision
from common.plain import Images, train_plain
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from torch import Tensor, nn
from torchvision.io import encode_jpeg
from torchvision.utils import make_grid
from tqdm import tqdm

import htaf_snn
from htaf_snn.comparison import aligned, plots
from htaf_snn.comparison.plots import Picture
from htaf_snn.comparison.seed_statistics import estimate
from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.files import write_whole
from htaf_snn.process import seed_torch
from htaf_snn.transfer import firing_as_trained

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FASHION: list[str] = torchvision.datasets.FashionMNIST.classes
DATA = {  # the library's name, where it lies below --root, its classes
    "cifar10_jpeg": ("image_folder", "cifar10_jpeg_subset.tar.xz", CIFAR10),
    "fashion_mnist": ("fashion_mnist", "fashion_mnist_subset", FASHION),
}
ROOT = os.environ.get("HTAF_SNN_DATA", Path(__file__).parents[2] / "shared" / "data")
HIGH, LOW = 0.75, 0.25  # a class has a concept if this share of its images do, or lacks it
CHOSEN = {  # learning rate and weight of the second head's loss: each one's best on validation
    "HTAF": (0.01, 1.0),
    "ReLU": (0.02, 3.0),
}
MARGIN = 0.05  # an output this close to 0 or 1 is binary
SHOWN = 8  # concepts on the sheet, and images of each, on and off
PROMPT = """\
An image classifier has a unit that is either on or off.
It is on for most images of: {high}.
It is off for most images of: {low}.
Which visual property do the first have that the second lack? Answer in at most six words.
"""


class Block(nn.Module):
    """Two 3x3 convolutions and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs),
            nn.ReLU(), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.around = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.around(x))


def backbone(name: str, outputs: int) -> nn.Module:
    """From images [N, 3, H, W] to [N, outputs]: ``"small"``, or a classifier of torchvision's."""
    if name != "small":
        found: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=outputs)
        return found
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, outputs),
    )  # fmt: skip


class ConceptBottleneck(nn.Module):
    """A classifier whose head sees nothing of an image [N, 1 or 3, H, W] but features [N, K].

    ``auxiliary`` is a second head for the training, of what the features are taken of.
    """

    def __init__(self, name: str, features: int, activation: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone, self.norm = backbone(name, features), nn.BatchNorm1d(features)
        self.activation, self.head = activation, nn.Linear(features, classes)
        self.auxiliary = nn.Linear(features, classes)
        self.to(memory_format=torch.channels_last)  # faster on CPUs

    def before(self, x: Tensor) -> Tensor:
        """What the activation is taken of, [N, K]."""
        z: Tensor = self.norm(self.backbone(x.expand(-1, 3, -1, -1)))
        return z

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.activation(self.before(x)))
        return logits


class Measured(NamedTuple):
    """Accuracies, exact and smooth; how binary the smooth outputs are, NaN of ReLU."""

    hard: float
    soft: float
    share: float
    entropy: float


def train(name: str, options: argparse.Namespace, seed: int,
          progress: Callable[[], object] = lambda: None) -> ConceptBottleneck:  # fmt: skip
    """A network with "HTAF" or "ReLU" features, in ``eval()``.

    HTAF is sharpened while it is hardened. Its smooth outputs are then those of the sharpest,
    without hardening.
    """
    seed_torch(seed)
    rate, weight = CHOSEN[name]
    rate = rate if options.lr is None else options.lr
    weight = weight if options.auxiliary is None else options.auxiliary
    activation = htaf_snn.HTAF(options.alpha0[0], options.alpha1) if name == "HTAF" else nn.ReLU()
    net = ConceptBottleneck(options.backbone, options.concepts, activation, len(options.classes))
    batches = Images(load(options, seed).train_dataloader())
    steps = options.epochs * len(batches)
    alphas = {"alpha0": options.alpha0} if name == "HTAF" else {}
    begin, end = (round(share * steps) for share in options.hardening)
    sharpness = htaf_snn.SharpnessSchedule(net, max(1, end - begin), **alphas)
    done = 0

    def on_step() -> None:
        nonlocal done
        done += 1
        if begin < done <= end:
            sharpness.step()
        progress()

    def loss(_: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        z = net.before(images)
        own = nn.functional.cross_entropy(net.head(net.activation(z)), labels)
        return own + weight * nn.functional.cross_entropy(net.auxiliary(z), labels)

    hardness = train_plain(
        net, batches, loss, options.epochs, rate,
        hardening=tuple(options.hardening),
        true_gradient=options.true_gradient,
        on_step=on_step,
    )  # fmt: skip
    hardness.set(0)
    net.eval()
    return net


def measure(net: ConceptBottleneck, batches: Sequence[tuple[Tensor, Tensor]]) -> Measured:
    """The network as it fires, and its smooth form."""
    gap = htaf_snn.transfer_gap(net, batches)
    if isinstance(net.activation, nn.ReLU):
        return Measured(gap.hard_accuracy, gap.soft_accuracy, float("nan"), float("nan"))
    binarity = htaf_snn.binarity(net, [x for x, _ in batches], MARGIN)
    return Measured(gap.hard_accuracy, gap.soft_accuracy, binarity.share, binarity.entropy)


class Seen(NamedTuple):
    """What a network makes of N images."""

    images: Tensor  # [N, C, H, W]
    labels: Tensor  # [N]
    z: Tensor  # [N, K], before HTAF
    concepts: Tensor  # [N, K], exactly 0 or 1
    smooth: Tensor  # [N, K], as in training

    def by_class(self) -> Tensor:
        """Share of each class's images that switch a concept on, [K, classes]."""
        members = nn.functional.one_hot(self.labels).float()  # [N, classes]
        return self.concepts.T @ members / members.sum(0)


def look(net: ConceptBottleneck, batches: Iterable[tuple[Tensor, Tensor]]) -> Seen:
    """Runs the images through the network, in ``eval()``."""
    seen = []
    with torch.no_grad():
        for images, labels in batches:
            z = net.before(images)
            concepts = net.activation(z)
            with firing_as_trained(net):
                seen.append((images, labels, z, concepts, net.activation(z)))
    return Seen(*(torch.cat(parts) for parts in zip(*seen, strict=True)))


def switch(head: nn.Module, concepts: Tensor) -> Tensor:
    """Probabilities [N, K, classes] when one concept at a time is turned into its opposite."""
    switched = concepts[:, None].repeat(1, concepts.shape[1], 1)  # [N, K, K]
    diagonal = switched.diagonal(dim1=1, dim2=2)
    diagonal.copy_(1 - diagonal)
    with torch.no_grad():
        probabilities: Tensor = head(switched).softmax(2)
    return probabilities


@dataclass
class Concept:
    """What the page tells of a concept."""

    number: int
    on: float  # share of the images
    changed: float  # share of the images that get another class when it is switched
    usual: str  # the most frequent change
    example: str  # the surest change: the classes and their probabilities
    image: Tensor  # of the example, [1, C, H, W]
    high: str  # classes most of whose images have it
    low: str
    most_on: Tensor  # images [SHOWN, C, H, W], the greatest value before HTAF first
    most_off: Tensor
    answer: str = ""

    @property
    def prompt(self) -> str:
        """What to ask a language model; empty if no class has it, or none lacks it."""
        return PROMPT.format(high=self.high, low=self.low) if self.high and self.low else ""


def describe(seen: Seen, head: nn.Module, classes: Sequence[str]) -> list[Concept]:
    """Every concept, the one whose switching changes most predictions first."""
    with torch.no_grad():
        before = head(seen.concepts).softmax(1)  # [N, classes]
    after = switch(head, seen.concepts)
    was, becomes = before.argmax(1), after.argmax(2)
    found = []
    for k, shares in enumerate(seen.by_class()):
        changed = becomes[:, k] != was
        pairs = Counter(zip(was[changed].tolist(), becomes[changed, k].tolist(), strict=True))
        usual = "".join(f"{classes[a]} → {classes[b]} ({n})" for (a, b), n in pairs.most_common(1))
        i = int((after[:, k].amax(1) * changed).argmax())
        a, b, state = int(was[i]), int(becomes[i, k]), ("off", "on")[int(seen.concepts[i, k])]
        example = (
            f"an image of {classes[int(seen.labels[i])]} that has it {state} is taken for "
            f"{classes[a]} ({before[i, a]:.0%}), switched for {classes[b]} ({after[i, k, b]:.0%})"
        )
        high, low = (
            ", ".join(name for name, chosen in zip(classes, group, strict=True) if chosen)
            for group in (shares >= HIGH, shares <= LOW)
        )
        order = seen.z[:, k].argsort(descending=True)
        found.append(Concept(
            k, float(seen.concepts[:, k].mean()), float(changed.float().mean()), usual,
            example if changed.any() else "", seen.images[i : i + 1], high, low,
            seen.images[order[:SHOWN]], seen.images[order.flip(0)[:SHOWN]],
        ))  # fmt: skip
    return sorted(found, key=lambda concept: -concept.changed)


def ask(prompt: str, options: argparse.Namespace) -> str:
    """The answer of the command or the endpoint.

    Raises:
        RuntimeError: it failed, was too slow, or said nothing.
    """
    limit: float = options.ask_timeout
    try:
        if options.ask_command:
            answer = subprocess.run(
                options.ask_command, input=prompt, capture_output=True, text=True, timeout=limit,
                check=True,
            ).stdout  # fmt: skip
        else:
            plain = {"Content-Type": "text/plain; charset=utf-8"}
            with urlopen(Request(options.ask_url, prompt.encode(), plain), timeout=limit) as reply:
                answer = reply.read(10_000).decode()
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{error} {error.stderr.strip()[-500:]}") from error
    except (OSError, ValueError, HTTPException, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
    if not answer.strip():
        raise RuntimeError("an empty answer")
    return answer.strip()


def strip(images: Tensor) -> Tensor:
    """Images [N, C, H, W] side by side, [3, H, W]."""
    side_by_side: Tensor = make_grid(images, len(images), padding=1, pad_value=1)
    return side_by_side


def jpeg(images: Tensor) -> str:
    """Images [N, C, H, W] side by side, as a ``data:`` address."""
    data = encode_jpeg((255 * strip(images)).byte(), 95).numpy().tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def draw_outputs(smooth: Tensor) -> Figure:
    """The distribution of smooth outputs."""
    figure = plots.new_figure(2.0)
    axes = figure.subplots()
    axes.bar(torch.arange(50) / 50, smooth.histc(50, 0, 1) / smooth.numel(), 0.02, align="edge")
    axes.set(xlabel="smooth output", ylabel="share of outputs", yscale="log")
    return figure


def draw_classes(seen: Seen, head: nn.Linear, classes: Sequence[str]) -> Figure:
    """Share of each class's images with a concept, and the head's weights; like beside like."""
    shares, weights = seen.by_class(), head.weight.detach().T
    order = leaves_list(linkage(shares, "average", optimal_ordering=True)).tolist()
    figure = plots.new_figure(1.6 + 0.095 * len(order), 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    most = float(weights.abs().max())
    looks = ((shares, "images that have it", plots.MAP, 0, 1),
             (weights, "head's weight", "PuOr", -most, most))  # fmt: skip
    for axes, (values, title, colors, low, high) in zip(panels, looks, strict=True):
        image = axes.imshow(values[order], colors, aspect="auto", vmin=low, vmax=high)
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.grid(visible=False)
        figure.colorbar(image, ax=axes, location="top", aspect=15, label=title)
    panels[0].set_yticks(range(len(order)), order, fontsize=5)
    panels[0].set_ylabel("concept")
    return figure


def draw_sheet(concepts: Sequence[Concept]) -> Figure:
    """The images that switch each concept on and off most, a row a concept."""
    figure = plots.new_figure(0.3 + 0.41 * len(concepts), 7.2)
    rows = figure.subplots(len(concepts), 2, squeeze=False)
    for row, concept in zip(rows, concepts, strict=True):
        for axes, images in zip(row, (concept.most_on, concept.most_off), strict=True):
            axes.imshow(strip(images).permute(1, 2, 0))
            axes.set(xticks=[], yticks=[], frame_on=False)
        row[0].set_ylabel(concept.number, rotation=0, ha="right", va="center")
    for axes, title in zip(rows[0], ("most on", "most off"), strict=True):
        axes.set_title(title)
    figure.supylabel("concept", fontsize=8)
    return figure


def pictures(seen: Seen, head: nn.Linear, concepts: list[Concept], options: argparse.Namespace,
             share: float) -> list[Picture]:  # fmt: skip
    """The figures of the page, with captions."""
    return [
        Picture(
            f"{options.data}-classes", "Concepts and classes",
            "Left: share of each class's images that have a concept. Right: what the concept adds "
            "to a class's logit. Concepts alike on the left stand together.",
            draw_classes(seen, head, options.classes),
        ),
        Picture(
            f"{options.data}-sheet", "What switches concepts",
            "The images with the greatest and the least value before HTAF, for the concepts whose "
            "switching changes most predictions.", draw_sheet(concepts[:SHOWN]),
        ),
        Picture(
            f"{options.data}-outputs", "Training-mode outputs",
            f"HTAF's smooth outputs at the end of training: {share:.1%} lie within {MARGIN} of 0 "
            "or 1. At inference all are 0 or 1.", draw_outputs(seen.smooth),
        ),
    ]  # fmt: skip


def table(results: dict[str, list[Measured]]) -> list[list[str]]:
    """A line for each kind of features, and one for their difference, seed by seed."""
    head = ["features", "hard accuracy (%)", "soft (%)", f"within {MARGIN} (%)", "entropy (bits)"]
    lines = [head]
    for name, runs in results.items():
        *shares, entropy = zip(*runs, strict=True)
        percents = [f"{estimate([100 * v for v in values]):.2f}" for values in shares]
        lines.append([name, *percents, f"{estimate(entropy):.4f}"])
    pairs = zip(results["HTAF"], results["ReLU"], strict=True)
    ahead = estimate([100 * (htaf.hard - relu.hard) for htaf, relu in pairs])
    return [*lines, ["HTAF - ReLU", f"{ahead:.2f}", "", "", ""]]


def load(options: argparse.Namespace, seed: int = 0) -> SpikingDataModule:
    """The images; the seed decides order and flips of the training, not the split."""
    name, path, _ = DATA[options.data]
    return SpikingDataModule(
        DataConfig(name, options.root / path, T=1, batch_size=64, augment="flip"), seed=seed
    )


def seeds(text: str) -> list[int]:
    """Of ``"0,1,2"``."""
    return [int(number) for number in text.split(",")]


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line asks for, and the images to measure on."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", choices=DATA, default="cifar10_jpeg")
    add("--root", type=Path, default=Path(ROOT), help=f"folder of the data; default: {ROOT}")
    add("--backbone", default="small", help="or a classifier of torchvision's, by name")
    add("--concepts", type=int, default=64, help="default: 64")
    add("--seeds", type=seeds, default=[0, 1, 2], help="default: 0,1,2; the page shows the first")
    add("--epochs", type=int, default=12)
    add("--lr", type=float, help=f"of both; default: {CHOSEN['HTAF'][0]}, ReLU {CHOSEN['ReLU'][0]}")
    add("--auxiliary", type=float, help="weight of the second head's loss, 0 for none, of both; "
        f"default: {CHOSEN['HTAF'][1]}, ReLU {CHOSEN['ReLU'][1]}")  # fmt: skip
    add("--alpha0", type=float, nargs=2, default=[0.67, 12.0], help="smoothest and sharpest")
    add("--hardening", type=float, nargs=2, default=[0.7, 0.95],
        help="shares of the training between which the step comes in")  # fmt: skip
    add("--alpha1", type=float, default=6.0)
    add("--true-gradient", action="store_true", help="train without a surrogate to the end")
    add("--part", choices=["test", "validation"], default="test",
        help="what is measured and shown; choose constants on validation")  # fmt: skip
    add("--ask-command", type=shlex.split, help="gets a prompt on stdin, answers on stdout")
    add("--ask-url", help="gets a prompt by POST, answers; both as plain text")
    add("--ask-timeout", type=float, default=60, help="seconds an answer; default: 60")
    add("--out", type=Path, default=Path("runs/concept_bottleneck"))
    options = parser.parse_args(argv)
    try:
        prepare(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return options


def prepare(options: argparse.Namespace) -> None:
    """Loads the images to measure on, after what can't be trained or asked is refused.

    Raises:
        ValueError: an option; the message has its value.
    """
    for name, low in (("concepts", 1), ("epochs", 0), ("lr", 0), ("alpha1", 0), ("ask_timeout", 0)):
        value = getattr(options, name)
        if value is not None and not low < value < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')} (={value}) must be above {low}, finite")
    if options.auxiliary is not None and not 0 <= options.auxiliary < float("inf"):
        raise ValueError(f"--auxiliary (={options.auxiliary}) must be at least 0, finite")
    if not all(0 < alpha < float("inf") for alpha in options.alpha0):
        raise ValueError(f"--alpha0 (={options.alpha0}) must be two positive numbers")
    begin, end = options.hardening
    if not 0 <= begin <= end <= 1:
        raise ValueError(f"--hardening (={options.hardening}) must be two shares, not falling")
    if len(set(options.seeds)) < len(options.seeds):
        raise ValueError(f"--seeds (={options.seeds}) has one twice; name each once")
    if options.ask_command is not None and not (
        options.ask_command and shutil.which(options.ask_command[0])
    ):
        raise ValueError(f"--ask-command (={options.ask_command}) must begin with a program")
    if options.ask_url is not None and not options.ask_url.startswith(("http://", "https://")):
        raise ValueError(f"--ask-url (={options.ask_url}) must begin with http:// or https://")
    path = options.root / DATA[options.data][1]
    if not path.exists():
        raise ValueError(f"no {path}; set --root or HTAF_SNN_DATA to the folder that holds it")
    data = load(options)
    loader = data.test_dataloader() if options.part == "test" else data.val_dataloader()
    options.classes, options.batches = DATA[options.data][2], list(Images(loader))
    try:
        with torch.no_grad():
            net = ConceptBottleneck(options.backbone, options.concepts, nn.ReLU(), 10)
            net(options.batches[0][0][:2])
    except Exception as error:  # whatever torchvision's class raises
        raise ValueError(f"--backbone (={options.backbone}) can't be used: {error}") from error


def render(**shown: object) -> str:
    """The HTML page, which needs no other file."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = Path(__file__).with_suffix(".html").read_text("utf-8")
    return environment.from_string(template).render(shown, jpeg=jpeg, high=HIGH, low=LOW)


def main() -> None:
    """Trains, prints the comparison; writes the page, its figures and the prompts."""
    options = arguments()
    results: dict[str, list[Measured]] = {"HTAF": [], "ReLU": []}
    nets = []
    steps = options.epochs * len(load(options).train_dataloader())
    with tqdm(total=steps * len(results) * len(options.seeds)) as progress:
        for seed in options.seeds:
            for name, runs in results.items():
                progress.set_postfix_str(f"seed {seed}, {name}")
                nets.append(train(name, options, seed, progress.update))
                runs.append(measure(nets[-1], options.batches))
    lines = table(results)
    print(aligned(lines))
    head, seen = nets[0].head, look(nets[0], options.batches)  # HTAF's, of the first seed
    concepts = describe(seen, head, options.classes)
    asked = [concept for concept in concepts if concept.prompt]
    failure = ""
    if options.ask_command or options.ask_url:
        for concept in tqdm(asked, "asking"):
            try:
                concept.answer = ask(concept.prompt, options)
            except RuntimeError as error:
                failure = f"asked no more after concept {concept.number}: {error}"
                break
    options.out.mkdir(parents=True, exist_ok=True)
    with plots.drawing():
        figures = pictures(seen, head, concepts, options, results["HTAF"][0].share)
        page = render(
            options=options, table=lines, concepts=concepts, pictures=figures, failure=failure
        )
        for picture in figures:
            picture.save(options.out)
    prompts = "\n".join(f"concept {concept.number}\n\n{concept.prompt}" for concept in asked)
    for suffix, text in (("html", page), ("prompts.txt", prompts)):
        path = options.out / f"{options.data}.{suffix}"
        write_whole(path, partial(Path.write_text, data=text, encoding="utf-8"))
        print(path)
    if failure:
        sys.exit(failure)


if __name__ == "__main__":
    main()
