"""The text of every fused class's step, by its hash, against the one recorded.

`python -m tests.neurons.test_emitted` records it anew, where a change of the text is meant. What
the drivers bring is left out: the headers, and the struct of a call.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import htaf_snn
from htaf_snn import HTAFSpike
from htaf_snn.neurons.kernels.buffers import cpu_source, cuda_source, read_header
from htaf_snn.neurons.step.graph import decode
from htaf_snn.neurons.step.simplify import with_norm
from htaf_snn.neurons.traced import step_of
from tests.neurons.test_zoo import FUNCTIONS, FUSED

RECORDED = Path(__file__).with_name("emitted.json")  # of commit 8af971b


def nodes() -> Iterator[tuple[str, Any]]:
    for name, make in FUSED.items():
        for function, of in FUNCTIONS.items():
            torch.manual_seed(0)
            yield f"{name} {function}", htaf_snn.convert(make(of()))
    for learn in (("tau",), ("tau", "v_threshold")):
        for channels in (None, 3):
            function = HTAFSpike(learnable=True, num_channels=channels)
            options: Any = {"learn": learn, "num_channels": channels}
            node = htaf_snn.LIFNode(surrogate_function=function, **options)
            yield f"learned {learn} {channels}", node
    hardened = HTAFSpike()
    hardened.hardness = 0.5
    yield "hardened", htaf_snn.LIFNode(surrogate_function=hardened)


def printed(source: str) -> str:
    """What the program printed of a text: between the first headers and the struct."""
    body = source.replace(read_header("hardware.h") + "\n", "")
    body = body.split("exp_between(V(-2) * u))) - V(1);\n}\n")[1]
    return body.partition("\nnamespace htaf_snn {\nconst int UNIFORM")[0] + "\n"


def emitted() -> dict[str, str]:
    found = {}
    for name, node in nodes():
        text = step_of(node).traced.program
        assert text is not None
        program = decode(text)
        for kind, source in (
            ("cpu", cpu_source(program, torch.float32)),
            ("cuda", cuda_source(program, torch.float32, 4)),
            ("cpu, normed", cpu_source(with_norm(program), torch.float64, normed=True)),
        ):
            key = hashlib.sha256(printed(source).encode()).hexdigest()[:16]
            found[f"{name}, {kind}"] = key
    return found


def test_the_text_is_the_one_recorded() -> None:
    assert emitted() == json.loads(RECORDED.read_text())


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(emitted(), indent=0) + "\n")
