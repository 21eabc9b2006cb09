"""Data sets by name: the name here is the name on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import static
from .digits_events import SIZE as DIGITS_EVENTS_SIZE
from .digits_events import digits_events as digits_events_folder
from .events import Frames, SensorSize, event_files, import_tonic
from .splits import Splits, check_labels, split

_DIGITS_EVENTS_SENSOR: SensorSize = (DIGITS_EVENTS_SIZE, DIGITS_EVENTS_SIZE, 2)
_NMNIST_SENSOR: SensorSize = (34, 34, 2)
_NMNIST_COUNT = 70_000  # recordings of the complete set


@dataclass(frozen=True)
class LoadOptions:
    """What every data set is loaded with; see `SpikingDataModule` for the meanings."""

    root: Path | None
    T: int
    validation: float
    test: float
    split_seed: int
    download: bool


@dataclass(frozen=True)
class DataSet:
    """A registered data set.

    ``shape`` is (C, H, W) of a frame; ``sensor_size`` is (W, H, P), None for static images.
    """

    name: str
    source: str
    shape: tuple[int, int, int]
    num_classes: int
    load: Callable[[LoadOptions], Splits]
    sensor_size: SensorSize | None = None


DATA_SETS: dict[str, DataSet] = {}


def data_set(name: str) -> DataSet:
    """The registered data set of that name.

    Raises:
        ValueError: there is none; the message lists the known ones.
    """
    if name not in DATA_SETS:
        raise ValueError(f"unknown data set {name!r}; the known ones are {', '.join(DATA_SETS)}")
    return DATA_SETS[name]


def _register(
    source: str,
    shape: tuple[int, int, int],
    num_classes: int = 10,
    sensor_size: SensorSize | None = None,
) -> Callable[[Callable[[LoadOptions], Splits]], Callable[[LoadOptions], Splits]]:
    def decorate(load: Callable[[LoadOptions], Splits]) -> Callable[[LoadOptions], Splits]:
        name = load.__name__
        DATA_SETS[name] = DataSet(name, source, shape, num_classes, load, sensor_size)
        return load

    return decorate


@_register(
    "scikit-learn's real digits before a simulated event camera; built here, nothing to download",
    shape=(2, DIGITS_EVENTS_SIZE, DIGITS_EVENTS_SIZE),
    sensor_size=_DIGITS_EVENTS_SENSOR,
)
def digits_events(options: LoadOptions) -> Splits:
    import_tonic()  # before the recordings are built
    files, labels = event_files(digits_events_folder(), ("Train",))
    frames = Frames(files, labels, _DIGITS_EVENTS_SENSOR, options.T)
    return split(frames, labels, options.validation, options.test, options.split_seed)


@_register(
    "N-MNIST, real event camera (Orchard et al. 2015), through Tonic; complete or a subset",
    shape=(2, 34, 34),
    sensor_size=_NMNIST_SENSOR,
)
def nmnist(options: LoadOptions) -> Splits:
    """The official test split where the set is complete; a subset is pooled and split anew."""
    root = _root(options, "nmnist")
    if options.download:
        tonic = import_tonic()
        for part in (True, False):
            tonic.datasets.NMNIST(str(root), train=part)
    files, labels = event_files(root, ("Train", "Test"))
    check_labels(labels, 10, root)
    if len(files) < _NMNIST_COUNT:
        frames = Frames(files, labels, _NMNIST_SENSOR, options.T)
        return split(frames, labels, options.validation, options.test, options.split_seed)
    train, train_labels = event_files(root, ("Train",))
    test, test_labels = event_files(root, ("Test",))
    return split(
        Frames(train, train_labels, _NMNIST_SENSOR, options.T),
        train_labels,
        options.validation,
        Frames(test, test_labels, _NMNIST_SENSOR, options.T),
        options.split_seed,
    )


@_register("scikit-learn's real handwritten digits, 8x8 grey", shape=(1, 8, 8))
def digits(options: LoadOptions) -> Splits:
    dataset = static.digits(options.T)
    return split(dataset, dataset.labels, options.validation, options.test, options.split_seed)


@_register("MNIST, through torchvision", shape=(1, 28, 28))
def mnist(options: LoadOptions) -> Splits:
    return _torchvision("MNIST", options)


@_register("Fashion-MNIST, through torchvision", shape=(1, 28, 28))
def fashion_mnist(options: LoadOptions) -> Splits:
    return _torchvision("FashionMNIST", options)


def _torchvision(class_name: str, options: LoadOptions) -> Splits:
    root = _root(options, class_name)
    train, test = static.torchvision_mnist(class_name, root, options.download, options.T)
    check_labels(train.labels, 10, root)
    return split(train, train.labels, options.validation, test, options.split_seed)


def _root(options: LoadOptions, name: str) -> Path:
    if options.root is None:
        raise ValueError(f"`data.root` is needed: the folder that holds, or shall hold, {name}")
    root = options.root.expanduser()
    if not root.is_dir() and not options.download:
        raise FileNotFoundError(f"`data.root` (={options.root}): there is no such folder")
    return root
