"""Optional packages, and how to install those that are missing."""

from __future__ import annotations

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
    "events": (*_TRAIN, "h5py", "hdf5plugin", "lz4", "tonic", "zstandard"),
    "ros": ("rosbags",),
    "ray": ("ray",),
    "llm": ("peft", "tokenizers", "transformers"),
    "export": (*_TRAIN, "nir", "nirtorch", "onnx", "onnxruntime", "onnxscript", "snntorch"),
}


def need(extra: str) -> None:
    """Checks that an extra is installed, without importing anything of it.

    Raises:
        ModuleNotFoundError: some of it is missing; the message says how to install it.
    """
    missing = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if missing:
        raise _not_installed(missing, extra)


def needed(name: str) -> Any:
    """The module ``name``, of a package that an extra brings.

    Raises:
        ModuleNotFoundError: it is missing; the message says how to install it.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in (name, package):
            raise
        extra = next(extra for extra, names in EXTRAS.items() if package in names)
        raise _not_installed([package], extra) from error


def _not_installed(names: list[str], extra: str) -> ModuleNotFoundError:
    verb = "is" if len(names) == 1 else "are"
    return ModuleNotFoundError(
        f"{', '.join(names)} {verb} not installed: pip install 'htaf-snn[{extra}]'", name=names[0]
    )
