"""Static images, shown to the network unchanged at each of T time steps (direct coding)."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from .cache import build_once, cache_folder, cache_key, file_stamp
from .splits import Sample


class DirectCoded(Dataset[Sample]):
    """Images repeated over time.

    Args:
        images: [N, C, H, W] uint8, 0 to 255.
        labels: [N].
        T: time steps.
    """

    def __init__(self, images: Tensor, labels: Tensor, T: int) -> None:
        self.images, self.labels, self.T = images, labels, T

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images[index].float() / 255
        return image.expand(self.T, *image.shape), int(self.labels[index])


def digits(T: int) -> DirectCoded:
    """scikit-learn's 1797 handwritten digits, 8x8 pixels of 17 grey levels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images: NDArray[np.uint8] = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    return DirectCoded(torch.from_numpy(images)[:, None], torch.from_numpy(bunch.target), T)


def torchvision_mnist(
    class_name: str, root: Path, download: bool, T: int
) -> tuple[DirectCoded, DirectCoded]:
    """Train and test images of torchvision's ``MNIST`` or ``FashionMNIST``.

    Args:
        class_name: torchvision's class, also the folder's name.
        root: folder that holds ``<class_name>/raw/``, with the four idx files, or their .gz.
        download: whether torchvision may fetch what is missing.
        T: time steps.

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
    train, test = (DirectCoded(part.data[:, None], part.targets, T) for part in parts)
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
