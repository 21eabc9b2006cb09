"""The training step: truncation, recomputation, precision, divergence."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from spikingjelly.activation_based import functional, neuron
from spikingjelly.activation_based.layer import Flatten, Linear
from torch import Tensor, nn
from torch.utils.data import DataLoader

from htaf_snn import HTAFSpike, LIFNode
from htaf_snn.training import ModelConfig, SpikingClassifier
from htaf_snn.training.gpu import MultiStepSyncBatchNorm
from htaf_snn.training.losses import DivergedError, first_not_finite, mean_cross_entropy
from htaf_snn.transfer import spike_functions

# Lightning's advice and the way it sees our shapes, which concern no test here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
]


def classifier(**options: Any) -> SpikingClassifier:
    torch.manual_seed(0)
    return SpikingClassifier((1, 8, 8), 3, ModelConfig(**{"widths": (4, 4), **options}))


def gradients(module: SpikingClassifier, x_seq: Tensor) -> dict[str, Tensor]:
    module.train()
    mean_cross_entropy(module.logits_seq(x_seq), torch.arange(x_seq.shape[1]) % 3).backward()
    return {n: p.grad.clone() for n, p in module.net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("T", [1, 4, 12])
def test_masnn_has_weights_for_the_datas_time_steps(T: int) -> None:
    config = ModelConfig(model="masnn", width=0.1)
    module = SpikingClassifier((1, 8, 8), 3, config, T=T)
    assert module.logits_seq(torch.rand(T, 2, 1, 8, 8)).shape == (T, 2, 3)
    with pytest.raises(ValueError, match=r"`tbptt_steps` \(=2\) must be left out with masnn"):
        SpikingClassifier((1, 8, 8), 3, ModelConfig(model="masnn", tbptt_steps=2), T=T)


@pytest.mark.parametrize("steps", [4, 9])
def test_truncation_beyond_the_sequence_changes_nothing(steps: int) -> None:
    x_seq = torch.rand(4, 6, 1, 8, 8)
    expected = gradients(classifier(), x_seq)
    for name, gradient in gradients(classifier(tbptt_steps=steps), x_seq).items():
        assert torch.equal(gradient, expected[name]), name


def test_truncation_cuts_the_gradient_and_keeps_the_state() -> None:
    x_seq = torch.rand(4, 2, 1, 8, 8, requires_grad=True)
    module = classifier(tbptt_steps=2).train()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()  # batch statistics would join the time steps
    logits_seq = module.logits_seq(x_seq)
    (grad,) = torch.autograd.grad(logits_seq[3].sum(), x_seq, retain_graph=True)
    assert not grad[:2].any() and grad[2].any()
    whole = classifier().train()
    for layer in whole.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    torch.testing.assert_close(logits_seq, whole.logits_seq(x_seq))


@pytest.mark.parametrize("name", ["vgg_small", "vgg5", "resnet20", "sew_resnet20", "ms_resnet20"])
def test_recomputed_activations_change_no_number_and_save_memory(name: str) -> None:
    options: dict[str, Any] = {"model": name, "width": 0.1, "widths": None}
    x_seq = torch.rand(3, 4, 1, 8, 8)
    kept, recomputed = classifier(**options), classifier(**options, checkpoint_activations=True)
    recomputed.load_state_dict(kept.state_dict())
    numbers = []
    results = []
    for module in (kept, recomputed):
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: (saved.append(t.numel()), t)[1],  # type: ignore[misc]
            lambda t: t,
        ):
            results.append(gradients(module, x_seq))
        numbers.append(sum(saved))
    assert numbers[1] < 0.7 * numbers[0]
    for key, gradient in results[0].items():
        assert torch.equal(gradient, results[1][key]), key
    for key, value in kept.state_dict().items():  # batch norm's statistics were counted once
        assert torch.equal(value, recomputed.state_dict()[key]), key


class Batches:
    """Three random batches; ``spoiled`` puts a NaN into the last one's input."""

    def __init__(self, spoiled: bool = False) -> None:
        self.spoiled = spoiled

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(1)
        for index in range(3):
            x_seq = torch.rand(2, 6, 1, 8, 8, generator=generator)
            if self.spoiled and index == 2:
                x_seq[0, 0] = torch.nan
            yield x_seq, torch.arange(6) % 3


def train(
    module: SpikingClassifier, loader: Any = None, max_epochs: int = 1, **options: Any
) -> L.Trainer:
    trainer = L.Trainer(
        max_epochs=max_epochs, logger=False, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=False, accelerator="cpu", **options,
    )  # fmt: skip
    trainer.fit(module, loader or Batches())
    return trainer


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
@pytest.mark.parametrize(
    "options", [{}, {"loss": "tet", "optimizer": "sgd", "label_smoothing": 0.1}, {"norm": "tdbn"}]
)
def test_every_precision_trains(options: dict[str, Any], precision: Any) -> None:
    module = classifier(**options)
    before = [p.detach().clone() for p in module.parameters()]
    train(module, precision=precision)
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in module.parameters())


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # a skipped first step
def test_float16_skips_the_steps_whose_gradients_overflow() -> None:
    torch.manual_seed(0)
    module = classifier(hardening=(0.0, 0.0), learning_rate=1e-2)
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**30))
    before = [p.detach().clone() for p in module.parameters()]
    trainer = train(module, plugins=[plugin], max_epochs=8)
    assert plugin.scaler is not None and 1 < plugin.scaler.get_scale() < 2.0**30
    assert trainer.global_step == 8 * len(list(Batches()))
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in module.parameters())
    states = [m.v for m in module.net.modules() if isinstance(m, neuron.BaseNode)]
    assert {v.dtype for v in states} == {torch.float32}


def test_a_loss_that_is_not_finite_names_step_and_layer() -> None:
    with pytest.raises(
        DivergedError, match=r"loss is nan at step 2 \(epoch 1\).*the input; no checkpoint"
    ):
        train(classifier(), Batches(spoiled=True))
    module = classifier()
    with torch.no_grad():
        module.net.features[4].weight[0, 0] = torch.inf  # type: ignore[index,union-attr]
    with pytest.raises(DivergedError, match=r"at step 0 .*features\.4 \((Conv|Batch)"):
        train(module)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_do() -> None:
    module = classifier()
    weight = module.net.read_out[1].weight  # type: ignore[index,union-attr]
    weight.register_hook(lambda grad: grad * torch.inf)
    before = {k: v.clone() for k, v in module.state_dict().items() if "features.0" in k}
    with pytest.raises(DivergedError, match=r"gradient of read_out\.1\.weight .* at step 0"):
        train(module)
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in before.items())


def test_first_not_finite_is_none_where_all_is_well() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert first_not_finite(net, lambda: net(torch.ones(1, 2))) is None
    assert first_not_finite(net, lambda: net(torch.full((1, 2), torch.inf))) == "0 (Linear)"
    assert not net[0]._forward_hooks


def test_first_not_finite_looks_at_neurons_and_not_within_them() -> None:
    """A hook on a spike function would keep the neuron from the backend that was named."""
    node = LIFNode(surrogate_function=HTAFSpike(mode="soft"), step_mode="m", backend="cpu")
    node.learn(("v_threshold",))
    nn.init.constant_(node.get_parameter("v_threshold"), torch.nan)
    net = nn.Sequential(nn.Linear(2, 2), node)
    assert first_not_finite(net, lambda: net(torch.ones(3, 1, 2))) == "1 (LIFNode)"


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    module = classifier(warmup_epochs=1 / 3 + 1e-6, learning_rate=0.1)
    rates: list[float] = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = L.Trainer(
        max_epochs=3, logger=False, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=False, accelerator="cpu", callbacks=[Watch()],
    )  # fmt: skip
    loader: Any = DataLoader(list(Batches()), batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module, loader)
    assert rates[0] == 0 and rates[1] == pytest.approx(0.1)
    assert rates[1:] == sorted(rates[1:], reverse=True) and rates[-1] < 0.02
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_sharpness_follows_its_schedule_and_is_kept() -> None:
    options: dict[str, Any] = {"sharpness": {"alpha0": (0.5, 2.0)}, "hardening": None}
    module = classifier(spike="htaf", sharpness_shape="linear", **options)
    train(module)
    steps = module._schedule.total_steps
    expected = 2.0 - 1.5 / steps  # at the beginning of the last step
    functions = spike_functions(module.net)
    assert [f.alpha0 for f in functions] == pytest.approx([expected] * len(functions))
    fresh = classifier(spike="htaf", sharpness={"alpha0": (0.5, 2.0)})
    fresh.on_load_checkpoint({})
    fresh.load_state_dict(module.state_dict())
    assert [f.alpha0 for f in spike_functions(fresh.net)] == [f.alpha0 for f in functions]


def test_surrogate_free_trains_every_layer_to_the_end() -> None:
    module = classifier(recipe="surrogate_free")
    found: list[list[float]] = []
    first = next(m for m in module.net.modules() if isinstance(m, nn.Conv2d)).weight

    class Seen(L.Callback):
        def on_before_optimizer_step(self, *_: Any) -> None:
            weights = [m.weight for m in module.net.modules() if isinstance(m, nn.Conv2d)]
            found.append([float(w.grad.abs().max()) for w in weights if w.grad is not None])

        def on_train_batch_start(self, *_: Any) -> None:
            self.before = first.detach().clone()

        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            moved = (first - self.before).abs().max()
            assert moved > 0.1 * trainer.optimizers[0].param_groups[0]["lr"]
            lengths = [float(p.grad.norm()) for p in module.parameters() if p.grad is not None]
            assert lengths == pytest.approx([1.0] * len(lengths), rel=1e-5)

    loader: Any = DataLoader(list(Batches()), batch_size=None)  # type: ignore[arg-type]
    train(module, loader, max_epochs=4, callbacks=[Seen()])
    function: Any = spike_functions(module.net)[0]
    assert function.true_gradient and function.hardness == 0.98 and function.mode == "auto"
    assert 0 < found[-1][0] < 1e-2 * found[0][0]  # small, and the weights still move


def test_norms_are_frozen_from_their_share_of_the_training_on() -> None:
    module = classifier(freeze_norm=0.5)
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    frozen: list[list[bool]] = []

    class Watch(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            frozen.append([not norm.training for norm in norms])

    smooth: list[bool] = []  # of the passes that the norms are calibrated by
    node = next(m for m in module.modules() if isinstance(m, LIFNode))

    def look(_module: object, _inputs: object, spikes: Tensor) -> None:
        if not torch.is_grad_enabled():
            smooth.append(bool((spikes * (1 - spikes) > 0.01).any()))

    hook = node.register_forward_hook(look)
    loader: Any = DataLoader(list(Batches()), batch_size=None)  # type: ignore[arg-type]
    train(module, loader, max_epochs=2, callbacks=[Watch()])
    hook.remove()
    assert len(smooth) >= len(loader) and all(smooth)  # with spikes as in training
    half = len(frozen) // 2
    assert norms and len(frozen) == 2 * len(loader)
    assert not any(map(any, frozen[:half])) and all(map(all, frozen[half:]))
    assert all(int(norm.state_dict()["num_batches_tracked"]) == half for norm in norms)
    train(module, loader, max_epochs=2, callbacks=[Watch()])  # a new run thaws them
    assert not any(map(any, frozen[2 * half : 3 * half])) and all(map(all, frozen[3 * half :]))


def test_weights_are_scaled_before_the_first_step(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    module = classifier(initialise=0.3, learning_rate=1e-9)
    linear = Linear(64, 20)
    before = linear.weight.detach().clone()
    loader: Any = DataLoader(list(Batches()), batch_size=None)  # type: ignore[arg-type]
    norms, module.net = (
        module.net,
        nn.Sequential(Flatten(), linear, LIFNode(), Linear(20, 3)),
    )
    functional.set_step_mode(module.net, "m")
    train(module, loader, max_epochs=2)
    factors = linear.weight.detach() / before
    assert factors.mean() > 1.5 and factors.std() < 1e-4
    assert "initialise" not in caplog.text
    module.net = norms
    train(module, loader, max_epochs=1)
    assert "`initialise` (=0.3) is off: each neuron has a norm before" in caplog.text


def test_a_half_hardened_network_is_restored_and_averages_keep_the_sharpness() -> None:
    options: dict[str, Any] = {"hardening": (0.0, 1.0), "sharpness": {"alpha0": (0.5, 2.0)}}
    module = classifier(spike="htaf", **options)
    untouched = module.state_dict()  # as averaged weights, whose sharpness no schedule changes
    train(module)
    checkpoint: dict[str, Any] = {"state_dict": dict(untouched)}
    module.on_save_checkpoint(checkpoint)
    fresh = classifier(spike="htaf", **options)
    fresh.on_load_checkpoint(checkpoint)
    fresh.load_state_dict(checkpoint["state_dict"])
    for old, new in zip(spike_functions(module.net), spike_functions(fresh.net), strict=True):
        assert 0 < new.hardness < 1 and new.hardness == old.hardness
        assert new.alpha0 == pytest.approx(old.alpha0) and new.alpha0 > 0.6


def test_compile_and_sharpness_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="every step would be compiled anew"):
        classifier(sharpness={"alpha0": (1.0, 2.0)}, compile=True)


def test_hand_over_is_restored_both_ways() -> None:
    module = classifier(hardening=(0.5, 0.5), spike="htaf")
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    train(module)
    modes = {f.mode for f in spike_functions(module.net)}
    assert modes == {"hard"}
    module.on_load_checkpoint(checkpoint)
    assert {f.mode for f in spike_functions(module.net)} == {"auto"}
    surrogate_only = classifier(spike="htaf:mode=hard")
    surrogate_only.on_load_checkpoint({})
    assert {f.mode for f in spike_functions(surrogate_only.net)} == {"hard"}


def test_synchronised_batch_norm_keeps_the_time_dimension() -> None:
    x_seq = torch.rand(3, 4, 1, 8, 8)
    for norm in ("bn", "tdbn"):
        module = classifier(norm=norm)
        train(module)
        module.eval()
        expected = module(x_seq)
        state = module.state_dict()
        MultiStepSyncBatchNorm().apply(module)
        assert any(isinstance(m, nn.SyncBatchNorm) for m in module.modules())
        torch.testing.assert_close(module(x_seq), expected)
        assert module.state_dict().keys() == state.keys()


def test_recomputed_activations_follow_replaced_and_copied_modules() -> None:
    module = classifier(checkpoint_activations=True).train()
    x_seq = torch.rand(2, 3, 1, 8, 8)
    expected = module.logits_seq(x_seq).detach()
    functional.reset_net(module)
    torch.testing.assert_close(copy.deepcopy(module).logits_seq(x_seq), expected)
    features: Any = module.net.features
    features[0] = copy.deepcopy(features[0])
    with torch.no_grad():
        features[0].weight.zero_()
    assert not torch.allclose(module.logits_seq(x_seq), expected)


def test_without_an_end_of_training_it_says_so() -> None:
    trainer = L.Trainer(
        max_epochs=-1, max_time="00:00:01:00", logger=False, enable_checkpointing=False,
        enable_model_summary=False, enable_progress_bar=False, accelerator="cpu",
    )  # fmt: skip
    with pytest.raises(ValueError, match="schedules of learning rate and sharpness need an end"):
        trainer.fit(classifier(), Batches())


def test_firing_rates_weigh_batches_by_their_size() -> None:
    module = classifier()
    trainer = train(module)
    generator = torch.Generator().manual_seed(0)
    parts = [(torch.rand(2, n, 1, 8, 8, generator=generator) * n, torch.zeros(n).long())
             for n in (7, 1)]  # fmt: skip
    rates = []
    for batches in (parts, [parts[0]], [parts[1]]):
        (found,) = trainer.test(module, DataLoader(batches, batch_size=None), verbose=False)  # type: ignore[arg-type]
        rates.append([v for k, v in found.items() if k.startswith("firing_rate")])
    both, first, second = map(torch.tensor, rates)
    torch.testing.assert_close(both, (7 * first + second) / 8)
    assert not torch.allclose(first, second)
