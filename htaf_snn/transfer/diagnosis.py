"""Diagnosis of the transfer gap by layer, and of how close outputs are to 0 and 1."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from spikingjelly.activation_based import functional, neuron
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor, nn

from ..arguments import in_range
from ..surrogates import HTAF, trains_smooth
from .calibration import batch_statistics, trains_by_batch
from .firing import evaluating, firing_as_trained, firing_hard, hooked

Labelled = Iterable[tuple[Tensor, Tensor]]  # inputs and labels [N]


@dataclass(frozen=True)
class LayerGap:
    """A layer's part in the transfer gap.

    Args:
        name: of the neuron layer or activation.
        soft_rate: mean output in the network that fires as it was trained, in [0, levels].
        hard_rate: mean output in the network that fires exactly, in [0, levels].
        difference: mean absolute difference of the two networks' outputs, in [0, levels].
        uncertain: share of the smooth outputs within the band around 1/2, or, of integer spikes,
            halfway between two integers, in [0, 1].
        hard_accuracy: of the network whose layers up to this one fire exactly, in [0, 1].
        gap_pp: accuracy lost by this layer's step, after those before it, in percentage points.
    """

    name: str
    soft_rate: float
    hard_rate: float
    difference: float
    uncertain: float
    hard_accuracy: float
    gap_pp: float


@dataclass(frozen=True)
class TransferGap:
    """The gap between the network that was trained and the one that fires.

    Args:
        trained_accuracy: of the network as it is trained: smooth if it is so, each batch norm that
            is not frozen with the statistics of each batch.
        soft_accuracy: of the same with running statistics.
        hard_accuracy: of the network that fires exactly, with running statistics.
        layers: parts of the transfer gap, in forward order; they sum to it.
    """

    trained_accuracy: float
    soft_accuracy: float
    hard_accuracy: float
    layers: list[LayerGap]

    @property
    def statistics_gap_pp(self) -> float:
        """Accuracy that running statistics cost, trained minus soft, in percentage points."""
        return 100 * (self.trained_accuracy - self.soft_accuracy)

    @property
    def gap_pp(self) -> float:
        """Accuracy that the exact step costs, soft minus hard, in percentage points."""
        return 100 * (self.soft_accuracy - self.hard_accuracy)

    @property
    def born_in(self) -> str | None:
        """The layer whose step costs most accuracy; None where no step costs any."""
        worst = max(self.layers, key=lambda layer: layer.gap_pp, default=None)
        return worst.name if worst is not None and worst.gap_pp > 0 else None

    def __str__(self) -> str:
        width = max([len("layer"), *(len(layer.name) for layer in self.layers)])
        heads = "soft rate  hard rate  difference  uncertain  hard accuracy  gap (pp)"
        lines = [f"{'layer':{width}}  {heads}", f"{'none':{width}} {self.soft_accuracy:57.4f}"]
        lines += [
            f"{layer.name:{width}}  {layer.soft_rate:9.4f}  {layer.hard_rate:9.4f}"
            f"  {layer.difference:10.4f}  {layer.uncertain:9.4f}  {layer.hard_accuracy:13.4f}"
            f"  {layer.gap_pp:+8.2f}"
            for layer in self.layers
        ]
        lines += [
            f"statistics gap {self.statistics_gap_pp:+.2f} pp: {self.trained_accuracy:.4f} as "
            f"trained, {self.soft_accuracy:.4f} with running statistics",
            f"transfer gap {self.gap_pp:+.2f} pp, most of it born in {self.born_in or 'no layer'}",
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Binarity:
    """Measures of how close smooth outputs are to 0 and 1.

    Args:
        share: of the outputs within the margin of 0 or 1, in [0, 1].
        entropy: mean entropy of the outputs as probabilities, in bits, in [0, 1].
    """

    share: float
    entropy: float


def transfer_gap(net: nn.Module, batches: Labelled, band: float = 0.1) -> TransferGap:
    """Measures where a classifier loses accuracy between its trained and its firing form.

    Three networks are measured: as trained, with the statistics of each batch; as used but smooth;
    as used. What fires exactly already, as it was trained, has no transfer gap and is no layer
    here.

    Its layers are switched to the exact step one after the other, in the order in which the
    network registers them, which must be that of its forward pass. That takes a pass over the
    data for each layer. The network is evaluated as in ``eval()``.

    Args:
        net: from inputs to logits [N, classes], or [T, N, classes], which are averaged over time.
        batches: inputs and labels; held-out data, as large and as mixed as in training, or the
            statistics of a batch say nothing. Of batches of one sample there are none.
        band: an output is uncertain if it lies in (band, 1 - band); in (0, 1/2).

    Raises:
        ValueError: ``band`` out of range, or no batch.
    """
    in_range("band", band, 0, 0.5, open_=True, below=True)
    layers = {name: layer for name, layer in _layers(net).items() if trains_smooth(layer[1])}
    functions = [function for _, function in layers.values()]
    if isinstance(batches, Iterator):
        raise ValueError("`batches` is an iterator, which ends; give a list or a data loader")
    samples = sum(len(labels) for _, labels in batches)
    if not samples:
        raise ValueError("`batches` is empty")
    totals = torch.zeros(len(layers), 4, dtype=torch.float64)
    with evaluating(net), torch.no_grad():
        for x, labels in batches:
            with firing_as_trained(net):
                soft = _outputs(net, layers, x)
            with firing_hard(net):
                hard = _outputs(net, layers, x)
            for row, s, h in zip(totals, soft, hard, strict=True):
                between = s.remainder(1)  # also of integer spikes
                uncertain = ((between > band) & (between < 1 - band)).double().mean()
                means = [s.mean(), h.mean(), (s - h).abs().mean(), uncertain]
                row += len(labels) / samples * torch.stack(means)
        accuracies = [
            _accuracy(net, batches, functions[:count]) for count in range(len(layers) + 1)
        ]
        trained = accuracies[0]
        if trains_by_batch(net):
            mixed = [batch for batch in batches if len(batch[1]) > 1]
            with batch_statistics(net):
                trained = _accuracy(net, mixed, []) if mixed else trained
    steps = zip(layers, totals.tolist(), accuracies[:-1], accuracies[1:], strict=True)
    gaps = [
        LayerGap(name, soft, hard, difference, uncertain, after, 100 * (before - after))
        for name, (soft, hard, difference, uncertain), before, after in steps
    ]
    return TransferGap(trained, accuracies[0], accuracies[-1], gaps)


def accuracy(net: Callable[[Tensor], Tensor], batches: Labelled) -> float:
    """Share of inputs [N, *] whose greatest logit is that of their label; the net as it is now."""
    right = total = 0
    with torch.no_grad():
        for x, labels in batches:
            right += int((net(x).argmax(1) == labels).sum())
            total += len(labels)
    return right / total


def binarity(net: nn.Module, inputs: Iterable[Tensor], margin: float = 0.05) -> Binarity:
    """Measures the smooth outputs of all spiking layers or activations; weights stay.

    Args:
        net: any torch network with spike functions; the outputs of a signed `HTAF` count as
            ``(output + 1) / 2``.
        inputs: batches.
        margin: half-width of "close to 0 or 1", in (0, 1/2).

    Raises:
        ValueError: ``margin`` out of range, no input, or no spike function.
    """
    in_range("margin", margin, 0, 0.5, open_=True, below=True)
    layers = _layers(net)
    if not layers:
        raise ValueError(f"{type(net).__name__} has no spike function")
    close = entropy = count = 0.0
    with evaluating(net), torch.no_grad(), firing_as_trained(net):
        for x in inputs:
            for output in _outputs(net, layers, x):
                p = output.remainder(1)  # also of integer spikes
                close += float(((p <= margin) | (p >= 1 - margin)).sum())
                entropy -= float((torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).sum())
                count += p.numel()
    if not count:
        raise ValueError("`inputs` is empty")
    return Binarity(close / count, entropy / count / torch.tensor(2.0).log().item())


# Modules whose outputs are those of spike functions, and these, by the modules' names.
_Layers = dict[str, tuple[nn.Module, SurrogateFunctionBase]]


def _layers(net: nn.Module) -> _Layers:
    found: _Layers = {}
    inner = set()  # functions within neurons
    for name, module in net.named_modules():
        if isinstance(module, neuron.BaseNode):
            inner.add(module.surrogate_function)
            found[name] = module, module.surrogate_function
        elif isinstance(module, SurrogateFunctionBase) and module not in inner:
            found[name] = module, module
    return found


def _outputs(net: nn.Module, layers: _Layers, x: Tensor) -> list[Tensor]:
    """Each layer's outputs in a forward pass, in [0, levels] as float64."""
    collected: dict[nn.Module, list[Tensor]] = {module: [] for module, _ in layers.values()}

    def keep(module: nn.Module, _inputs: object, output: Tensor) -> None:
        signed = isinstance(module, HTAF) and module.signed
        values = (output + 1) / 2 if signed else output
        collected[module].append(values.detach().flatten().double())

    with hooked(collected, keep):
        _logits(net, x)
    for name, (module, _) in layers.items():
        if not collected[module]:
            raise ValueError(f"{name} took no part in the forward pass; leave it out of the net")
    return [torch.cat(outputs) for outputs in collected.values()]


def _logits(net: nn.Module, x: Tensor) -> Tensor:
    functional.reset_net(net)
    logits: Tensor = net(x)
    return logits.mean(0) if logits.ndim == 3 else logits


def _accuracy(net: nn.Module, batches: Labelled, hard: Sequence[SurrogateFunctionBase]) -> float:
    with firing_as_trained(net):
        for function in hard:  # `firing_as_trained` restores them too
            function.set_spiking_mode(True)
        return accuracy(partial(_logits, net), batches)
