"""Files by class, in folders or archives."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.folder import make_dataset

from ..files import cache_folder, is_hidden
from .cache import build_once, cache_key, file_stamp

Labelled = tuple[list[Path], list[int]]  # files and their labels

_OTHER_FOLDERS = ("test", "val", "validation")  # the first of them is the test part


@dataclass(frozen=True)
class FolderParts:
    """The files of a data set by part; a part that it does not come with is None."""

    root: Path
    classes: list[str]  # names, in order of the labels
    train: Labelled
    validation: Labelled | None = None
    test: Labelled | None = None


def named_files(folder: Path, suffix: str, classes: Sequence[str], label_in_file: bool) -> Labelled:
    """The files anywhere below ``folder``, in fixed order, labelled by the folder they lie in.

    With ``label_in_file`` the files themselves are named after the ``classes``.
    """
    labels = {name: label for label, name in enumerate(classes)}
    labelled = []
    for path in folder.rglob(f"*{suffix}"):
        if not is_hidden(path.name):
            name = path.stem if label_in_file else path.parent.name
            if name not in labels:
                raise ValueError(
                    f"{path}: label out of range: {name} is none of the {len(classes)} classes "
                    f"{', '.join(classes)}"
                )
            labelled.append((labels[name], path))
    if not labelled:
        raise FileNotFoundError(f"{folder}: no {suffix} file")
    labelled.sort()
    return [path for _, path in labelled], [label for label, _ in labelled]


def classes_in(folder: Path) -> list[str]:
    """The names of the folders in ``folder``, without hidden ones, in order."""
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))


def class_files(folder: Path, suffixes: tuple[str, ...], classes: Sequence[str]) -> Labelled:
    """The files of each of ``classes``, a folder each, and their labels, in fixed order."""

    def is_one(path: str) -> bool:
        inside = Path(path).relative_to(folder)
        return inside.name.lower().endswith(suffixes) and not any(map(is_hidden, inside.parts))

    labels = {name: label for label, name in enumerate(classes)}
    try:
        samples = make_dataset(folder, labels, is_valid_file=is_one)
    except FileNotFoundError as error:
        known = ", ".join(suffixes)
        raise FileNotFoundError(f"{folder}: {error} The known suffixes are {known}") from error
    return [Path(path) for path, _ in samples], [label for _, label in samples]


def parts_of(root: Path, suffixes: tuple[str, ...]) -> FolderParts:
    """The files of ``root``, which holds <class>/, or train/, test/ and val/ with <class>/ each.

    Where there is val/ (or validation/) and no test/, it is the test part.
    """
    train_folder = root / "train" if (root / "train").is_dir() else root
    classes = classes_in(train_folder)
    parts_alone = {name.lower() for name in classes} <= {"train", *_OTHER_FOLDERS}
    if len(classes) < 2 or parts_alone:
        found = f"the folders {', '.join(classes)}" if classes else "no folder"
        raise (ValueError if classes else FileNotFoundError)(
            f"{train_folder} has {found}, where a folder for each of several classes is due:\n"
            f"  {root}/cat/1{suffixes[0]}  {root}/dog/1{suffixes[0]}\n"
            f"  or with parts, in lower case: {root}/train/cat/1{suffixes[0]}  "
            f"{root}/test/cat/1{suffixes[0]}"
        )
    train = class_files(train_folder, suffixes, classes)
    others: list[Labelled | None] = []
    for folder in (root / name for name in _OTHER_FOLDERS):
        if train_folder == root or not folder.is_dir():
            continue
        odd = sorted({*classes} ^ {*classes_in(folder)})
        if odd:
            raise ValueError(
                f"{root}: the class folders of train and {folder.name} differ: {', '.join(odd)} "
                "in one of them only"
            )
        others.append(class_files(folder, suffixes, classes))
    test, validation, *_ = [*others, None, None]
    return FolderParts(root, classes, train, validation, test)


def split_by_file(parts: FolderParts, split_file: Path) -> FolderParts:
    """The files of a folder without parts, as ``split_file`` divides them by its lines."""
    root = parts.root
    if parts.test is not None:
        raise ValueError(f"{root} has a folder test/ or val/: `split_file` would contradict it")
    left = {path.relative_to(root).as_posix(): i for i, path in enumerate(parts.train[0])}
    chosen: dict[str, Labelled] = {name: ([], []) for name in ("train", "validation", "test")}
    for number, line in enumerate(split_file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, part = (cell.strip() for cell in line.rpartition(","))
        part = {"val": "validation"}.get(part, part)
        if part not in chosen or name not in left:
            raise ValueError(
                f"{split_file}, line {number}: {line!r}; a line is path,part, with the path of a "
                f"recording below {root}, once, and the part train, validation or test"
            )
        number = left.pop(name)
        chosen[part][0].append(parts.train[0][number])
        chosen[part][1].append(parts.train[1][number])
    if not chosen["train"][0]:
        raise ValueError(f"{split_file} lists nothing to train on")
    validation, test = (
        chosen[name] if chosen[name][0] else None for name in ("validation", "test")
    )
    return FolderParts(root, parts.classes, chosen["train"], validation, test)


def groups_of(files: Sequence[Path], root: Path, pattern: str) -> list[str]:
    """Returns the pattern's match in each file's path below ``root``: its first group, if any."""
    groups = []
    for path in files:
        name = path.relative_to(root).as_posix()
        match = re.search(pattern, name)
        if match is None:
            raise ValueError(f"`group` (={pattern}) finds nothing in {name}, below {root}")
        groups.append(match[1] if match.re.groups else match[0])
    return groups


def unpacked(archive: Path) -> Path:
    """Unpacks ``archive`` once into the cache; returns the folder, or its only folder."""

    def build(folder: Path) -> None:
        # "data" refuses names that lead out of the folder; zip files are always read so
        shutil.unpack_archive(archive, folder, filter=None if archive.suffix == ".zip" else "data")

    folder = build_once(cache_folder() / "unpacked" / cache_key(file_stamp(archive)), build)
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder
