"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from htaf_snn import HTAFSpike
from htaf_snn.neurons.kernels.buffers import cpu_source
from tests.neurons.test_cuda_source import lif

MAIN = """
#include <initializer_list>
#include <stdio.h>
template <class A> A* make(i64 n) {
    A* a = (A*)malloc(sizeof(A) * n);  // of exactly this size: one beyond is an error
    memset(a, 0, sizeof(A) * n);
    return a;
}
int main() {
    const double numbers[] = {.67, 6, 16.08, .3, .3, .3, .3, .3};
    for (i64 T : {1, 5, 40}) for (i64 N : {1, 3, 61, 4099, 20001}) for (i64 inner : {1, 2}) {
        i64 channels = N % 3 == 0 ? 3 : 1;
        R* p = make<R>(PARAMETERS * channels);
        for (i64 i = 0; i < PARAMETERS * channels; ++i) p[i] = R(1.5);
        X *x = make<X>(T * N), *o = make<X>(T * N), *go = make<X>(T * N), *gx = make<X>(T * N);
        R *s0 = make<R>(N), *last = make<R>(N), *seq = make<R>(T * N), *gs = make<R>(N);
        R* gp = make<R>(LEARNED * channels);
        Forward f = Forward();
        f.T = T, f.N = N, f.threads = 2, f.channels = channels, f.inner = inner;
        for (int k = 0; k < NUMBERS; ++k) f.numbers[k] = numbers[k];
        for (int k = 0; k < PARAMETERS; ++k) f.parameters[k] = p + k * channels;
        f.x[0] = x, f.o[0] = o, f.last[0] = last, f.s_seq[0] = seq;
        f.s0[0] = N % 2 ? s0 : 0;
        forward(&f);
        Backward b = Backward();
        *(Call*)&b = f;
        b.go[0] = go, b.g_last[0] = last, b.gs_seq[0] = seq, b.gx[0] = gx;
        b.gs0[0] = N % 2 ? gs : 0;
        for (int k = 0; k < LEARNED; ++k) b.gp[k] = gp + k * channels;
        backward(&b);
        void* all[] = {p, x, o, go, gx, s0, last, seq, gs, gp};
        for (void* a : all) free(a);
    }
    puts("done");
}
"""


@pytest.mark.parametrize("learned", [False, True], ids=["", "learned"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str
)
def test_no_error(dtype: torch.dtype, learned: bool, tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    function = HTAFSpike(mode="soft", learnable=learned, num_channels=3 if learned else None)
    source = cpu_source(lif(function), dtype)
    (tmp_path / "k.cpp").write_text(source + MAIN)
    flags = ["-std=c++14", "-O1", "-g", "-fopenmp", "-fsanitize=address,undefined",
             "-fno-sanitize-recover=all"]  # fmt: skip
    built = subprocess.run(
        [compiler, *flags, str(tmp_path / "k.cpp"), "-o", str(tmp_path / "k")],
        capture_output=True, text=True,
    )  # fmt: skip
    if "cannot find" in built.stderr:
        pytest.skip("no sanitizer runtime")
    assert built.returncode == 0, built.stderr
    done = subprocess.run(
        [str(tmp_path / "k")], capture_output=True, text=True,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr[-3000:]
