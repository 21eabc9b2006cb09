"""The sets of static images, and any folder of images."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from . import images
from .definition import SOURCE_OPTIONS, DataConfig, DataSet, Shape, root_of
from .encoders import Encoder
from .folders import Labelled, Parts, parts_of, unpacked
from .images import Images
from .samples import Samples
from .splits import Splits, check_labels, split

_OPTIONS = frozenset({"encoder"})


def _splits(
    train: Images,
    test: Images | None,
    num_classes: int,
    options: DataConfig,
    where: object,
    validation: Images | None = None,
) -> Splits:
    encode = Encoder(options.encoder, options.T)
    given = [part for part in (validation, test) if part is not None]
    drawn = (validation is None and options.validation > 0) + (test is None)
    check_labels(train[1], num_classes, where, 1 + drawn)
    for part in given:
        check_labels(part[1], num_classes, where, 1)
    return split(
        Samples(*train, encode),
        train[1],
        options.validation if validation is None else Samples(*validation, encode),
        options.test if test is None else Samples(*test, encode),
        options.split_seed,
    )


def _digits(options: DataConfig) -> Splits:
    return _splits(images.digits(), None, 10, options, "digits")


def _torchvision(
    read: Callable[[str, Path, bool], tuple[Images, Images]],
    class_name: str,
    num_classes: int,
    options: DataConfig,
) -> Splits:
    root = root_of(options, class_name)
    return _splits(*read(class_name, root, options.download), num_classes, options, root)


def _tiny_imagenet(options: DataConfig) -> Splits:
    root = root_of(options, "Tiny-ImageNet")
    train, test = (_decoded(part, options) for part in images.tiny_imagenet(root))
    return _splits(train, test, 200, options, root)


def _folder(options: DataConfig) -> Splits:
    parts = _folder_parts(options)
    train, validation, test = (
        None if part is None else _decoded(part, options)
        for part in (parts.train, parts.validation, parts.test)
    )
    assert train is not None
    return _splits(train, test, len(parts.classes), options, options.root, validation)


def _inspect_folder(options: DataConfig) -> tuple[Shape, int]:
    parts = _folder_parts(options)
    width, height = images.image_size(parts.train[0][0])
    if options.size is not None:
        width = height = options.size
    return (3, height, width), len(parts.classes)


def _folder_parts(options: DataConfig) -> Parts:
    root = root_of(options, "images by class")
    return parts_of(unpacked(root) if root.is_file() else root, IMG_EXTENSIONS)


def _decoded(part: Labelled, options: DataConfig) -> Images:
    files, labels = part
    return images.decoded(files, options.size), np.asarray(labels)


def data_sets() -> list[DataSet]:
    """The registered sets of images."""

    def published(
        name: str,
        source: str,
        shape: Shape,
        num_classes: int,
        load: Callable[[DataConfig], Splits],
    ) -> DataSet:
        def inspect(_: DataConfig) -> tuple[Shape, int]:
            return shape, num_classes

        options = _OPTIONS | (set() if name == "digits" else SOURCE_OPTIONS)
        return DataSet(name, "images", source, shape, num_classes, load, inspect, options)

    mnist = functools.partial(_torchvision, images.torchvision_mnist)
    cifar = functools.partial(_torchvision, images.torchvision_cifar)
    grey, colour = (1, 28, 28), (3, 32, 32)
    partial = functools.partial
    return [
        published(
            "digits", "scikit-learn's real handwritten digits, 8x8 grey", (1, 8, 8), 10, _digits
        ),
        published("mnist", "MNIST, through torchvision", grey, 10, partial(mnist, "MNIST", 10)),
        published(
            "fashion_mnist",
            "Fashion-MNIST, through torchvision",
            grey,
            10,
            partial(mnist, "FashionMNIST", 10),
        ),
        published(
            "cifar10", "CIFAR-10, through torchvision", colour, 10, partial(cifar, "CIFAR10", 10)
        ),
        published(
            "cifar100",
            "CIFAR-100, through torchvision",
            colour,
            100,
            partial(cifar, "CIFAR100", 100),
        ),
        published(
            "tiny_imagenet",
            "Tiny-ImageNet, as published; its validation split is the test split here",
            (3, 64, 64),
            200,
            _tiny_imagenet,
        ),
        DataSet(
            "image_folder",
            "images",
            "images, as RGB, in <class>/, or in train/<class>/ and test/<class>/; may be a .tar.*"
            " or .zip",
            None,
            None,
            _folder,
            _inspect_folder,
            _OPTIONS | {"root", "size"},
        ),
    ]
