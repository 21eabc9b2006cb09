"""NVRTC called directly: it compiles for any device, with no device and no driver."""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Resources:
    """What ptxas says of a kernel."""

    registers: int
    spilled_bytes: int


@functools.cache
def library() -> ctypes.CDLL | None:
    """NVRTC as torch's CUDA wheels bring it, or None."""
    folder = Path(torch.__file__).parents[1] / "nvidia"
    found = [p for p in sorted(folder.glob("*/lib/libnvrtc.so.*")) if "builtins" not in p.name]
    return ctypes.CDLL(str(found[0])) if found else None


def _known() -> set[int]:
    """Compute capabilities, in tenths, that this NVRTC compiles for."""
    nvrtc, count = library(), ctypes.c_int()
    if nvrtc is None:
        return set()
    nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    found = (ctypes.c_int * count.value)()
    nvrtc.nvrtcGetSupportedArchs(found)
    return set(found)


# Turing to Blackwell; an older NVRTC does not know the newest.
ARCHITECTURES = tuple(a for a in (75, 80, 86, 90, 100, 120) if a in _known())


def compile_ptx(source: str, architecture: int, flags: tuple[str, ...]) -> bytes:
    """PTX of ``source`` for compute_<architecture>; a failure raises with NVRTC's log."""
    return _compiled(source, f"compute_{architecture}", flags, "PTX").rstrip(b"\0")


def compile_cubin(source: str, architecture: int, flags: tuple[str, ...]) -> bytes:
    """The machine code of ``source`` for sm_<architecture>."""
    return _compiled(source, f"sm_{architecture}", flags, "CUBIN")


def _compiled(source: str, architecture: str, flags: tuple[str, ...], kind: str) -> bytes:
    nvrtc = library()
    assert nvrtc is not None
    for builtins in Path(nvrtc._name).parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    program = ctypes.c_void_p()
    assert (
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"k.cu", 0, None, None)
        == 0
    )
    options = [f"--gpu-architecture={architecture}".encode(), *(f.encode() for f in flags)]
    status = nvrtc.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*options)
    )
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode()
    getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
    made = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{kind}")(program, made)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return made.raw


def resources(ptx: bytes, architecture: int) -> dict[str, Resources]:
    """Registers and spills of every kernel, by ptxas."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "k.ptx")
        path.write_bytes(ptx)
        done = subprocess.run(
            ["ptxas", "-v", f"-arch=sm_{architecture}", str(path), "-o", f"{folder}/k.cubin"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    found = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers",
        done.stderr,
        re.DOTALL,
    )
    return {name: Resources(int(r), int(stores) + int(loads)) for name, stores, loads, r in found}
