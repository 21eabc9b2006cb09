"""The kernels on the CPU: compiled by the system's compiler, called through ctypes."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..step.graph import Program
from .buffers import Words, cpu_source
from .compiler import load_library


class CPUKernel:
    """The loaded kernel of one step and input dtype, or of the step with its batch norm.

    Raises:
        BackendUnavailableError: it can't be compiled or loaded.
    """

    number = "d"  # the format of a number of the layer
    functions = ("forward", "backward")
    norm_functions = ("norm_forward", "norm_backward", "moments", "correct")

    def __init__(self, program: Program, dtype: torch.dtype, normed: bool = False) -> None:
        names = self.norm_functions if normed else self.functions
        library = load_library(cpu_source(program, dtype, normed))
        self._functions: dict[str, Callable[[int], None]] = {}
        for name in names:
            function = getattr(library, name)
            function.argtypes, function.restype = [ctypes.c_void_p], None
            self._functions[name] = function

    def run(
        self, name: str, words: Words, _learned: Sequence[Tensor] = (), _live: None = None
    ) -> None:
        """Calls a function of the kernel on the words of its struct."""
        self._functions[name](words.buffer_info()[0])


kernel = functools.cache(CPUKernel)  # compiled and loaded once
