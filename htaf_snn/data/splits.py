"""Train, validation and test samples: apart, in proportion, and what is suspicious of them."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset, Subset

from .loader import Sample, Samples

_IMBALANCE = 10  # samples of the largest class to one of the smallest, from which on it is named


@dataclass(frozen=True)
class Splits:
    """The three parts of a data set; each item is (frames [T, C, H, W] float32, label)."""

    train: Dataset[Sample]
    validation: Dataset[Sample]  # empty where no epoch is to be chosen
    test: Dataset[Sample]


def split(
    dataset: Dataset[Sample],
    labels: ArrayLike,
    validation: float | Dataset[Sample],
    test: float | Dataset[Sample],
    seed: int,
    groups: ArrayLike | None = None,
) -> Splits:
    """Splits ``dataset`` at random, each class in the same proportion.

    Args:
        dataset: the samples to split.
        labels: their labels, [N].
        validation: share of the samples for validation, in [0, 1), 0 for none, or a set of its
            own.
        test: share of the samples for the test, in (0, 1), or a test set of its own.
        seed: of the draw.
        groups: of the samples, [N]; a group's samples all go into one part, and the shares are
            met as nearly as that allows.

    Raises:
        ValueError: a share that is less than one sample a class, or groups that can't be so
            divided that every part has every class.
    """
    from sklearn.model_selection import train_test_split

    labels = np.asarray(labels)
    rest: NDArray[np.int64] = np.arange(len(labels))

    def take(name: str, share: float | Dataset[Sample]) -> Dataset[Sample]:
        nonlocal rest
        if not isinstance(share, float):
            return share
        count, classes = round(share * len(labels)), len(np.unique(labels))
        if count < classes:
            raise ValueError(
                f"`{name}` (={share}) of {len(labels)} samples is less than one a class "
                f"({classes} classes); raise it or use more data"
            )
        if groups is None:
            rest, taken = train_test_split(
                rest, test_size=count, stratify=labels[rest], random_state=seed
            )
        else:
            taken = _whole_groups(name, labels, np.asarray(groups), rest, count, seed)
            rest = np.setdiff1d(rest, taken)
        return Subset(dataset, sorted(taken.tolist()))

    test_set = take("test", test)
    validation_set = Subset(dataset, []) if validation == 0 else take("validation", validation)
    return Splits(Subset(dataset, sorted(rest.tolist())), validation_set, test_set)


def split_in_time(
    dataset: Dataset[Sample],
    recordings: NDArray[np.int64],
    names: Sequence[object],
    validation: float | Dataset[Sample],
    test: float | Dataset[Sample],
) -> Splits:
    """Divides each recording's samples: the first train, one is left out, the last are measured on.

    Args:
        dataset: the samples, each recording's together and in order of time.
        recordings, names: the number of the recording that each is of, [N], and names by number.
        validation, test: shares of each recording, in [0, 1), or sets of their own.
    """
    shares = [s for s in (validation, test) if isinstance(s, float) and s > 0]
    taken: list[list[int]] = [[] for _ in range(1 + len(shares))]  # of training and those
    ends = [*np.flatnonzero(np.diff(recordings)) + 1, len(recordings)]
    for start, end in itertools.pairwise([0, *map(int, ends)]):
        counts = [max(1, round(share * (end - start))) for share in shares]
        train = end - start - sum(counts) - bool(shares)
        if train < 1:
            raise ValueError(
                f"{names[recordings[start]]}: {end - start} windows are too few for `data.split` "
                f"(=time), which takes 1 to train, leaves 1 out and measures on {sum(counts)}; "
                "lower `data.window`"
            )
        firsts = [end - sum(counts[i:]) for i in range(len(counts))]
        bounds = [(start, start + train), *itertools.pairwise([*firsts, end])]
        for part, (first, last) in zip(taken, bounds, strict=True):
            part.extend(range(first, last))
    drawn = iter([Subset(dataset, part) for part in taken])
    train_set = next(drawn)
    validation_set, test_set = (
        Subset(dataset, []) if share == 0 else next(drawn) if isinstance(share, float) else share
        for share in (validation, test)
    )
    return Splits(train_set, validation_set, test_set)


_DRAWS = 200  # of groups, of which the nearest to the share is taken


def _whole_groups(
    name: str,
    labels: NDArray[Any],
    groups: NDArray[Any],
    rest: NDArray[np.int64],
    count: int,
    seed: int,
) -> NDArray[np.int64]:
    """About ``count`` of the samples ``rest``, of whole groups, with every class on both sides."""
    classes, of_class = np.unique(labels[rest], return_inverse=True)
    names, of_group = np.unique(groups[rest], return_inverse=True)
    table = np.zeros((len(names), len(classes)), np.int64)  # samples by group and class
    np.add.at(table, (of_group, of_class), 1)
    wished = table.sum(0) * (count / len(rest))
    rng = np.random.default_rng(seed)
    best, chosen = np.inf, None
    for _ in range(_DRAWS):
        order = rng.permutation(len(names))
        sums = table[order].cumsum(0)
        fits = ((sums > 0) & (sums < table.sum(0))).all(1)
        distance = np.where(fits, np.abs(sums - wished).sum(1), np.inf)
        at = int(distance.argmin())
        if distance[at] < best:
            best, chosen = float(distance[at]), order[: at + 1]
    if chosen is None:
        raise ValueError(
            f"`{name}`: {len(names)} groups can't be divided so that every class stands on both "
            "sides; use more recordings, another `data.group`, or `data.split` time, which divides "
            "each recording"
        )
    return rest[np.isin(of_group, chosen)]


def check_labels(labels: ArrayLike, num_classes: int, where: object, at_least: int = 3) -> None:
    """Checks that every label lies below ``num_classes`` and has enough samples."""
    labels = np.asarray(labels, dtype=np.int64)
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise ValueError(
            f"{where}: label {outside[0]} is out of range, labels go from 0 to {num_classes - 1}"
        )
    few = [str(c) for c in np.flatnonzero(np.bincount(labels, minlength=num_classes) < at_least)]
    if few:
        raise ValueError(
            f"{where}: every class needs at least {at_least} samples, for each part of the data "
            f"one; too few in class {', '.join(few)}"
        )


def frames_first(batch: list[Sample]) -> tuple[Tensor, Tensor]:
    """Collates samples to frames [T, N, C, H, W] and labels [N]."""
    frames, labels = zip(*batch, strict=True)
    return torch.stack(frames, dim=1), torch.tensor(labels)


def chosen_samples(splits: Splits) -> Iterator[tuple[str, Samples, NDArray[np.int64]]]:
    """Each part's name, the samples that it is of, and which of these are in it."""
    for name, part in vars(splits).items():
        if isinstance(part, Subset) and isinstance(part.dataset, Samples):
            yield name, part.dataset, np.asarray(part.indices, np.int64)
        elif isinstance(part, Samples):
            yield name, part, np.arange(len(part))


def summary_lines(splits: Splits) -> list[str]:
    """A line a part: samples, classes, and of recordings their number, events and duration."""
    written, recordings = [], []
    for name, samples, chosen in chosen_samples(splits):
        if len(chosen) == 0:
            written.append(f"{name:10} none: no epoch is chosen, the last one's weights are kept")
            continue
        counts = np.unique(samples.labels[chosen], return_counts=True)[1]
        line = f"{name:10} {len(chosen)} samples, {len(counts)} classes"
        line += f" of {counts.min()} to {counts.max()}"
        if samples.index is not None:
            index = samples.index[chosen]
            own = {(id(samples), int(file)) for file in index["file"]}
            recordings.append(own)
            line += (
                f", {len(own)} recordings, {index['events'].sum() / 1e6:.3f} million events, "
                f"{index['us'].sum() / 1e6:.1f} s"
            )
        written.append(line)
    if sum(map(len, recordings)) > len(set().union(*recordings)):
        written.append(
            "the parts are of the same recordings, one after the other in time: how well new "
            "recordings are labelled is not measured"
        )
    return written


def warning_lines(splits: Splits) -> list[str]:
    """Recordings that stand in two parts, classes that are missing or rare."""
    found = []
    seen: dict[tuple[int, int, int], tuple[str, str]] = {}
    leaks: list[str] = []
    for name, samples, chosen in chosen_samples(splits):
        counts = np.bincount(samples.labels[chosen])
        counts = counts[counts > 0]
        if len(counts) and counts.max() > _IMBALANCE * counts.min():
            found.append(
                f"{name}: the largest class has {counts.max()} samples, the smallest "
                f"{counts.min()}; accuracy will be that of the large ones"
            )
        if samples.index is None:
            continue
        for sample in samples.index[chosen]:
            path = str(samples.files[sample["file"]])
            key = (int(sample["events"]), int(sample["us"]), int(sample["crc"]))
            before = seen.setdefault(key, (name, path))
            if before[0] != name:
                leaks.append(f"{path} in {name} is the same as {before[1]} in {before[0]}")
    if leaks:
        found.append(f"{len(leaks)} samples stand in two parts: {leaks[0]}")
    return found
