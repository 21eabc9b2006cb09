"""Files by class, in folders or archives."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from torchvision.datasets.folder import find_classes, make_dataset

from ..files import cache_folder
from .cache import build_once, cache_key, file_stamp

Labelled = tuple[list[Path], list[int]]  # files and their labels

_TEST_FOLDERS = ("test", "val")


def named_files(folder: Path, suffix: str, classes: Sequence[str], label_in_file: bool) -> Labelled:
    """The files anywhere below ``folder``, labelled by name, in fixed order.

    Args:
        folder: where to search.
        suffix: of the files.
        classes: the classes' names in order of their labels.
        label_in_file: whether the file, not the folder it lies in, is named after the class.

    Raises:
        ValueError: a name that is not among ``classes``.
        FileNotFoundError: no file.
    """
    labels = {name: label for label, name in enumerate(classes)}
    files = sorted(folder.rglob(f"*{suffix}"))
    if not files:
        raise FileNotFoundError(f"{folder}: no {suffix} file")
    for path in files:
        name = path.stem if label_in_file else path.parent.name
        if name not in labels:
            raise ValueError(
                f"{path}: label out of range: {name} is none of the {len(classes)} classes "
                f"{', '.join(classes)}"
            )
    labelled = [(labels[p.stem if label_in_file else p.parent.name], p) for p in files]
    labelled.sort()
    return [path for _, path in labelled], [label for label, _ in labelled]


def class_files(folder: Path, suffixes: tuple[str, ...], classes: Sequence[str]) -> Labelled:
    """The files of each of ``classes``, a folder each, and their labels, in fixed order.

    Raises:
        FileNotFoundError: a class without files.
    """
    labels = {name: label for label, name in enumerate(classes)}
    try:
        samples = make_dataset(folder, labels, suffixes)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder}: {error}") from error
    return [Path(path) for path, _ in samples], [label for _, label in samples]


def parts_of(root: Path, suffixes: tuple[str, ...]) -> tuple[Labelled, Labelled | None, list[str]]:
    """Train files, test files and classes of ``root``, which holds <class>/, or train/ and test/.

    Returns:
        files and labels to train, files and labels to test (None where the root has no test/ or
        val/), and the classes' names.

    Raises:
        ValueError: the class folders differ between train and test.
        FileNotFoundError: no class folder, or no file.
    """
    if not (root / "train").is_dir():
        classes = find_classes(root)[0]
        return class_files(root, suffixes, classes), None, classes
    classes = find_classes(root / "train")[0]
    train = class_files(root / "train", suffixes, classes)
    tests = [root / name for name in _TEST_FOLDERS if (root / name).is_dir()]
    if not tests:
        return train, None, classes
    others = find_classes(tests[0])[0]
    if classes != others:
        odd = sorted(set(classes) ^ set(others))
        raise ValueError(
            f"{root}: the class folders of train and {tests[0].name} differ: {', '.join(odd)} in "
            "one of them only"
        )
    return train, class_files(tests[0], suffixes, classes), classes


def unpacked(archive: Path) -> Path:
    """What ``archive`` holds, unpacked once in the cache; its only folder if that is all."""

    def build(folder: Path) -> None:
        # "data" refuses names that lead out of the folder; zip files are always read so
        shutil.unpack_archive(archive, folder, filter=None if archive.suffix == ".zip" else "data")

    folder = build_once(cache_folder() / "unpacked" / cache_key(file_stamp(archive)), build)
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder
