"""Checks a GPU in six minutes: tests, kernels, a network's steps.

    python -m tests.gpu.check [--out FOLDER] [--device cpu]

It runs the tests marked ``gpu``; times kernels by torch's profiler, ours against SpikingJelly's
ATan (Triton), its FlexSN and ReLU; times a training step of the small VGG, eager and as a captured
graph, its batch norms apart and within the neurons' kernels; and takes the peak memory. It writes
``gpu.json`` and prints the tables of it. What does not run is written down with its error.
``--device cpu`` tries the script itself, on tiny inputs.
"""
# ruff: noqa: T201  # a command

from __future__ import annotations

import argparse
import functools
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import htaf_snn
from benchmarks import layers, measure
from benchmarks.train import _data, _networks, _peak_on_cuda, other_norms, training_step

_SECONDS = 330  # after which nothing more is begun


def synchronize(device: str) -> None:
    """Waits for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def kernel_microseconds(run: Callable[[], object], device: str) -> float:
    """The time of a pass's kernels, the least of five."""
    activity = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
    found: list[float] = []
    for _ in range(5):
        synchronize(device)
        with profile(activities=[activity]) as seen:
            run()
            synchronize(device)
        events = seen.key_averages()
        of = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
        found.append(sum(getattr(event, of) for event in events))
    return min(found)


def kernels(layer: layers.Layer, T: int, N: int, device: str) -> dict[str, float]:
    """Microseconds of a layer's kernels, forward and backward."""
    module: Any = layer.build().to(device)
    x_seq, grad = (t.to(device, layer.dtype) for t in layers.random_input(T, N))
    x_seq.requires_grad_()
    layers.forward_backward(module, x_seq, grad)  # compiles
    made: list[Tensor] = []

    def forward() -> None:
        if hasattr(module, "reset"):
            module.reset()
        made[:] = [module(x_seq)]

    def backward() -> None:
        torch.autograd.grad(made[0], x_seq, grad, retain_graph=True)

    return {
        "forward": kernel_microseconds(forward, device),
        "backward": kernel_microseconds(backward, device),
    }


def step_of(name: str, N: int, device: str, graphed: bool) -> dict[str, float]:
    """Milliseconds of a training step of the small VGG, and MiB at its peak."""
    network = _networks("vgg_small", 1.0, device=device)[name]().to(device)
    frames, labels = (t.to(device) for t in _data(8, N))
    optimizer = torch.optim.AdamW(network.parameters(), capturable=graphed)

    def step() -> None:
        training_step(network, optimizer, frames, labels)

    side = torch.cuda.Stream() if graphed else None
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    run: Callable[[], object] = step
    if graphed:
        torch.cuda.synchronize()
        htaf_snn.refresh(network)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        run = graph.replay
    found, times = {}, []
    if device == "cuda" and not graphed:
        found["peak MiB"] = _peak_on_cuda(step) / 2**20
    for _ in range(10):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        times.append(1e3 * (time.perf_counter() - start))
    return {"ms": min(times), **found}


def tests(device: str) -> dict[str, str]:
    """The last line of pytest's, and whether all passed."""
    command = [sys.executable, "-m", "pytest", "tests/neurons/test_gpu.py", "-m", "gpu", "-q"]
    command += ["-p", "no:cacheprovider", "-n", "0"]
    command += ["--collect-only"] if device == "cpu" else ["--maxfail", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS / 2)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"result": lines[-1] if lines else "", "failed": "\n".join(failed)}


def plan(device: str) -> dict[str, Callable[[], Any]]:
    """What is asked, by name; the most telling first."""
    backend: htaf_snn.neurons.Backend = "cupy" if device == "cuda" else "cpu"
    size = (16, 1 << 21) if device == "cuda" else (4, 1 << 10)
    batches = (8, 32, 512) if device == "cuda" else (2,)
    contenders = [
        layers.ours("HTAF soft", backend),
        layers.ours("HTAF soft", backend, torch.bfloat16),
        layers.ours("ATan", backend),
        layers.spikingjelly("ATan"),
        layers.limits()[0],
        layers.Layer("ReLU, bfloat16", nn.ReLU, torch.bfloat16),
        *([layers.flexsn()] if device == "cuda" else []),
    ]
    asked: dict[str, Callable[[], Any]] = {}
    for layer in contenders:
        asked[f"kernels: {layer.name}"] = functools.partial(kernels, layer, *size, device)
    for N in batches:
        for name in ("htaf_snn, HTAF", other_norms(device), "SpikingJelly, ATan", "ReLU"):
            for graphed in (False, True) if device == "cuda" else (False,):
                label = f"step: {name}, N = {N}, {'graphed' if graphed else 'eager'}"
                asked[label] = functools.partial(step_of, name, N, device, graphed)
    return {**asked, "tests": functools.partial(tests, device)}


def main() -> None:
    """Asks, prints and writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, default=Path())
    arguments = parser.parse_args()
    begin = time.monotonic()
    found: dict[str, dict[str, Any]] = {"setting": {"setting": measure.setting()}}
    if arguments.device == "cuda":
        found["setting"]["device"] = torch.cuda.get_device_name()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, ask in plan(arguments.device).items():
        try:
            if time.monotonic() - begin > _SECONDS:
                raise TimeoutError("not begun: no time left")
            found[name] = ask()
        except Exception as error:  # one failure must not cost the rest of a lent machine's minutes
            found[name] = {"error": f"{type(error).__name__}: {error}"[:500]}
        found[name]["seconds so far"] = round(time.monotonic() - begin)
        gc.collect()
        values = (f"{v:.2f}" if isinstance(v, float) else str(v) for v in found[name].values())
        print(f"| {name} | {' | '.join(values)} |", flush=True)
        (arguments.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
