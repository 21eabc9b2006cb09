"""Speed of the data: events to frames, and the loader beside a training step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Subset
from tqdm import tqdm

from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.data.events import Frames
from htaf_snn.data.splits import frames_first
from htaf_snn.models import SpikingVGG
from htaf_snn.neurons import LIFNode
from htaf_snn.surrogates import HTAFSpike

from . import measure
from .train import training_step

_RECORDINGS = 64  # that events per second are taken over
_FRAMES, _LOADER, _STEP = "events to frames", "loader", "training step, small VGG"


def data(
    name: str = "digits_events",
    root: Path | None = None,
    batch: int = 32,
    steps: int = 8,
    rounds: int = 5,
    augment: str = "shift",
) -> str:
    """Times reading events into frames, the loader's batches, and a training step on them.

    All on one thread, in turn, after cached frames have been compared with those made anew. The
    frames are read and made from the files, as when the cache is built; the loader reads the
    cache in this process. The step is of the small spiking VGG with our LIF and soft HTAF:
    forward, cross-entropy, backward and AdamW.

    Args:
        name: an event data set, as ``htaf-snn data`` lists them.
        root: folder of the data, for sets that are not built in.
        batch: N, >= 1.
        steps: time steps T, >= 1.
        rounds: number of rounds that medians are taken over, >= 1.
        augment: of the training samples, as in `SpikingDataModule`.

    Returns:
        a table of milliseconds of CPU time, events per second, samples per second, and how many
        times the loader is as fast as training.

    Raises:
        ValueError: a number below 1, or a set of static images.
        RuntimeError: cached frames differ from those made anew; no speed is reported.
    """
    for key, value in (("batch", batch), ("steps", steps), ("rounds", rounds)):
        measure.at_least_one(key, value)
    module = SpikingDataModule(DataConfig(name, root, steps, batch, augment=augment))
    if module.data_set.kind != "events":
        raise ValueError(f"`name` (={name}) is a set of static images; name one of events")
    module.prepare_data()
    train = module.splits.train
    assert isinstance(train, Subset) and isinstance(train.dataset, Frames)
    frames, some = train.dataset, train.indices[:_RECORDINGS]
    _check(frames, some)
    events = int(frames.index["events"][some].sum())

    loader = module.train_dataloader()
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    x_seq, labels = frames_first([train[i % len(some)] for i in range(batch)])
    network = SpikingVGG(
        module.in_shape,
        module.num_classes,
        spiking_neuron=LIFNode,
        surrogate_function=HTAFSpike(mode="soft"),
    )
    optimizer = torch.optim.AdamW(network.parameters())

    def read() -> None:
        for i in some:
            frames.framing.read(frames.files[i])

    tasks: dict[str, Callable[[], object]] = {
        _FRAMES: read,
        _LOADER: lambda: next(batches),
        _STEP: lambda: training_step(network, optimizer, x_seq, labels),
    }
    with tqdm(total=rounds, desc="data", unit="round", disable=None) as progress:
        timings = measure.interleave(tasks, rounds, [1], progress)
    seconds = {task: timings[task, 1].cpu for task in tasks}
    # an epoch's last batch may be smaller
    mean_batch = len(train) / len(loader)
    rates = {_LOADER: mean_batch / seconds[_LOADER], _STEP: batch / seconds[_STEP]}
    rows = [
        [
            f"{_FRAMES}, {len(some)} recordings", f"{seconds[_FRAMES] * 1e3:.1f}",
            f"{events / seconds[_FRAMES]:.3g}", f"{len(some) / seconds[_FRAMES]:.0f}", "",
        ],
        *(
            [task, f"{seconds[task] * 1e3:.1f}", "", f"{rate:.0f}", f"{rate / rates[_STEP]:.2f}"]
            for task, rate in rates.items()
        ),
    ]  # fmt: skip
    header = ["", "ms", "events/s", "samples/s", "/ training"]
    return "\n\n".join(
        [
            f"{name}, frames {list(x_seq.shape)}, augmented by {augment or 'nothing'}; CPU time, "
            f"1 thread ({measure.setting()})",
            measure.table(header, rows),
            "/ training: samples a second over those of a training step",
        ]
    )


def _check(frames: Frames, indices: Sequence[int]) -> None:
    for i in indices:
        if not np.array_equal(frames.arrays[i], frames.framing.read(frames.files[i])):
            raise RuntimeError(
                f"{frames.files[i]}: the cached frames differ from those made anew; no speed is "
                "reported"
            )
