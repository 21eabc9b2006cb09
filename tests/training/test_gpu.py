"""CUDA graphs of the training step, with graphs that are replayed by the CPU."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from htaf_snn.training import ModelConfig, SpikingClassifier
from htaf_snn.training.gpu import CapturedNetwork

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
]
SAMPLES, BATCH = 22, 8  # the last batch of an epoch is smaller


class Graphs:
    """Stands for `torch.cuda.make_graphed_callables`: warms up, then computes from one input."""

    def __init__(self) -> None:
        self.shapes: list[torch.Size] = []
        self.replays = 0

    def __call__(self, whole: Any, samples: tuple[Tensor]) -> Any:
        (static,) = samples
        self.shapes.append(static.shape)
        for _ in range(3):
            whole(static)

        def replay(x_seq: Tensor) -> Tensor:
            self.replays += 1
            static.copy_(x_seq)
            found: Tensor = whole(static)
            return found

        return replay


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    made = Graphs()
    monkeypatch.setattr("torch.cuda.make_graphed_callables", made)
    monkeypatch.setattr(CapturedNetwork, "_runs_on_gpu", staticmethod(lambda _: True))
    return made


def trained(accumulate: int = 1, accelerator: str = "cpu", **options: Any) -> SpikingClassifier:
    torch.manual_seed(0)
    module = SpikingClassifier((1, 8, 8), 3, ModelConfig(widths=(4, 4), dropout=0.2, **options))
    torch.manual_seed(1)
    samples = [(torch.rand(2, 1, 8, 8), torch.tensor(k % 3)) for k in range(SAMPLES)]

    def frames_first(batch: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        frames, labels = zip(*batch, strict=True)
        return torch.stack(frames, 1), torch.stack(labels)

    trainer = L.Trainer(
        max_epochs=10, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accumulate_grad_batches=accumulate, accelerator=accelerator,
    )  # fmt: skip
    loader: Any = DataLoader(samples, BATCH, collate_fn=frames_first)  # type: ignore[arg-type]
    trainer.fit(module, loader)
    return module


def assert_same(plain: SpikingClassifier, captured: SpikingClassifier) -> None:
    for (name, a), (_, b) in zip(
        plain.state_dict().items(), captured.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


@pytest.mark.usefixtures("graphs")
def test_running_statistics_are_those_without() -> None:
    assert_same(trained(freeze_norm=None), trained(freeze_norm=None, cuda_graph=True))


def test_the_weights_are_those_without(graphs: Graphs) -> None:
    assert_same(trained(), trained(cuda_graph=True))
    # Hardening, whole batches and the smaller last one; the exact step; norms frozen.
    assert [shape[1] for shape in graphs.shapes] == [8, 6, 8, 8]
    assert graphs.replays > 10


@pytest.mark.gpu
def test_the_weights_on_a_gpu_are_those_without() -> None:
    plain, captured = trained(accelerator="gpu"), trained(accelerator="gpu", cuda_graph=True)
    torch.testing.assert_close(plain.state_dict(), captured.state_dict())


def test_the_reason_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        trained(cuda_graph=True)
    said = [r.getMessage() for r in caplog.records if "CUDA graphs" in r.getMessage()]
    assert said == ["no CUDA graphs, the training goes on without: the network is on cpu"]


@pytest.mark.usefixtures("graphs")
def test_summed_gradients_are_not_captured(caplog: pytest.LogCaptureFixture) -> None:
    trained(accumulate=2, cuda_graph=True)
    assert "accumulate_grad_batches" in caplog.text


def test_a_network_that_cannot_be_captured_trains(
    graphs: Graphs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr("torch.cuda.make_graphed_callables", fail)
    trained(cuda_graph=True)
    assert "operation not permitted when stream is capturing" in caplog.text
    assert graphs.replays == 0


@pytest.mark.parametrize(
    "options", [{"compile": True}, {"checkpoint_activations": True}, {"tbptt_steps": 1}]
)
def test_what_excludes_it(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"`cuda_graph` with `"):
        ModelConfig(cuda_graph=True, **options)
