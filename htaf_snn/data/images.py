"""Static images as uint8 arrays, decoded once."""

from __future__ import annotations

import functools
import gzip
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..files import cache_folder
from .cache import ArrayFile, build_once, cache_key, file_stamp, map_in_order
from .folders import Labelled, unpacked

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]  # [N, C, H, W] of 0 to 255, and labels [N]


def digits() -> Images:
    """scikit-learn's 1797 handwritten digits, 8x8 pixels of 17 grey levels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images: NDArray[np.uint8] = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    return images[:, None], bunch.target


def decoded(files: Sequence[Path], size: int | None) -> NDArray[np.uint8]:
    """Image files as RGB, [N, 3, H, W], mapped into memory from one file in the cache.

    Args:
        files: images in any format of Pillow.
        size: side in pixels to which the shorter side is scaled and the longer one cropped;
            None keeps the files' size, which must be one.

    Raises:
        ValueError: a file that is no image, or of another size than the first.
    """

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
    images: NDArray[np.uint8] = np.load(folder / "images.npy", mmap_mode="r")
    return images


def image_size(path: Path) -> tuple[int, int]:
    """(W, H) of an image file, from its header.

    Raises:
        ValueError: the file is no image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        raise ValueError(f"{path} can't be read as an image: {error}") from error


def _decode(path: Path, size: int | None) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as file:
            image: Image.Image = _eight_bits(path, file).convert("RGB")
    except OSError as error:
        raise ValueError(f"{path} can't be read as an image: {error}") from error
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def _eight_bits(path: Path, image: Image.Image) -> Image.Image:
    """The image with values from 0 to 255; those of 16 bits are scaled by their type."""
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"{path} has values of 32 bits (Pillow's mode {image.mode}), whose range is not known; "
            "save it with 8 or 16 bits"
        )
    return image


def tiny_imagenet(root: Path) -> tuple[Labelled, Labelled]:
    """Train and validation files of Tiny-ImageNet, as published: its test split has no labels.

    Args:
        root: the folder ``tiny-imagenet-200`` or what holds it or ``tiny-imagenet-200.zip``.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: a label that is not in wnids.txt, or files that are not annotated.
    """
    name = "tiny-imagenet-200"
    if (root / f"{name}.zip").is_file() and not (root / name).is_dir():
        root = unpacked(root / f"{name}.zip")
    elif (root / name).is_dir():
        root = root / name
    annotations = root / "val" / "val_annotations.txt"
    if not (root / "wnids.txt").is_file() or not annotations.is_file():
        raise FileNotFoundError(
            f"no wnids.txt and val/val_annotations.txt in {root}; `data.root` must hold {name}/ or "
            f"{name}.zip, from http://cs231n.stanford.edu/{name}.zip"
        )
    labels = {wnid: i for i, wnid in enumerate(sorted((root / "wnids.txt").read_text().split()))}
    train = [
        (path, label)
        for wnid, label in labels.items()
        for path in sorted((root / "train" / wnid / "images").glob("*.JPEG"))
    ]
    test = []
    for line in annotations.read_text().splitlines():
        file, wnid, *_ = line.split("\t")
        if wnid not in labels:
            raise ValueError(f"{annotations}: label out of range: {wnid} is not in wnids.txt")
        test.append((root / "val" / "images" / file, labels[wnid]))
    return _columns(train), _columns(test)


def _columns(pairs: Sequence[tuple[Path, int]]) -> Labelled:
    return [path for path, _ in pairs], [label for _, label in pairs]


def torchvision_cifar(class_name: str, root: Path, download: bool) -> tuple[Images, Images]:
    """Train and test images of torchvision's ``CIFAR10`` or ``CIFAR100``, checked by md5.

    Args:
        class_name: torchvision's class.
        root: folder that holds ``cifar-10-batches-py`` or ``cifar-100-python``, or its .tar.gz.
        download: whether torchvision may fetch what is missing.

    Raises:
        FileNotFoundError: files are missing or damaged and ``download`` is False.
    """
    from torchvision import datasets

    dataset_class: Any = getattr(datasets, class_name)
    archive, folder = root / dataset_class.filename, root / dataset_class.base_folder
    if archive.is_file() and not folder.is_dir():
        root = unpacked(archive).parent
    try:
        parts = [dataset_class(root, train=train, download=download) for train in (True, False)]
    except RuntimeError as error:
        raise FileNotFoundError(
            f"{folder}: missing, or a file's md5 is not the published one; `data.root` (={root}) "
            f"must hold {dataset_class.base_folder}/ or {dataset_class.filename}, or set "
            "data.download=true where there is a network"
        ) from error
    train, test = ((part.data.transpose(0, 3, 1, 2), np.array(part.targets)) for part in parts)
    return train, test


def torchvision_mnist(class_name: str, root: Path, download: bool) -> tuple[Images, Images]:
    """Train and test images of torchvision's ``MNIST`` or ``FashionMNIST``.

    Args:
        class_name: torchvision's class, also the folder's name.
        root: folder that holds ``<class_name>/raw/``, with the four idx files, or their .gz.
        download: whether torchvision may fetch what is missing.

    Raises:
        FileNotFoundError: files are missing and ``download`` is False.
    """
    from torchvision import datasets

    dataset_class: Any = getattr(datasets, class_name)
    raw = root / class_name / "raw"
    names = [Path(url).stem for url, _ in dataset_class.resources]
    missing = [name for name in names if not (raw / name).is_file()]
    if missing and all((raw / f"{name}.gz").is_file() for name in missing):
        root = _unpacked(raw, names, class_name)
    elif missing and not download:
        raise FileNotFoundError(
            f"{raw}: no {', '.join(missing)} (nor .gz); `data.root` (={root}) must hold "
            f"{class_name}/raw/ with the four idx files, or set data.download=true where there "
            "is a network"
        )
    parts = (
        dataset_class(root, train=train, download=download and bool(missing))
        for train in (True, False)
    )
    train, test = ((part.data[:, None].numpy(), part.targets.numpy()) for part in parts)
    return train, test


def _unpacked(raw: Path, names: list[str], class_name: str) -> Path:
    """A folder in the cache where the .gz files of ``raw``, which is never written to, lie open."""
    key = cache_key(class_name, [file_stamp(raw / f"{name}.gz") for name in names])

    def build(folder: Path) -> None:
        (folder / class_name / "raw").mkdir(parents=True)
        for name in names:
            with (
                gzip.open(raw / f"{name}.gz") as packed,
                (folder / class_name / "raw" / name).open("wb") as plain,
            ):
                shutil.copyfileobj(packed, plain)

    return build_once(cache_folder() / "unpacked" / key, build)
