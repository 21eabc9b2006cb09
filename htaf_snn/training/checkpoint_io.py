"""Checkpoints that are whole or absent, and that run no code when they are read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from ..files import write_whole


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint: tensors, numbers, strings and containers, nothing else.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds something that would have to run code.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} can't be read as a checkpoint: {reason}; it is cut short, damaged, or holds "
            "more than weights and settings"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} can't be read as a checkpoint: it holds no dictionary")
    return content


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a kill or a full disk leaves the old file."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        if storage_options is not None:
            raise TypeError("storage options have no meaning for files")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            write_whole(Path(path), lambda partial: torch.save(checkpoint, partial))
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError when it fails
            raise OSError(
                f"the checkpoint {path} could not be written: {error}; the last one written is "
                "whole; free space, then go on with --ckpt_path=last"
            ) from error

    def load_checkpoint(
        self,
        path: Any,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,  # noqa: ARG002  # always so
    ) -> dict[str, Any]:
        return read_checkpoint(path, map_location)


def check_writable(folder: Path) -> None:
    """Makes the folder, if need be, and tries to write into it.

    Raises:
        OSError: it can't be made or written; the message says what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-") as probe:
            probe.write(b"x" * 4096)
    except OSError as error:
        raise OSError(f"can't write into {folder}: {error}; choose another with --out") from error
