"""Summary of the three parts of a data set, and of what is suspicious about them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from .events import Frames
from .samples import Samples
from .splits import Sample, Splits

_IMBALANCE = 10  # samples of the largest class to one of the smallest, from which on it is named

Part = tuple[str, Samples, NDArray[np.int64]]  # name, the samples it is of, and which


def parts(splits: Splits) -> Iterator[Part]:
    """The three parts as chosen samples of arrays."""
    for name in ("train", "validation", "test"):
        part: Dataset[Sample] = getattr(splits, name)
        if isinstance(part, Subset) and isinstance(part.dataset, Samples):
            yield name, part.dataset, np.asarray(part.indices, np.int64)
        elif isinstance(part, Samples):
            yield name, part, np.arange(len(part))


def lines(splits: Splits) -> list[str]:
    """A line a part: samples, classes, and of recordings their number, events and duration."""
    written, recordings = [], []
    for name, samples, chosen in parts(splits):
        if len(chosen) == 0:
            written.append(f"{name:10} none: no epoch is chosen, the last one's weights are kept")
            continue
        counts = np.unique(samples.labels[chosen], return_counts=True)[1]
        line = f"{name:10} {len(chosen)} samples, {len(counts)} classes"
        line += f" of {counts.min()} to {counts.max()}"
        if isinstance(samples, Frames):
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


def warnings(splits: Splits) -> list[str]:
    """Recordings that stand in two parts, classes that are missing or rare."""
    found = []
    seen: dict[tuple[int, int, int], tuple[str, str]] = {}
    leaks: list[str] = []
    for name, samples, chosen in parts(splits):
        counts = np.bincount(samples.labels[chosen])
        counts = counts[counts > 0]
        if len(counts) and counts.max() > _IMBALANCE * counts.min():
            found.append(
                f"{name}: the largest class has {counts.max()} samples, the smallest "
                f"{counts.min()}; accuracy will be that of the large ones"
            )
        if not isinstance(samples, Frames):
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
