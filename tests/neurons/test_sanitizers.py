"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from htaf_snn import HTAFSpike
from htaf_snn.neurons.backends import cpu
from htaf_snn.surrogates.expressions import expression

MAIN = """
#include <initializer_list>
#include <stdio.h>
template <class A> A* make(i64 n) {
    A* a = (A*)malloc(sizeof(A) * n);  // of exactly this size: one beyond is an error
    memset(a, 0, sizeof(A) * n);
    return a;
}
int main() {
    for (i64 T : {1, 5, 40}) for (i64 N : {1, 3, 61, 4099, 20001}) for (int mode : {0, 1, 2})
    for (int learn : {0, 1}) {
        i64 channels = learn && N % 3 == 0 ? 3 : 1;
        R* p = make<R>(2 * channels);
        for (i64 i = 0; i < 2 * channels; ++i) p[i] = R(1.5);
        X *x = make<X>(T * N), *s = make<X>(T * N), *g = make<X>(T * N), *gx = make<X>(T * N);
        R *v0 = make<R>(N), *v = make<R>(N), *vs = make<R>(T * N), *gv = make<R>(N);
        double *gp = make<double>(2 * channels), *gr = make<double>(1);
        forward(mode, T, 2, N, channels, 1, p, 0, .5, 1, 0, .3, 1, 0, 0, x, v0, s, v, vs);
        backward(mode, T, 2, N, channels, 1, p, 0, .5, 1, 0, .3, 1, 0, 0, x, v0, g, v, vs, gx, gv,
                 learn ? gp : 0, learn ? gr : 0);
        void* all[] = {p, x, s, g, gx, v0, v, vs, gv, gp, gr};
        for (void* a : all) free(a);
    }
    puts("done");
}
"""


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str
)
def test_no_error(dtype: torch.dtype, tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    found = expression(HTAFSpike())
    assert found is not None
    (tmp_path / "k.cpp").write_text(cpu.source(found, dtype) + MAIN)
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
