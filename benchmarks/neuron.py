"""Speed of one layer of neurons."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from htaf_snn.neurons import Backend, LIFNode, check_backend

from . import measure
from .layers import (
    FUNCTIONS,
    ZOO,
    Layer,
    flexsn,
    forward_backward,
    inductor_lif,
    limits,
    ours,
    random_input,
    snntorch,
    spikingjelly,
    zoo,
)

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_NEAR_THRESHOLD = 1e-5  # a potential this near may fire in one arithmetic and not in another
_TOLERANCE = 1e-5  # relative to the largest magnitude
_BYTES = 20  # an element and step in float32: x and spikes forward; x and both gradients backward


def neuron(
    elements: Sequence[int] = (1_000, 1_000_000, 4_000_000),
    steps: Sequence[int] = (4, 16),
    rounds: int = 7,
    threads: Sequence[int] | None = None,
    dtypes: Sequence[str] = ("bfloat16",),
    device: Literal["cpu", "cuda"] = "cpu",
    inductor: bool = True,
) -> str:
    """Times forward and backward of one LIF layer: ours, SpikingJelly's, snnTorch's, a ReLU.

    Every layer runs once a round, in turn, after its output and gradient have been compared with
    the reference in float64.

    Args:
        elements: sizes of the input [T, N], in elements.
        steps: numbers of time steps T, >= 1.
        rounds: number of rounds that medians are taken over, >= 1.
        threads: thread counts, >= 1: one is timed in CPU time, more in wall time. None is one
            and all.
        dtypes: types of the input in which our HTAF layer runs beside float32: bfloat16, float16.
        device: "cpu"; or "cuda", with CuPy's kernels, SpikingJelly's Triton kernel and its FlexSN,
            timed by CUDA events, and float32's least traffic beside the device's bandwidth.
        inductor: whether SpikingJelly's loop runs under torch.compile too, which compiles for each
            size.

    Returns:
        a table for each size and number of time steps, in nanoseconds an element and time step.

    Raises:
        ValueError: a number below 1, an input of fewer elements than time steps, or an unknown
            type.
        BackendUnavailableError: "cuda" can't run here.
        RuntimeError: a layer does not compute what the reference does; no speed is reported.
    """
    measure.at_least_one("rounds", rounds)
    measure.at_least_one("steps", *steps)
    measure.at_least_one("elements", *elements)
    for size in elements:
        if size < max(steps):
            raise ValueError(f"`elements` (={size}) must be at least `steps` (={max(steps)})")
    for name in dtypes:
        if name not in _DTYPES:
            raise ValueError(f"`dtypes` (={name!r}) must be among {', '.join(_DTYPES)}")
    wanted = [_DTYPES[name] for name in dtypes]
    sizes = [(T, size // T) for size in elements for T in steps]
    if device == "cuda":
        check_backend("cupy")
        return _on_cuda([*_layers("cupy", wanted, inductor), flexsn()], sizes, rounds)
    counts = measure.thread_counts(threads)
    layers = _layers("cpu", wanted, inductor)
    for T, N in tqdm(sizes, desc="neuron: comparing with the reference", unit="size", disable=None):
        with measure.using_threads(counts[-1]):
            check(layers, *random_input(T, N))
    parts = [f"LIF layer, forward + backward, on the CPU ({measure.setting()})"]
    with tqdm(total=len(sizes) * rounds, desc="neuron", unit="round", disable=None) as progress:
        for T, N in sizes:
            x_seq, grad = random_input(T, N)
            tasks = {
                layer.name: functools.partial(
                    forward_backward,
                    layer.build(),
                    x_seq.to(layer.dtype).requires_grad_(),
                    grad.to(layer.dtype),
                )
                for layer in layers
            }
            timings = measure.interleave(tasks, rounds, counts, progress)
            lines = measure.timing_table(timings, counts, 1e-9 * T * N)
            parts.append(f"T = {T}, {T * N} elements; ns an element and time step\n{lines}")
    parts.append(_zoo(sizes[-1], rounds))
    legend = measure.legend(counts)
    if snntorch() is None:
        legend += "\nsnnTorch: not installed"
    return "\n\n".join([*parts, legend])


def _zoo(size: tuple[int, int], rounds: int) -> str:
    """Other neurons that are fused, beside SpikingJelly's own, on one thread."""
    T, N = size
    x_seq, grad = random_input(T, N)
    tasks = {}
    for name in ZOO:
        few = x_seq[:, :1000].double().requires_grad_()
        made = [
            forward_backward(zoo(name, b).double(), few, grad[:, :1000].double())
            for b in ("cpu", None)
        ]
        for found, wanted in zip(*made, strict=True):
            if not torch.allclose(found, wanted, rtol=1e-9, atol=1e-9):
                raise RuntimeError(f"{name} differs from SpikingJelly's; no speed is reported")
        x = x_seq.clone().requires_grad_()
        tasks[name, True] = functools.partial(forward_backward, zoo(name, "cpu"), x, grad)
        tasks[name, False] = functools.partial(forward_backward, zoo(name, None), x, grad)
    with tqdm(total=rounds, desc="neuron: other neurons", unit="round", disable=None) as progress:
        timings = measure.interleave(tasks, rounds, [1], progress)
    rows = []
    for name in ZOO:
        own, host = (timings[(name, fused), 1].cpu / (T * N) * 1e9 for fused in (True, False))
        rows.append([name, f"{own:.2f}", f"{host:.2f}", f"{host / own:.2f}"])
    header = ["neuron, HTAF soft", "htaf_snn cpu", "SpikingJelly", "speed"]
    return f"T = {T}, {T * N} elements; ns, CPU time, 1 thread\n{measure.table(header, rows)}"


def _on_cuda(layers: Sequence[Layer], sizes: Sequence[tuple[int, int]], rounds: int) -> str:
    for T, N in tqdm(sizes, desc="neuron: comparing with the reference", unit="size", disable=None):
        check(layers, *random_input(T, N), device="cuda")
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    parts = [f"LIF layer, forward + backward, on {properties.name} ({measure.setting()})"]
    with tqdm(total=len(sizes) * rounds, desc="neuron", unit="round", disable=None) as progress:
        for T, N in sizes:
            x_seq, grad = (t.cuda() for t in random_input(T, N))
            tasks = {
                layer.name: functools.partial(
                    forward_backward,
                    layer.build().cuda(),
                    x_seq.to(layer.dtype).requires_grad_(),
                    grad.to(layer.dtype),
                )
                for layer in layers
            }
            seconds = measure.interleave_on_cuda(tasks, rounds, progress)
            rows = [
                [
                    name,
                    f"{1e12 * taken / (T * N):.1f}",
                    f"{taken / seconds[measure.LIMIT]:.2f}",
                    f"{seconds[measure.BASELINE] / taken:.2f}",
                    f"{_BYTES * T * N / taken / 1e9:.0f}",
                ]
                for name, taken in seconds.items()
            ]
            header = ["layer", "ps an element and step", "/ ReLU", "speed", "GB/s of 20 bytes"]
            parts.append(f"T = {T}, {T * N} elements\n{measure.table(header, rows)}")
    bandwidth = properties.memory_clock_rate * 1e3 * 2 * properties.memory_bus_width / 8 / 1e9
    parts.append(f"the device's memory bandwidth by its clock and bus: {bandwidth:.0f} GB/s")
    return "\n\n".join(parts)


def _layers(backend: Backend, dtypes: Sequence[torch.dtype], compiled: bool) -> list[Layer]:
    other = snntorch()
    return [
        *(ours(function, backend) for function in FUNCTIONS),
        *(ours("HTAF soft", backend, dtype) for dtype in dtypes),
        ours("HTAF soft", "torch"),
        *(inductor_lif(function) for function in FUNCTIONS if compiled),
        spikingjelly("ATan"),
        spikingjelly("HTAF soft"),
        *([] if other is None else [other]),
        *limits(),
    ]


@dataclass(frozen=True)
class _Expected:
    output: Tensor
    grad: Tensor
    settled: Tensor  # [N], where no potential came near the threshold


def check(layers: Sequence[Layer], x_seq: Tensor, grad: Tensor, device: str = "cpu") -> None:
    """Compares the output and input gradient of each LIF layer with the reference in float64.

    Args:
        layers: those without a ``function`` are passed over.
        x_seq: input, exact in every layer's dtype.
        grad: gradient of the output, likewise.
        device: where the layers run.

    Shape:
        ``x_seq`` and ``grad`` [T, N].

    Raises:
        RuntimeError: a layer differs by more than 1e-5, or its dtype's rounding, of the largest
            magnitude.
    """
    x_seq, grad = x_seq.to(device), grad.to(device)
    for function in FUNCTIONS:
        claiming = [layer for layer in layers if layer.function == function]
        if not claiming:
            continue
        expected = _reference(function, x_seq, grad)
        for layer in claiming:
            x = x_seq.to(layer.dtype).requires_grad_()
            module = layer.build().to(device)
            output, grad_x = forward_backward(module, x, grad.to(layer.dtype))
            tolerance = max(_TOLERANCE, torch.finfo(layer.dtype).eps)
            for what, got, wanted in (
                ("output", output, expected.output),
                ("gradient", grad_x, expected.grad),
            ):
                difference = (got.detach().double() - wanted).abs().nan_to_num(nan=torch.inf)
                worst = torch.where(expected.settled, difference, 0.0).amax()
                scale = wanted.abs().amax()
                if not worst <= tolerance * scale:
                    raise RuntimeError(
                        f"{layer.name}: {what} differs from the reference by {worst / scale:.2g} "
                        f"of its largest magnitude (at most {tolerance:.2g}) at "
                        f"T = {len(x_seq)}, {x_seq.numel()} elements; no speed is reported"
                    )


def _reference(function: str, x_seq: Tensor, grad: Tensor) -> _Expected:
    node = LIFNode(
        surrogate_function=FUNCTIONS[function](), step_mode="m", store_v_seq=True, backend="torch"
    )
    x = x_seq.double().requires_grad_()
    output, grad_x = forward_backward(node, x, grad.double())
    with torch.no_grad():
        assert node.v_seq is not None
        before = nn.functional.pad(node.v_seq[:-1], (0, 0, 1, 0))  # potentials, from 0 on
        from_threshold = (node.charge(x, before) - node.v_threshold).abs()
    settled = (from_threshold > _NEAR_THRESHOLD).all(0)
    return _Expected(output.detach(), grad_x, settled)
