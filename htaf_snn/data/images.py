"""Sets of static images, as uint8 arrays that are decoded once, and any folder of images."""

import contextlib
import functools
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..files import cache_folder
from .cache import ArrayFile, build_once, cache_key, file_stamp, map_in_order
from .data_set import DataSet, Opened, root_of
from .folders import FolderParts, Labelled, class_files, parts_of, unpacked
from .loader import Encoder, Samples
from .options import DataConfig
from .splits import Splits, check_labels, split

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]  # [N, C, H, W] of 0 to 255, and labels [N]


def decoded(part: Labelled, size: int | None) -> Images:
    """Image files as RGB, [N, 3, H, W], mapped into memory from one file in the cache.

    The shorter side is scaled to ``size`` pixels and the longer one cropped; None keeps the files'
    size, which must be one.
    """
    files, labels = part

    def build(folder: Path) -> None:
        width, height = (size, size) if size is not None else image_size(files[0])
        decode = functools.partial(_decode, size=size)
        with ArrayFile(folder / "images.npy", (3, height, width)) as images:
            for index, image in enumerate(map_in_order(decode, files, "images", "file")):
                if image.shape != images.shape:
                    raise ValueError(
                        f"mixed image sizes: {files[index]} has {image.shape[2]}x{image.shape[1]} "
                        f"pixels, {files[0]} {width}x{height}; set `data.size` to a side in pixels"
                    )
                images.extend(image[None])

    key = cache_key(PIL.__version__, size, [file_stamp(path) for path in files])
    folder = build_once(cache_folder() / "images" / key, build)
    return np.load(folder / "images.npy", mmap_mode="r"), np.asarray(labels)


@contextlib.contextmanager
def _image(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except OSError as error:
        raise ValueError(f"{path} can't be read as an image: {error}") from error


def image_size(path: Path) -> tuple[int, int]:
    """(W, H) of an image file, from its header."""
    with _image(path) as image:
        return image.size


def _decode(path: Path, size: int | None) -> NDArray[np.uint8]:
    with _image(path) as file:
        if file.mode in ("I", "F"):
            raise ValueError(
                f"{path} has values of 32 bits (Pillow's mode {file.mode}), whose range is not "
                "known; save it with 8 or 16 bits"
            )
        image: Image.Image = file
        if file.mode.startswith("I;16"):
            wide = np.asarray(file).astype(np.uint32)
            image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
        image = image.convert("RGB")
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def split_images(
    options: DataConfig,
    num_classes: int,
    where: object,
    train: Images,
    validation: Images | None,
    test: Images | None,
) -> Splits:
    """The three parts as samples; what the set does not come with is drawn of training's."""
    least = 1 + (validation is None and options.validation > 0) + (test is None)
    for part, at_least in ((train, least), (validation, 1), (test, 1)):
        if part is not None:
            check_labels(part[1], num_classes, where, at_least)
    encode = Encoder(options.encoder, options.T)
    return split(
        Samples(*train, encode),
        train[1],
        options.validation if validation is None else Samples(*validation, encode),
        options.test if test is None else Samples(*test, encode),
        options.split_seed,
    )


def _digits(options: DataConfig) -> Splits:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    return split_images(options, 10, "digits", (images, bunch.target), None, None)


def _tiny_imagenet(options: DataConfig) -> Splits:
    """The training and validation parts of Tiny-ImageNet, whose test part has no labels.

    The root is the folder ``tiny-imagenet-200``, or holds it or ``tiny-imagenet-200.zip``.
    """
    root, name = root_of(options, "Tiny-ImageNet"), "tiny-imagenet-200"
    if (root / name).is_dir():
        root = root / name
    elif (root / f"{name}.zip").is_file():
        root = unpacked(root / f"{name}.zip")
    annotations = root / "val" / "val_annotations.txt"
    if not (root / "wnids.txt").is_file() or not annotations.is_file():
        raise FileNotFoundError(
            f"no wnids.txt and val/val_annotations.txt in {root}; `data.root` must hold {name}/ or "
            f"{name}.zip, from http://cs231n.stanford.edu/{name}.zip"
        )
    wnids = sorted((root / "wnids.txt").read_text().split())
    known = {wnid: label for label, wnid in enumerate(wnids)}
    files, labels = [], []
    for line in annotations.read_text().splitlines():
        file, wnid, *_ = line.split("\t")
        if wnid not in known:
            raise ValueError(f"{annotations}: label out of range: {wnid} is not in wnids.txt")
        files.append(root / "val" / "images" / file)
        labels.append(known[wnid])
    train = class_files(root / "train", (".jpeg",), wnids)
    train_images, test_images = (decoded(part, options.size) for part in (train, (files, labels)))
    return split_images(options, 200, root, train_images, None, test_images)


def _cifar(name: str, num_classes: int, options: DataConfig) -> Splits:
    """The parts of torchvision's ``CIFAR10`` or ``CIFAR100``, checked by md5.

    Below the root lies ``cifar-10-batches-py`` or ``cifar-100-python``, or its .tar.gz.
    """
    root = root_of(options, name)
    theirs: Any = getattr(datasets, name)
    archive, folder = root / theirs.filename, root / theirs.base_folder
    if archive.is_file() and not folder.is_dir():
        root = unpacked(archive).parent
    try:
        parts = [theirs(root, train=train, download=options.download) for train in (True, False)]
    except RuntimeError as error:
        raise FileNotFoundError(
            f"{folder}: missing, or a file's md5 is not the published one; `data.root` (={root}) "
            f"must hold {theirs.base_folder}/ or {theirs.filename}, or set data.download=true "
            "where there is a network"
        ) from error
    train, test = ((part.data.transpose(0, 3, 1, 2), np.array(part.targets)) for part in parts)
    return split_images(options, num_classes, root, train, None, test)


def _mnist(name: str, options: DataConfig) -> Splits:
    """The parts of torchvision's ``MNIST`` or ``FashionMNIST``.

    Below the root lies ``<name>/raw/`` with the four idx files, or their .gz.
    """
    root = root_of(options, name)
    theirs: Any = getattr(datasets, name)
    files = [root / name / "raw" / Path(url).stem for url, _ in theirs.resources]

    def missing() -> list[str]:
        return [f.name for f in files if not (f.is_file() or f.with_name(f"{f.name}.gz").is_file())]

    if missing() and options.download:
        theirs(root, download=True)
    if missing():
        raise FileNotFoundError(
            f"{files[0].parent}: no {', '.join(missing())} (nor .gz); `data.root` (={root}) must "
            f"hold {name}/raw/ with the four idx files, or set data.download=true where there is "
            "a network"
        )
    arrays = [_idx(path) for path in files]  # images and labels of training, of the test
    train, test = ((x[:, None], y.astype(np.int64)) for x, y in (arrays[:2], arrays[2:]))
    return split_images(options, 10, root, train, None, test)


def _idx(path: Path) -> NDArray[np.uint8]:
    """The array of an idx file of bytes, or of its .gz beside it."""
    packed = path.with_name(f"{path.name}.gz")
    try:
        content = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
        if len(content) < 4 or content[:3] != b"\0\0\x08":
            raise ValueError(f"it begins with {content[:4]!r}")
        sides = np.frombuffer(content, ">u4", content[3], 4).tolist()
        return np.frombuffer(content, np.uint8, offset=4 + 4 * len(sides)).reshape(sides)
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} (or .gz) is no idx file: {error}; fetch it again") from error


class ImageFolder(DataSet):
    """The set ``image_folder``: its files tell the shape, its folders the classes."""

    def open(self, options: DataConfig) -> Opened:
        root = root_of(options, "images by class")
        parts = parts_of(unpacked(root) if root.is_file() else root, IMG_EXTENSIONS)
        width, height = image_size(parts.train[0][0])
        if options.size is not None:
            width = height = options.size
        load = functools.partial(_folder, parts, options)
        return Opened((3, height, width), len(parts.classes), load)


def _folder(parts: FolderParts, options: DataConfig) -> Splits:
    given = (parts.train, parts.validation, parts.test)
    train, validation, test = (part and decoded(part, options.size) for part in given)
    assert train is not None
    return split_images(options, len(parts.classes), parts.root, train, validation, test)


_FETCHED = frozenset({"encoder", "root", "download"})
IMAGE_SETS = [
    DataSet(
        "digits", "images", "scikit-learn's real handwritten digits, 8x8 grey", (1, 8, 8), 10,
        _digits, options=frozenset({"encoder"}),
    ),
    *(
        DataSet(
            name, "images", f"{title}, through torchvision", (1, 28, 28), 10,
            functools.partial(_mnist, title.replace("-", "")), options=_FETCHED,
        )
        for name, title in (("mnist", "MNIST"), ("fashion_mnist", "Fashion-MNIST"))
    ),
    *(
        DataSet(
            f"cifar{n}", "images", f"CIFAR-{n}, through torchvision", (3, 32, 32), n,
            functools.partial(_cifar, f"CIFAR{n}", n), options=_FETCHED,
        )
        for n in (10, 100)
    ),
    DataSet(
        "tiny_imagenet", "images",
        "Tiny-ImageNet, as published; its validation split is the test split here",
        (3, 64, 64), 200, _tiny_imagenet, options=_FETCHED,
    ),
    ImageFolder(
        "image_folder", "images",
        "images, as RGB, in <class>/, or in train/<class>/ and test/<class>/; may be a .tar.* or "
        ".zip",
        None, None, options=frozenset({"encoder", "root", "size"}),
    ),
]  # fmt: skip
