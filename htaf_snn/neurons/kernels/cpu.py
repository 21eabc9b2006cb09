"""The kernels on the CPU: compiled by the system's compiler, called through ctypes."""

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..step.graph import Program
from .buffers import Words, cpu_source, packer
from .compiler import load_library

_FORWARD, _BACKWARD = packer("NormForward"), packer("NormBackward")
_NORM = {
    "norm_forward": _FORWARD, "moments": _FORWARD, "norm_backward": _BACKWARD, "correct": _BACKWARD,
}  # fmt: skip


class CPUKernel:
    """The loaded kernel of one step and input dtype, or of the step with its batch norm.

    Raises:
        BackendUnavailableError: it can't be compiled or loaded.
    """

    number = "d"  # the format of a number of the layer
    functions = ("forward", "backward")

    def __init__(self, program: Program, dtype: torch.dtype, normed: bool = False) -> None:
        library = load_library(cpu_source(program, dtype, normed))
        self._functions: dict[str, Callable[[int], None]] = {}
        for name in _NORM if normed else self.functions:
            function = getattr(library, name)
            function.argtypes, function.restype = [ctypes.c_void_p], None
            self._functions[name] = function

    def run(
        self, name: str, words: Words, _learned: Sequence[Tensor] = (), _live: None = None
    ) -> None:
        """Calls a function of the kernel on the words of its struct."""
        self._functions[name](words.buffer_info()[0])

    def norm(self, name: str, words: Words, values: Mapping[str, Any], _live: None = None) -> None:
        """Calls a function of the step and of the norm before it, with the norm's arguments."""
        pack, order = _NORM[name]
        words = words + Words("q", pack(*order(values)))
        self._functions[name](words.buffer_info()[0])


kernel = functools.cache(CPUKernel)  # compiled and loaded once
