from __future__ import annotations

import importlib
import importlib.util
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import auto_cli
from tqdm import tqdm

import benchmarks as bench
import htaf_snn
from benchmarks import layers, measure
from htaf_snn import HTAFSpike, LIFNode
from htaf_snn.neurons import resolve

# The functions of the same names hide these modules.
neuron_module = importlib.import_module("benchmarks.neuron")
train_module = importlib.import_module("benchmarks.train")
memory_module = importlib.import_module("benchmarks.memory")
data_module = importlib.import_module("benchmarks.data")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(measure, "SHORTEST", 1e-3)
    threads = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == threads


def columns(table: str, header: str) -> list[dict[str, list[float]]]:
    """The rows under each line that starts with ``header``: name -> numbers."""
    tables = []
    for block in table.split("\n\n"):
        _, found, rows = block.partition(header)
        if found:
            split = [re.split(r"  +", row) for row in rows.splitlines()[1:]]
            tables.append({name: [float(cell) for cell in cells] for name, *cells in split})
    return tables


@pytest.fixture
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a speed was measured")

    monkeypatch.setattr(measure, "_clock", refuse)


@pytest.fixture
def _two_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kernels to compile, not one a neuron."""

    def quick(name: str, backend: Any) -> Any:
        fused = name in list(layers.ZOO)[:2]
        return layers.zoo(name, backend if fused or backend is None else "torch")

    monkeypatch.setattr(neuron_module, "zoo", quick)


@pytest.mark.usefixtures("_two_kernels")
def test_neuron_has_a_row_a_layer_and_finite_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    def eager(function: str) -> layers.Layer:  # test_others_run_htaf compiles one
        return replace(layers.spikingjelly(function), name=f"Inductor, {function}")

    monkeypatch.setattr(neuron_module, "inductor_lif", eager)
    text = bench.neuron([100], steps=[3], rounds=1, threads=[1, 2], dtypes=["bfloat16"])
    assert "T = 3, 99 elements" in text
    (rows,) = columns(text, "layer  ")
    assert {name for name in rows if not name.startswith("snnTorch")} == {
        "htaf_snn cpu, HTAF soft",
        "htaf_snn cpu, HTAF hard",
        "htaf_snn cpu, ATan",
        "htaf_snn cpu, HTAF soft, bfloat16",
        "htaf_snn torch, HTAF soft",
        "SpikingJelly, ATan",
        "SpikingJelly, HTAF soft",
        *(f"Inductor, {function}" for function in layers.FUNCTIONS),
        "ReLU",
        "sigmoid",
    }
    for row in rows.values():
        assert len(row) == 7  # time, / ReLU, speed on one thread and on two; 1 to 2
        assert all(math.isfinite(cell) and cell > 0 for cell in row)
    assert rows["ReLU"][1] == rows["ReLU"][4] == 1
    assert rows["SpikingJelly, ATan"][2] == rows["SpikingJelly, ATan"][5] == 1
    assert re.search(r"^layer +CPU, 1 thread +/ ReLU +speed +wall, 2 threads", text, re.MULTILINE)
    assert "speed: how many times as fast as SpikingJelly, ATan" in text
    (zoo,) = columns(text, "neuron, HTAF soft  ")
    assert zoo.keys() == layers.ZOO.keys() and all(len(row) == 3 for row in zoo.values())


@pytest.mark.usefixtures("_two_kernels")
def test_a_missing_snntorch_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "snntorch" else find(name)
    )
    text = bench.neuron([8], steps=[2], rounds=1, threads=[1], inductor=False)
    assert "snnTorch: not installed" in text
    assert "snnTorch, ATan" not in text


def test_snntorch_is_measured_where_it_is_installed() -> None:
    pytest.importorskip("snntorch")
    text = bench.neuron([8], steps=[2], rounds=1, threads=[1], inductor=False)
    assert len(columns(text, "layer  ")[0]["snnTorch, ATan"]) == 3
    assert "not installed" not in text


def wrong_output(spike_seq: torch.Tensor) -> torch.Tensor:
    return spike_seq + 1e-3


def wrong_gradient(spike_seq: torch.Tensor) -> torch.Tensor:
    return spike_seq.detach() + 1.01 * (spike_seq - spike_seq.detach())


def not_a_number(spike_seq: torch.Tensor) -> torch.Tensor:
    return spike_seq * torch.nan


def untouched(result: Any) -> Any:
    return result


def break_fused(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    run = resolve.Resolved.run

    def changed(*arguments: Any) -> Any:
        spikes, *rest = run(*arguments)
        return (change(spikes), *rest)

    monkeypatch.setattr(resolve.Resolved, "run", changed)


@pytest.mark.usefixtures("_no_clock")
@pytest.mark.parametrize(
    ("change", "what"),
    [(wrong_output, "output"), (wrong_gradient, "gradient"), (not_a_number, "output")],
)
def test_a_wrong_layer_has_no_speed(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], what: str
) -> None:
    break_fused(monkeypatch, change)
    red = f"^htaf_snn cpu, HTAF soft: {what} differs .* T = 2, 100 elements; no speed is reported$"
    with pytest.raises(RuntimeError, match=red):
        bench.neuron([100], steps=[2], rounds=1, inductor=False)


@pytest.mark.usefixtures("_no_clock")
def test_a_right_layer_goes_on_to_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    break_fused(monkeypatch, untouched)
    with pytest.raises(AssertionError, match="a speed was measured"):
        bench.neuron([100], steps=[2], rounds=1, inductor=False)


@pytest.mark.parametrize("function", layers.FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_check_passes_what_is_right(function: str, dtype: torch.dtype) -> None:
    claims = [layers.ours(function, "torch", dtype), layers.ours(function, "cpu", dtype)]
    if dtype == torch.float32:
        claims.append(layers.spikingjelly(function))
    neuron_module.check(claims, *layers.random_input(16, 4001))


@pytest.mark.parametrize("function", layers.FUNCTIONS)
def test_the_check_sees_a_claim_to_another_function(function: str) -> None:
    other = "ATan" if function != "ATan" else "HTAF hard"
    claim = layers.Layer("impostor", layers.ours(other, "torch").build, function=function)
    with pytest.raises(RuntimeError, match=r"^impostor: "):
        neuron_module.check([claim], *layers.random_input(4, 100))


def test_the_check_leaves_out_spikes_at_the_threshold_alone() -> None:
    x_seq = torch.tensor([[2.0, 1.0], [0.0, 0.0]])  # the first neuron charges to 1, the threshold

    class Late(LIFNode):
        def charge(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return super().charge(x, v) - 1e-7

    def late() -> LIFNode:
        return Late(surrogate_function=layers.FUNCTIONS["HTAF hard"](), step_mode="m")

    claim = layers.Layer("late", late, function="HTAF hard")
    assert not torch.equal(late()(x_seq), layers.ours("HTAF hard", "torch").build()(x_seq))
    neuron_module.check([claim], x_seq, torch.ones_like(x_seq))


@pytest.fixture
def _memory_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "keep_memory", lambda: None)  # or all tests' would stay


@pytest.mark.usefixtures("_memory_goes_back")
def test_train_has_a_row_a_network_and_finite_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "in_fresh_process", lambda function, *of: function(*of))
    text = bench.train(["vgg_small"], batch=2, steps=2, rounds=1, threads=[1], peak=True)
    (sizes,) = columns(text, "MiB  ")
    (rows,) = columns(text, "layer  ")
    assert set(sizes) == set(rows) and all(kept > 0 for kept, _ in sizes.values())
    assert set(rows) == {
        "htaf_snn, HTAF",
        "htaf_snn, HTAF, half hardened",
        "htaf_snn, HTAF hard",
        "htaf_snn, norm apart, HTAF",
        "htaf_snn, HTAF, activations recomputed",
        "htaf_snn, ATan",
        "SpikingJelly, ATan",
        "SpikingJelly, HTAF",
        "ReLU",
    }
    for row in rows.values():
        assert len(row) == 3
        assert all(math.isfinite(cell) and cell > 0 for cell in row)
    assert rows["ReLU"][1] == 1
    assert "frames [2, 2, 2, 34, 34]" in text
    others = set(rows) - {"htaf_snn, HTAF, activations recomputed"}  # a network of ours does alone
    assert set(train_module._networks("spikformer", 0.1)) == others


@pytest.mark.usefixtures("_no_clock", "_memory_goes_back")
@pytest.mark.parametrize("change", [wrong_output, wrong_gradient, not_a_number])
def test_a_wrong_network_has_no_speed(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]
) -> None:
    if change is wrong_output:  # batch norm takes a constant away
        change = lambda spike_seq: 0.98 * spike_seq  # noqa: E731
    break_fused(monkeypatch, change)
    with pytest.raises(RuntimeError, match=r"^htaf_snn, HTAF: loss .* no speed is reported$"):
        bench.train(batch=2, steps=2, rounds=1)


def test_memory_has_a_row_a_layer_and_what_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [layers.ours("HTAF soft", "cpu"), layers.spikingjelly("ATan")]
    monkeypatch.setattr(memory_module, "_layers", lambda: chosen)
    text = bench.memory([4], elements=4_000_000)
    (rows,) = columns(text, "layer  ")
    assert set(rows) == {"htaf_snn cpu, HTAF soft, T = 4", "SpikingJelly, ATan, T = 4"}
    assert re.search(r"^layer +kept for backward +beyond x +peak$", text, re.MULTILINE)
    assert rows["htaf_snn cpu, HTAF soft, T = 4"][:2] == [4, 0]  # x alone
    for kept, _, peak in rows.values():
        assert math.isfinite(peak)
        assert kept > 0
    # the output and the input's gradient, and the potential before and after
    assert 8 <= rows["htaf_snn cpu, HTAF soft, T = 4"][2] < rows["SpikingJelly, ATan, T = 4"][2]


def test_a_failing_child_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "_layers", lambda: [layers.Layer("none", torch.nn.ReLU)])
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"^none, 1, 1: the process that measures this failed"):
        bench.memory([1], elements=1)


@pytest.mark.usefixtures("_no_clock")
@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (bench.neuron, {"rounds": 0}, r"`rounds` \(=0\) must be at least 1"),
        (bench.neuron, {"steps": [4, 0]}, r"`steps` \(=0\) must be at least 1"),
        (bench.neuron, {"steps": []}, r"`steps` \(=\[\]\) must name"),
        (bench.neuron, {"elements": []}, r"`elements` \(=\[\]\) must name"),
        (bench.neuron, {"elements": [3]}, r"`elements` \(=3\) must be at least .* \(=16\)"),
        (bench.neuron, {"threads": [0]}, r"`threads` \(=0\) must be at least 1"),
        (bench.neuron, {"threads": []}, r"`threads` \(=\[\]\) must name"),
        (bench.neuron, {"dtypes": ["int8"]}, r"`dtypes` \(='int8'\) must be among"),
        (bench.train, {"rounds": -1}, r"`rounds` \(=-1\) must be at least 1"),
        (bench.train, {"networks": []}, r"`networks` \(=\[\]\) must name"),
        (bench.train, {"networks": ["vgg99"]}, "unknown networks 'vgg99'"),
        (bench.train, {"steps": 0}, r"`steps` \(=0\) must be at least 1"),
        (bench.train, {"batch": 0}, r"`batch` \(=0\) must be at least 1"),
        (bench.train, {"threads": [0]}, r"`threads` \(=0\) must be at least 1"),
        (bench.memory, {"steps": [0]}, r"`steps` \(=0\) must be at least 1"),
        (bench.memory, {"steps": []}, r"`steps` \(=\[\]\) must name"),
        (bench.memory, {"elements": 3}, r"`elements` \(=3\) must be at least .* \(=16\)"),
    ],
)
def test_arguments_out_of_range(
    function: Callable[..., str], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        function(**arguments)


def test_rounds_are_interleaved_and_medians_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, int]] = []
    monkeypatch.setattr(measure, "_repeats", lambda _: 1)

    def clock(task: Callable[[], object], repeats: int) -> measure.Timing:
        task()
        taken = [9.0, 1.0, 2.0][(len(order) - 1) // 4]  # by round
        return measure.Timing(taken, 10 * taken)

    monkeypatch.setattr(measure, "_clock", clock)
    tasks = {name: lambda name=name: order.append((name, torch.get_num_threads())) for name in "ab"}
    with tqdm(total=3) as progress:
        timings = measure.interleave(tasks, 3, [1, 2], progress)
        assert progress.n == 3
    assert order == [("a", 1), ("b", 1), ("a", 2), ("b", 2)] * 3
    assert set(timings.values()) == {measure.Timing(2.0, 20.0)}


def test_one_thread_counts_cpu_time_and_more_count_wall_time() -> None:
    timings = {
        ("ReLU", 1): measure.Timing(cpu=1.0, wall=3.0),
        ("ReLU", 2): measure.Timing(cpu=9.0, wall=2.0),
        ("SpikingJelly, ATan", 1): measure.Timing(cpu=10.0, wall=30.0),
        ("SpikingJelly, ATan", 2): measure.Timing(cpu=9.0, wall=8.0),
    }
    (rows,) = columns(measure.timing_table(timings, [1, 2], 0.5), "layer  ")
    assert rows["ReLU"] == [2, 1, 10, 4, 1, 4, 1.5]
    assert rows["SpikingJelly, ATan"] == [20, 10, 1, 16, 4, 1, 3.75]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (bench.neuron, ["--elements", "[0]"]),
        (bench.neuron, ["--rounds", "0", "--threads", "[1, 2]", "--dtypes", "[float16]"]),
        (bench.train, ["--rounds", "0", "--batch", "2", "--steps", "3", "--threads", "[1]"]),
        (bench.memory, ["--steps", "[0]", "--elements", "9"]),
    ],
)
def test_a_command_line_can_be_built_from_the_functions(
    function: Callable[..., str], arguments: list[str]
) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        auto_cli(function, args=arguments)


def test_data_prints_events_per_second_and_the_ratio_to_training() -> None:
    text = bench.data(batch=4, steps=2, rounds=1)
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    frames, loader = lines["events to frames, 64 recordings"], lines["loader"]
    assert float(frames[-2]) > 1e4  # events a second
    assert float(loader[-1]) > 1  # times as fast as training
    assert lines["training step, small VGG"][-1] == "1.00"


@pytest.mark.usefixtures("_no_clock")
def test_data_reports_no_speed_of_a_wrong_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = data_module.Frames.__init__

    def other(self: Any, *args: Any) -> None:
        frames(self, *args)
        self.arrays = self.arrays + 1

    monkeypatch.setattr(data_module.Frames, "__init__", other)
    with pytest.raises(RuntimeError, match=r"cached frames differ.*no speed is reported"):
        bench.data(batch=4, steps=2, rounds=1)


def test_data_times_events_alone() -> None:
    with pytest.raises(ValueError, match=r"`name` \(=digits\) is a set of static images"):
        bench.data(name="digits")


@pytest.mark.parametrize("one", [layers.flexsn(), layers.inductor_lif("HTAF soft")])
def test_others_run_htaf(one: layers.Layer) -> None:
    neuron_module.check([one], *layers.random_input(5, 300))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_an_error() -> None:
    with pytest.raises(htaf_snn.BackendUnavailableError, match="'cupy' can't run here"):
        neuron_module.neuron([1000], [4], rounds=1, device="cuda")


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    pytest.importorskip("cupy")
    printed = neuron_module.neuron([100_000], [4], rounds=2, device="cuda", inductor=False)
    for name in ("htaf_snn cupy, HTAF soft", "SpikingJelly FlexSN, HTAF soft", "ReLU"):
        assert name in printed
    assert "memory bandwidth" in printed
    printed = bench.train(["vgg_small"], batch=2, steps=2, rounds=1, peak=True, device="cuda")
    assert "SpikingJelly, HTAF" in printed and "peak" in printed


def test_overhead_counts_time_and_frames() -> None:
    text = bench.overhead(rounds=1)
    (rows,) = columns(text, "layer  ")
    assert rows["ReLU"][1] == 1
    for name, (time, ratio, frames) in rows.items():
        assert time > 0 and ratio > 0 and frames > 10, name
    assert rows["LIF"][2] <= 45
    assert rows["batch norm and LIF, fused"][2] < rows["batch norm and LIF, apart"][2]


def test_a_steady_call_passes_four_files() -> None:
    node = LIFNode(surrogate_function=HTAFSpike(mode="soft"), step_mode="m")
    x, files = torch.randn(4, 2, 3, requires_grad=True), set()
    folder = str(Path(htaf_snn.__file__).parent)

    def seen(frame: Any, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(folder):
            files.add(Path(frame.f_code.co_filename).name)

    for _ in range(2):
        files.clear()
        node.reset()
        sys.setprofile(seen)
        node(x).backward(torch.ones_like(x))
        sys.setprofile(None)
    assert files == {"base.py", "resolve.py", "layer.py", "cpu.py"}
