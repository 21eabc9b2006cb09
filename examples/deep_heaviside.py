"""Deep Heaviside networks: perceptrons whose hidden units are steps, on tabular data.

Do networks of exact steps predict as well as one of ReLUs, and how binary are their units while
they are smooth? HTAF and the scaled sigmoid train smooth and are hardened in training. Of each
activation's constants, those are taken that do best in the hard score among those with a binarity
of at least 0.95 (else the most binary), on a validation part of each training fold.

    python examples/deep_heaviside.py
    python examples/deep_heaviside.py --csv my.csv --target price --task regression
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from common.alphas import over_alphas
from common.plain import classification_loss, train_plain
from common.tables import CSVFile, Table, Task, read_csv
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn import datasets, metrics
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor, nn
from tqdm import tqdm

import htaf_snn
from htaf_snn.comparison import aligned, plots
from htaf_snn.comparison.seed_statistics import estimate
from htaf_snn.files import write_whole
from htaf_snn.process import seed_torch
from htaf_snn.transfer import firing_as_trained

Constants = tuple[float, ...]
GRID = list(itertools.product((0.67, 2.0, 4.0, 8.0), (3.0, 6.0, 11.0, 16.0)))  # alpha0, alpha1
ACTIVATIONS: dict[str, tuple[Callable[..., nn.Module], Sequence[Constants]]] = {
    "HTAF": (htaf_snn.HTAF, GRID),
    "scaled sigmoid": (htaf_snn.ScaledSigmoid, [(4.0,), (22.0,), (44.0,), (88.0,)]),
    "straight-through": (htaf_snn.StraightThrough, [(0.5,), (1.0,), (2.0,)]),
    "ReLU": (nn.ReLU, [()]),
}
COLORS = dict(zip(ACTIVATIONS, ("#0b3c8c", "#000000", "#7a7a7a", "#cc6677"), strict=True))
BINARY = 0.95  # least binarity of the constants taken, where any has it
BUILT_IN = ("breast_cancer", "wine", "digits", "diabetes")
COUNTS = {"folds": (5, 2), "seeds": (3, 1), "depth": (2, 1), "width": (32, 1), "steps": (100, 1)}
ABALONE = ("Sex", "Length", "Diameter", "Height", "Whole", "Shucked", "Viscera", "Shell", "Rings")
FILES = {  # HELOC's special values -7, -8 and -9 are numbers like any other
    "telco_churn": CSVFile(Path("Telco-Customer-Churn.csv"), "Churn", drop=["customerID"]),
    "heloc": CSVFile(Path("heloc_dataset_v1.csv"), "RiskPerformance"),
    "wine_quality": CSVFile(Path("winequality-red.csv"), "quality", "regression", ";"),
    "abalone": CSVFile(Path("abalone.data"), "Rings", "regression", header=ABALONE),
}


@dataclass(frozen=True)
class Split:
    """What a network is trained and measured on: x [N, F] float32, y [N] (classes or floats)."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    outputs: int
    score: str


class Measured(NamedTuple):
    """Test scores, smooth and exact, and how binary the smooth outputs are; NaN: does not apply."""

    soft: float
    hard: float
    share: float
    entropy: float


def built_in(name: str) -> Table:
    """One of scikit-learn's data sets."""
    data = getattr(datasets, f"load_{name}")()
    words = np.empty((len(data.target), 0), str)
    return Table(name, data.data, words, data.target, regression=name == "diabetes")


def prepare(table: Table, train: NDArray[Any], test: NDArray[Any], score: str) -> Split:
    """The rows as tensors, by imputing, scaling and encoding that know the training rows only."""
    numbers = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True),
                            StandardScaler())  # fmt: skip
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    target = table.target
    if table.regression:
        target = (target - target[train].mean()) / target[train].std()
    known = [(c, t.fit(c[train])) for c, t in ((table.numbers, numbers), (table.words, words))
             if c.shape[1]]  # fmt: skip
    x, x_test = (
        torch.tensor(
            np.hstack([transform.transform(columns[rows]) for columns, transform in known])
        )
        for rows in (train, test)
    )
    y, y_test = torch.tensor(target[train]), torch.tensor(target[test])
    outputs = 1 if table.regression else int(table.target.max()) + 1
    score = "R2" if table.regression else score
    return Split(x.float(), y, x_test.float(), y_test, outputs, score)


def folds(table: Table, count: int, seed: int = 0) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Training and test rows, stratified by class."""
    kind = KFold if table.regression else StratifiedKFold
    return list(kind(count, shuffle=True, random_state=seed).split(table.target, table.target))


def score(net: nn.Module, data: Split) -> float:
    """The test score of the network as it fires now."""
    with torch.no_grad():
        outputs = net(data.x_test)
    if data.score == "R2":
        return float(metrics.r2_score(data.y_test, outputs[:, 0]))
    if data.score == "accuracy":
        return float(metrics.accuracy_score(data.y_test, outputs.argmax(1)))
    p = outputs.double().softmax(1)
    return float(
        metrics.roc_auc_score(data.y_test, p[:, 1] if data.outputs == 2 else p, multi_class="ovr")
    )


def loss(net: nn.Module, batch: tuple[Tensor, Tensor], regression: bool) -> Tensor:
    """Of the whole training part."""
    if not regression:
        return classification_loss(net, batch)
    x, y = batch
    return nn.functional.mse_loss(net(x)[:, 0], y.float())


def train(data: Split, activation: Callable[[], nn.Module], options: argparse.Namespace,
          seed: int) -> Measured:  # fmt: skip
    """Trains a network on the whole training part at each step, and measures it."""
    seed_torch(seed)
    layers: list[nn.Module] = []
    for inputs in (data.x.shape[1], *[options.width] * (options.depth - 1)):
        layers += [nn.Linear(inputs, options.width), nn.BatchNorm1d(options.width), activation()]
    net = nn.Sequential(*layers, nn.Linear(options.width, data.outputs))
    sharpness = train_plain(
        net, [(data.x, data.y)], partial(loss, regression=data.score == "R2"), options.steps,
        options.lr,
    )  # fmt: skip
    sharpness.set(0)  # smooth in training again, so that the smooth outputs can be measured
    net.eval()  # the exact step
    hard = score(net, data)
    if isinstance(layers[2], nn.ReLU):
        return Measured(hard, np.nan, np.nan, np.nan)
    with firing_as_trained(net):
        soft = score(net, data)
    return Measured(soft, hard, *vars(htaf_snn.binarity(net, [data.x_test])).values())


def better(measured: Measured) -> tuple[bool, float]:
    """What the choice of constants goes by, the greater the better."""
    binary = measured.share >= BINARY
    return binary, measured.hard if binary else measured.share


class Result(NamedTuple):
    """An activation's measurements [folds, seeds, 4], and on validation by fold and constants."""

    measured: NDArray[np.float64]
    validation: list[dict[Constants, Measured]]
    chosen: list[Constants]


def study(table: Table, options: argparse.Namespace, progress: Any) -> dict[str, Result]:
    """Chooses constants and measures them, for each activation and fold."""
    found = {name: Result(np.empty((options.folds, options.seeds, 4)), [], [])
             for name in ACTIVATIONS}  # fmt: skip
    for fold, (rows, test) in enumerate(folds(table, options.folds)):
        parts = (table.numbers[rows], table.words[rows], table.target[rows])
        inner = Table(table.name, *parts, table.regression)
        inner_split = prepare(inner, *folds(inner, 4)[0], options.score)
        split = prepare(table, rows, test, options.score)
        for name, (activation, candidates) in ACTIVATIONS.items():
            progress.set_postfix_str(f"{table.name}, fold {fold + 1}, {name}")

            def run(data: Split, constants: Constants, seed: int,
                    activation: Callable[..., nn.Module] = activation) -> Measured:  # fmt: skip
                progress.update()
                return train(data, lambda: activation(*constants), options, seed)

            validation = {c: run(inner_split, c, 0) for c in candidates if len(candidates) > 1}
            chosen = max(validation, key=lambda c: better(validation[c]), default=candidates[0])
            found[name].validation.append(validation)
            found[name].chosen.append(chosen)
            for seed in range(options.seeds):
                found[name].measured[fold, seed] = run(split, chosen, seed)
    return found


def interval(by_fold: NDArray[np.float64]) -> str:
    """The mean and its 95 % interval over folds, each the mean of its seeds."""
    return f"{estimate(by_fold.tolist()):.4f}"


def report(results: dict[str, Result]) -> str:
    """A line for each activation."""
    lines: list[tuple[str, ...]] = [
        ("", "hard", "soft", "HTAF's hard - this", "binarity", "entropy", "constants (folds)")
    ]
    reference = results["HTAF"].measured.mean(1)[:, 1]
    for name, result in results.items():
        soft, hard, *binary = result.measured.mean(1).T
        behind = "" if name == "HTAF" else interval(reference - (soft if name == "ReLU" else hard))
        means = ["-" if name == "ReLU" else f"{values.mean():.3f}" for values in binary]
        chosen = (f"{c} ({n})" for c, n in Counter(result.chosen).most_common() if c)
        lines.append((name, interval(hard), interval(soft), behind, *means, ", ".join(chosen)))
    return aligned(lines)


def draw_scores(studies: Sequence[dict[str, Result]], titles: Sequence[str]) -> Figure:
    """Hard scores filled, soft and ReLU's hollow, with intervals; a panel a data set."""
    figure = plots.new_figure(0.5 + 1.1 * len(studies))
    panels = figure.subplots(len(studies), 1, squeeze=False)[:, 0]
    for axes, results, title in zip(panels, studies, titles, strict=True):
        for place, (name, result) in enumerate(results.items()):
            for shift, column, fill in ((-0.13, 0, "white"), (0.13, 1, COLORS[name])):
                found = estimate(result.measured.mean(1)[:, column].tolist())
                look = {"fmt": "o", "color": COLORS[name], "markerfacecolor": fill}
                axes.errorbar(found.mean, place + shift, xerr=found.half_width, **look)
        axes.set_yticks(range(len(results)), list(results))
        axes.set_title(title)
        axes.invert_yaxis()
    figure.supxlabel("filled: exact step; hollow: smooth; bars: 95 % intervals", fontsize=7)
    return figure


def draw_binarity(studies: Sequence[dict[str, Result]], titles: Sequence[str]) -> Figure:
    """Binarity, entropy and hard score over (alpha0, alpha1) on validation, means over folds."""
    figure = plots.new_figure(0.4 + 1.4 * len(studies), 7.2)
    rows = figure.subplots(len(studies), 3, squeeze=False)
    for row, results, title in zip(rows, studies, titles, strict=True):
        data, score_name = title.split(": ")
        panels = (("binarity", 2, 1), ("entropy (bits)", 3, None), (f"hard {score_name}", 1, None))
        for axes, (panel, field, most) in zip(row, panels, strict=True):
            by_fold = results["HTAF"].validation
            means = {(a, b): float(np.mean([v[a, b][field] for v in by_fold])) for a, b in GRID}
            over_alphas(axes, means, f"{data}: {panel}", ".3f", cmap=plots.MAP, vmax=most)
    for axes in rows[-1]:
        axes.set_xlabel(r"$\alpha_0$")
    return figure


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", nargs="+", choices=[*BUILT_IN, *FILES], help="default: scikit-learn's four")
    add("--folder", type=Path, default=Path("data"), help=f"of the files of {', '.join(FILES)}")
    add("--csv", type=Path, help="a table of your own, with --target")
    add("--target", help="its column to predict")
    add("--task", choices=get_args(Task), default="auto")
    add("--separator", default=",")
    add("--drop", nargs="+", default=[], help="its columns to leave out")
    add("--words", nargs="+", default=[], help="its columns of numbers that are categories")
    add("--score", choices=["AUROC", "accuracy"], default="AUROC", help="of classifications")
    for name, (default, _) in COUNTS.items():
        add(f"--{name}", type=int, default=default, help=f"default: {default}")
    add("--lr", type=float, default=0.01)
    add("--out", type=Path, default=Path("runs/deep_heaviside"), help="folder of the pictures")
    options = parser.parse_args(argv)
    try:
        options.tables = load(options)
    except (OSError, ValueError, csv.Error) as error:
        parser.error(str(error))
    return options


def load(options: argparse.Namespace) -> list[Table]:
    """The tables asked for, each with enough rows of each class."""
    for name, (_, least) in COUNTS.items():
        if getattr(options, name) < least:
            raise ValueError(f"--{name} (={getattr(options, name)}) must be at least {least}")
    if not options.lr > 0:
        raise ValueError(f"--lr (={options.lr}) must be positive")
    if (options.csv is None) != (options.target is None):
        raise ValueError("--csv and --target need each other")
    tables = []
    for name in options.data or (() if options.csv else BUILT_IN):
        if name in BUILT_IN:
            tables.append(built_in(name))
        else:
            file = FILES[name]
            tables.append(read_csv(replace(file, path=options.folder / file.path), name))
    if options.csv:
        o = options
        file = CSVFile(o.csv, o.target, o.task, o.separator, o.drop, o.words)
        tables.append(read_csv(file))
    needed = max(2 * options.folds, 8)  # so that each fold's validation part has every class
    for table in tables:
        if not table.numbers.size + table.words.size:
            raise ValueError(f"{table.name} has no column beside its target")
        rows = len(table.target) if table.regression else np.bincount(table.target).min()
        if rows < needed:
            of = "" if table.regression else " of its rarest class"
            raise ValueError(f"{table.name} has {rows} rows{of}; {needed} are needed")
    return tables


def main() -> None:
    """Runs the study, prints its tables and draws its pictures."""
    options = arguments()
    runs = sum(len(c) * (len(c) > 1) + options.seeds for _, c in ACTIVATIONS.values())
    titles = [f"{t.name}: {'R2' if t.regression else options.score}" for t in options.tables]
    studies = []
    with tqdm(total=len(titles) * options.folds * runs) as progress:
        for table, title in zip(options.tables, titles, strict=True):
            studies.append(study(table, options, progress))
            progress.write(f"\n{title}, {options.folds} folds x {options.seeds} seeds")
            progress.write(report(studies[-1]))
    options.out.mkdir(parents=True, exist_ok=True)
    with plots.drawing():
        for name, draw in (("scores", draw_scores), ("binarity", draw_binarity)):
            path = options.out / f"{name}.png"
            write_whole(path, partial(draw(studies, titles).savefig, format="png", dpi=200))
            print(path)


if __name__ == "__main__":
    main()
