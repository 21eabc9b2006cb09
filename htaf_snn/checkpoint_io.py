"""Checkpoints that are whole or absent, and that run no code when they are read."""

import contextlib
import pickletools
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from .files import write_whole

# What a checkpoint's pickle may name, beside torch's storages. Torch's own list is longer: with it
# a small file can make objects of any size.
_NAMES = {
    "collections OrderedDict",
    "torch Size",
    "torch device",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
}


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint: tensors, numbers, strings and containers, nothing else.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds something that would have to run code, or holds weights
            that are not finite.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        size = _check_archive(path)
        content = torch.load(path, map_location=map_location, weights_only=True)
        if not isinstance(content, dict):
            raise ValueError("it holds no dictionary")
        _check_tensors(content, size)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} can't be read as a checkpoint: {reason}; it is cut short, damaged, or holds "
            "more than weights and settings"
        ) from error
    return content


@contextlib.contextmanager
def checkpoint_errors(checkpoint: Path) -> Iterator[None]:
    """Turns any error within the block into a ValueError that names the file."""
    try:
        yield
    except Exception as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{checkpoint} can't be read as a checkpoint of htaf-snn fit: {reason}"
        ) from error


def settings_in(content: dict[str, Any], key: str) -> dict[str, Any]:
    """Returns the settings under ``key`` of a checkpoint."""
    found = content[key]
    if not isinstance(found, dict):
        raise ValueError(f"its {key} are no dict")
    # Lightning's own entry, in older checkpoints, would name a function to build the class with.
    return {name: value for name, value in found.items() if name != "_instantiator"}


def check_import(
    what: str, spec: object, fits: Callable[[object], bool], allow: str | None
) -> None:
    """Refuses what is of a module that would have to be imported, and so run, to see it."""
    path = str(spec).partition(":")[0]
    module, dot, name = path.rpartition(".")
    if not dot or module == allow:
        return
    if module not in sys.modules:
        raise ValueError(
            f"it names the {what} {path}, and to import {module} is to run it; if you "
            f"trust it, add --allow {module}"
        )
    found = vars(sys.modules[module]).get(name)
    if not fits(found):
        raise ValueError(f"it names {path}, which is not a {what}")


def _check_archive(path: str | Path) -> int:
    """Compares the archive's checksums and names; returns how many bytes it holds."""
    with zipfile.ZipFile(path) as archive:
        files = archive.infolist()
        if len({file.filename for file in files}) < len(files):
            raise ValueError("it holds a file twice")
        if any(file.compress_type != zipfile.ZIP_STORED for file in files):
            raise ValueError("it is compressed, which torch's own are not")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} in it is wrong")
        (pickle,) = (file for file in files if Path(file.filename).name == "data.pkl")
        for operation, argument, _ in pickletools.genops(archive.read(pickle)):
            if operation.name in ("GLOBAL", "INST", "STACK_GLOBAL") and not (
                argument in _NAMES or re.fullmatch(r"torch \w*Storage", str(argument))
            ):
                raise ValueError(f"it names {argument}")
        return sum(file.file_size for file in files)


def _check_tensors(content: dict[str, Any], size: int) -> None:
    """Refuses tensors that say they are larger than the file, and weights that are not finite."""
    seen = 0
    for tensor in _tensors(content):
        seen += tensor.numel() * tensor.element_size()
        if tensor.layout != torch.strided or seen > 4 * size:  # few are stored once for several
            raise ValueError("a tensor in it is larger than the file")
    for key in ("state_dict", "optimizer_states"):
        for tensor in _tensors(content.get(key)):
            if not tensor.isfinite().all():
                raise ValueError(f"a tensor in its {key} is not finite")


def _tensors(content: object) -> Iterator[Tensor]:
    known, left = set(), [content]  # what is held twice is looked at once
    while left:
        item = left.pop()
        if id(item) in known:
            continue
        known.add(id(item))
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, dict):
            left.extend(item.values())
        elif isinstance(item, list | tuple | set):
            left.extend(item)


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a kill or a full disk leaves the old file."""

    def __init__(self, remedy: str = "free space, then go on with --ckpt_path=last") -> None:
        super().__init__()
        self._remedy = remedy

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        if storage_options is not None:
            raise TypeError("storage options have no meaning for files")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(path), lambda partial: torch.save(checkpoint, partial), self._remedy)

    def load_checkpoint(
        self,
        path: Any,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,  # noqa: ARG002  # always so
    ) -> dict[str, Any]:
        return read_checkpoint(path, map_location)


def check_writable(folder: Path) -> None:
    """Makes the folder, if need be; raises an OSError, with a remedy, if it can't be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-") as probe:
            probe.write(b"x" * 4096)
    except OSError as error:
        raise OSError(f"can't write into {folder}: {error}; choose another with --out") from error
