"""Optional packages, and how to install those that are missing."""

import importlib
from importlib.util import find_spec
from typing import Any

_TRAIN = (
    "PIL", "jsonargparse", "lightning", "matplotlib", "scipy", "sklearn", "tensorboard",
    "torchmetrics", "torchvision", "tqdm", "yaml",
)  # fmt: skip
# The modules of each extra of pyproject.toml, those of the extras within it included.
EXTRAS: dict[str, tuple[str, ...]] = {
    "train": _TRAIN,
    "compare": (*_TRAIN, "jinja2"),
    "events": (*_TRAIN, "flatbuffers", "h5py", "hdf5plugin", "lz4", "tonic", "zstandard"),
    "ros": ("rosbags",),
    "ray": ("ray",),
    "llm": ("peft", "tokenizers", "transformers"),
    "export": (*_TRAIN, "nir", "nirtorch", "onnx", "onnxruntime", "onnxscript", "snntorch"),
}


def need(extra: str, *packages: str) -> None:
    """Checks that an extra, or some packages of it, are installed, without importing any.

    Raises:
        ModuleNotFoundError: one is missing; the message says how to install it.
    """
    missing = [name for name in packages or EXTRAS[extra] if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: "
            f"pip install 'htaf-snn[{extra}]'",
            name=missing[0],
        )


def needed(name: str) -> Any:
    """Returns the module ``name``, of a package that an extra brings and that `need` asks for."""
    package = name.partition(".")[0]
    need(next(extra for extra, names in EXTRAS.items() if package in names), package)
    return importlib.import_module(name)
