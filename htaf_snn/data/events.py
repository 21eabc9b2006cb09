"""Event recordings as a data set: its samples, and the caches of their frames and events."""

import functools
import json
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..files import cache_folder
from .augment import EventTransform, event_transform, parse
from .cache import ArrayFile, build_once, cache_key, file_stamp, map_in_order, smallest
from .data_set import Opened
from .folders import FolderParts, groups_of
from .framing import Framing
from .loader import Sample, Samples, Transform
from .options import DataConfig
from .recordings import EVENT, Events, Format, file_of
from .splits import Splits, check_labels, split, split_in_time

_VERSION = 4  # of the caches
_INDEX = np.dtype(
    [("file", np.int64), ("events", np.int64), ("us", np.int64), ("crc", np.uint32)]
)  # of a sample: which file it is of, its number of events, their duration, its frames' checksum
_log = logging.getLogger(__name__)
Result = TypeVar("Result")
FramesAndIndex = tuple[NDArray[np.integer], NDArray[np.void]]


class Recordings(Opened):
    """An opened set of event recordings: their files, or what lists and may fetch them, once."""

    def __init__(
        self,
        framing: Framing,
        num_classes: int,
        options: DataConfig,
        find: FolderParts | Callable[[], FolderParts],
    ) -> None:
        super().__init__(framing.shape, num_classes, self._load)
        self.framing: Framing = framing
        self._options, self._find = options, find

    @functools.cached_property
    def parts(self) -> FolderParts:
        return self._find if isinstance(self._find, FolderParts) else self._find()

    @property
    def classes(self) -> list[str]:
        return self.parts.classes

    def _load(self) -> Splits:
        """The three parts as frames; what the set does not come with is drawn of training's."""
        parts, options, framing = self.parts, self._options, self.framing
        check = functools.partial(check_labels, num_classes=self.num_classes, where=parts.root)
        least = 1 + (parts.validation is None and options.validation > 0) + (parts.test is None)
        for part in filter(None, (parts.validation, parts.test)):
            check(part[1], at_least=1)
        named: Any = None
        if options.group is not None:
            named = np.array(groups_of(parts.train[0], parts.root, options.group))

        def divide(train: Any, labels: Any, recordings: Any, others: Any) -> Splits:
            check(labels, at_least=least)
            if options.split == "time":
                return split_in_time(train, recordings, parts.train[0], *others)
            groups = recordings if options.window is not None else None
            groups = groups if named is None else named[recordings]
            validation, test = others
            return split(train, labels, validation, test, options.split_seed, groups)

        shares = ((options.validation, parts.validation), (options.test, parts.test))
        if options.window is None:  # each file is a sample, so what is wrong is seen before reading
            files = np.arange(len(parts.train[0]))
            divide(files, parts.train[1], files, [part or share for share, part in shares])
        transform = event_transform(parse(options.augment, "events")[1], framing.frame_size)
        train = Frames(*parts.train, framing, transform, options.skip_bad)
        others = [
            Frames(*part, framing, skip_bad=options.skip_bad) if part else share
            for share, part in shares
        ]
        return divide(train, train.labels, train.index["file"], others)


class Frames(Samples):
    """Recordings as frames, cached on disk; all are read and checked at the first use.

    A recording that is cut into windows is as many samples. ``index`` has of each sample its
    file's number, events, duration and checksum. With ``event_transform``, which changes a
    training sample's events at random, the events are cached too, and a training sample's frames
    are made when it is asked for. With ``skip_bad`` files that can't be read are left out.
    """

    index: NDArray[np.void]

    def __init__(
        self,
        files: Sequence[Path],
        labels: Sequence[int],
        framing: Framing,
        event_transform: EventTransform | None = None,
        skip_bad: bool = False,
    ) -> None:
        frames, self.index = cached_frames(files, framing, skip_bad)
        super().__init__(frames, np.asarray(labels)[self.index["file"]], Tensor.float)
        self.files, self.framing, self.event_transform = files, framing, event_transform
        self.events = None if event_transform is None else CachedEvents(files, framing, skip_bad)

    def drawn(self, index: int, augment: Transform) -> Sample:
        if self.events is None or self.event_transform is None:
            return super().drawn(index, augment)
        frames = self.framing.frames(self.event_transform(self.events[index]))
        return self.encode(augment(torch.from_numpy(frames))), int(self.labels[index])


def cached_frames(
    files: Sequence[Path], framing: Framing, skip_bad: bool = False
) -> FramesAndIndex:
    """Frames [N, T, P, H, W] of recordings, mapped into memory, and the index of `Frames`.

    They are of the smallest type that holds all counts.
    """

    def build(folder: Path) -> None:
        read, what = functools.partial(_frames_of, framing), f"frames, T = {framing.T}"
        indices = [np.zeros(0, _INDEX)]
        skipped: list[str] = []
        with ArrayFile(folder / "frames.npy", (framing.T, *framing.shape)) as array:
            for number, (frames, index) in read_each(read, files, what, skip_bad, skipped):
                array.extend(frames)
                index["file"] = number
                indices.append(index)
        if array.length == 0:
            raise ValueError(f"none of {len(files)} recordings can be read; {skipped[0]}")
        np.save(folder / "index.npy", np.concatenate(indices))
        (folder / "skipped.json").write_text(json.dumps(skipped))
        _log.info("frames: %d samples as %s", array.length, array.dtype)

    folder = build_once(built_of("frames", files, framing, skip_bad), build)
    for message in json.loads((folder / "skipped.json").read_text()):
        _log.warning("left out: %s", message)
    return np.load(folder / "frames.npy", mmap_mode="r"), np.load(folder / "index.npy")


def _frames_of(framing: Framing, path: Path) -> FramesAndIndex:
    windows = framing.windows(path)
    frames = np.stack([smallest(framing.frames(events)) for events in windows])
    index = np.zeros(len(windows), _INDEX)
    index["events"] = [len(events) for events in windows]
    index["us"] = [events["t"][-1] - events["t"][0] for events in windows]
    index["crc"] = [zlib.crc32(one.tobytes()) for one in frames]
    return frames, index


class CachedEvents:
    """The events of samples, mapped into memory from one file in the cache."""

    def __init__(self, files: Sequence[Path], framing: Framing, skip_bad: bool = False) -> None:
        def build(folder: Path) -> None:
            ends = [0]
            with (folder / "events.raw").open("wb") as file:
                for _, windows in read_each(framing.windows, files, "events", skip_bad):
                    for events in windows:
                        file.write(events.tobytes())
                        ends.append(ends[-1] + len(events))
            np.save(folder / "ends.npy", ends)

        # events are the same for every number of frames, but for what is too short for it
        same = framing if skip_bad or framing.window else replace(framing, T=1)
        self.__setstate__(build_once(built_of("events", files, same, skip_bad), build))

    def __getstate__(self) -> Path:
        return self._folder  # another process maps the file anew

    def __setstate__(self, folder: Path) -> None:
        self._folder = folder
        self._ends = np.load(folder / "ends.npy")
        self._events = np.memmap(folder / "events.raw", EVENT, "r")

    def __getitem__(self, index: int) -> Events:
        return np.array(self._events[self._ends[index] : self._ends[index + 1]])


def read_each(
    read: Callable[[Path], Result],
    files: Sequence[Path],
    desc: str,
    skip_bad: bool,
    skipped: list[str] | None = None,
) -> Iterator[tuple[int, Result]]:
    """Reads files by `map_in_order`; yields the number of each, and what was read.

    With ``skip_bad`` those that can't be read are left out; ``skipped`` takes their errors' texts.
    """
    reading = functools.partial(_or_why_not, read, skip_bad)
    found = map_in_order(reading, files, desc, "recording")
    for number, one in enumerate(found):
        if not isinstance(one, str):
            yield number, one
        elif skipped is not None:
            skipped.append(one)


def _or_why_not(read: Callable[[Path], Result], skip_bad: bool, path: Path) -> Result | str:
    """Reads a file; where bad ones may be left out, returns the error's text instead of raising."""
    try:
        return read(path)
    except (ValueError, OSError) as error:
        if skip_bad:
            return str(error)
        if isinstance(error, OSError):
            raise
        raise ValueError(
            f"{error}\n(--data.skip_bad true leaves out recordings that can't be read)"
        ) from error


def built_of(kind: str, files: Sequence[Path], how: Framing | Format, skip_bad: bool) -> Path:
    """The folder in the cache of what is built of recordings as they are now."""
    stamps = [file_stamp(file) for file in dict.fromkeys(map(file_of, files))]
    names = [path.name for path in files]
    return cache_folder() / kind / cache_key(_VERSION, how, skip_bad, stamps, names)
