"""A network's smooth and exact forms: switching, a schedule between them, and binary steps."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, get_args

import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.layer import SpikeCountToBinary, TemporalBinSum
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor, nn

from ..arguments import in_range, one_of, typed
from ..surrogates import SpikeFunction, trains_smooth

Shape = Literal["linear", "cosine", "geometric"]
_HARDEST = 0.98  # hardness at the end of a hardening with the true gradient


def spike_functions(net: nn.Module) -> list[SurrogateFunctionBase]:
    """Every spike function of the network, ours and SpikingJelly's."""
    return [m for m in net.modules() if isinstance(m, SurrogateFunctionBase)]


def firing_hard(net: nn.Module) -> AbstractContextManager[None]:
    """Lets every spike function fire with the exact step within the block, whatever its mode."""
    return _firing(spike_functions(net), spiking=True)


def firing_as_trained(net: nn.Module) -> AbstractContextManager[None]:
    """Lets every spike function's forward pass be that of training within the block.

    Smooth for HTAF and the scaled sigmoid; the exact step for surrogates.
    """
    return _firing([f for f in spike_functions(net) if trains_smooth(f)], spiking=False)


@contextmanager
def _firing(functions: list[SurrogateFunctionBase], spiking: bool) -> Iterator[None]:
    before = [f.mode if isinstance(f, SpikeFunction) else f.spiking for f in functions]
    for function in functions:
        function.set_spiking_mode(spiking)
    try:
        yield
    finally:
        for function, state in zip(functions, before, strict=True):
            if isinstance(function, SpikeFunction):
                function.mode = state
            else:
                function.set_spiking_mode(state)


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluates the network within the block.

    After it each module trains or not as before, and the neurons are at rest.
    """
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        functional.reset_net(net)


@contextmanager
def hooked(modules: Iterable[nn.Module], hook: Callable[..., object]) -> Iterator[None]:
    """Calls ``hook(module, inputs, output)`` after each forward pass of a module in the block."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def harden(net: nn.Module) -> None:
    """Lets every spike function fire with the exact step from now on, in training too.

    The functions keep their derivative, as a surrogate gradient: those that were smooth are in
    mode "hard".
    """
    for function in spike_functions(net):
        function.set_spiking_mode(True)


class SharpnessSchedule:
    """Changes the parameters of a network's spike functions step by step, and hands over.

    Stepped as torch's learning-rate schedules are, once after each optimizer step:

        schedule = SharpnessSchedule(net, total_steps=1000, hardening=(0.0, 0.8))
        for batch in batches:
            ...
            optimizer.step()
            schedule.step()

    Hardening replaces the smooth outputs by those of the exact step, linearly in time
    (`SpikeFunction.hardness`); where it has ended, the functions are in mode "hard", so that the
    last steps train the very network that fires. A parameter goes from its start to its end over
    the steps before that.

    Args:
        net: network whose spike functions are changed; only those that have the parameters named
            are, and only those of this library that train smooth now are hardened. For a second
            schedule after a first that has hardened them, set their ``mode`` and ``hardness``.
        total_steps: optimizer steps of the training, >= 1.
        shape: "linear", "cosine" (half a period, flat at both ends) or "geometric" (equal
            factors).
        hardening: shares of the training at which hardening begins and ends, in [0, 1] and not
            falling. Equal ones hand over at once, (0, 0) from the start. None for none.
        true_gradient: whether the derivative is that of the output, ``1 - hardness`` times the
            smooth function's, instead of the smooth function's alone. Hardness then ends at 0.98,
            and the mode stays. The gradient of a layer's weights shrinks by that factor for each
            layer of neurons behind it: call ``unit_gradients(net.parameters())`` between the
            backward pass, in float32 or float64, and the optimizer's step.
        **parameters: (start, end) of each parameter, > 0, for example ``alpha0=(0.5, 2.0)``.

    Raises:
        ValueError: a number out of its range, an unknown shape, or a parameter that no spike
            function of the network has or that is learned.
    """

    def __init__(
        self,
        net: nn.Module,
        total_steps: int,
        shape: Shape = "geometric",
        hardening: tuple[float, float] | None = None,
        true_gradient: bool = False,
        **parameters: tuple[float, float],
    ) -> None:
        in_range("total_steps", total_steps, 1)
        one_of("shape", shape, get_args(Shape))
        if hardening is not None and not (
            len(hardening) == 2 and 0 <= hardening[0] <= hardening[1] <= 1
        ):
            raise ValueError(
                f"`hardening` (={hardening}) must be its begin and its end, in [0, 1], not falling"
            )
        functions = [f for f in spike_functions(net) if isinstance(f, SpikeFunction)]
        for name, ends in parameters.items():
            if len(ends) != 2 or not all(0 < end < math.inf for end in ends):
                raise ValueError(f"`{name}` (={ends}) must be its start and its end, both positive")
            holders = [f for f in functions if name in f.parameter_names]
            if not holders:
                raise ValueError(f"no spike function of the network has a parameter {name!r}")
            if any(isinstance(getattr(f, name), Tensor) for f in holders):
                raise ValueError(f"`{name}` is learned; leave it out of the schedule")
        self.total_steps, self.shape, self.hardening = total_steps, shape, hardening
        self._most = _HARDEST if true_gradient else 1.0
        self._parameters = parameters
        self._functions = functions
        self._smooth = [(f, f.mode) for f in functions if trains_smooth(f)]
        for function, _ in self._smooth:
            function.true_gradient = true_gradient
        self.set(0)

    def step(self) -> None:
        """Goes on by one optimizer step."""
        self.set(self.last_step + 1)

    def set(self, step: int) -> None:
        """Puts the network into its state at a step."""
        self.last_step = step
        share = step / self.total_steps
        begin, end = self.hardening or (math.inf, 1.0)
        progress = min(1.0, share / end) if end else 1.0
        values = {n: self._between(*ends, progress) for n, ends in self._parameters.items()}
        for function in self._functions:
            own = {n: value for n, value in values.items() if n in function.parameter_names}
            function.set_parameters(**own)
        done = share >= end >= begin
        for function, mode in self._smooth:
            function.mode = "hard" if done and self._most == 1 else mode
            if begin < end:
                reached = min(1.0, max(0.0, (share - begin) / (end - begin)))
                function.hardness = self._most * reached
            elif self._most < 1:
                function.hardness = self._most * done

    def has_handed_over(self, step: int) -> bool:
        """Returns True if the hardening has ended at a step, or there is none."""
        end = 0.0 if self.hardening is None else self.hardening[1]
        return not self._smooth or step >= end * self.total_steps

    def _between(self, start: float, end: float, progress: float) -> float:
        if self.shape == "geometric":
            return float(start * (end / start) ** progress)
        if self.shape == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return start + (end - start) * progress

    def state_dict(self) -> dict[str, Any]:
        return {"last_step": self.last_step, "total_steps": self.total_steps}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        for name, least in (("total_steps", 1), ("last_step", 0)):
            in_range(name, typed(name, state_dict[name], int), least)
        self.total_steps = state_dict["total_steps"]
        self.set(state_dict["last_step"])


def unit_gradients(parameters: Iterable[Tensor]) -> None:
    """Scales each parameter's gradient to the length 1, in place; one of length 0 stays.

    For true gradients of hardened networks, which get short by many powers of ten: an optimizer
    that remembers the gradients' sizes would go on with ever smaller steps.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            length = parameter.grad.double().norm()
            if length > 0:
                parameter.grad /= length


class BinarySteps(nn.Module):
    """A layer with weights that takes integer spikes as binary ones, one step after the other.

    The n spikes of an input are 1 in the first n of ``levels`` steps and 0 in the others; the
    outputs of ``layer``, whose bias is taken away, are summed, and the bias is added once.
    """

    def __init__(self, layer: Any, levels: int) -> None:
        super().__init__()
        self.bias, layer.bias = layer.bias, None
        self.layer, self.levels = layer, levels
        self.binary = SpikeCountToBinary(levels, always_convert=True)
        self.sum = TemporalBinSum(levels, always_convert=True)

    def forward(self, x: Tensor) -> Tensor:
        if not _counts(x, self.levels):
            raise ValueError(
                f"the input is not of integers from 0 to {self.levels}: binary steps are for "
                "networks that fire exactly; call net.eval()"
            )
        made: Tensor = self.sum(self.layer(self.binary(x)))
        if self.bias is not None:
            made += self.bias.view(-1, *[1] * len(getattr(self.layer, "kernel_size", ())))
        return made


def binary_steps(net: nn.Module, x: Tensor) -> nn.Module:
    """Has the layers that read integer spikes take them as binary ones, in place.

    Each fully connected layer and convolution behind neurons with ``levels`` becomes a
    `BinarySteps`, so that weights are added and never multiplied. Outputs stay the same, but for
    the rounding of sums. What reads an average of spikes stays as it is.

    Args:
        net: a network with integer spikes, trained. It is returned.
        x: an input, by which it is seen which layers read them.

    Raises:
        ValueError: no neuron has ``levels`` above 1, or no layer reads its spikes alone.
    """
    integer = [m for m in net.modules() if _levels(m) > 1]
    if not integer:
        raise ValueError(f"{type(net).__name__} has no neuron with levels: its spikes are binary")
    levels = max(map(_levels, integer))
    reads: dict[nn.Module, bool] = {}  # whether it is integers alone
    fired: list[object] = []

    def look(module: nn.Module, given: Any, _output: Any) -> None:
        reads[module] = reads.get(module, True) and bool(fired) and _counts(given[0], levels)

    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    with (
        hooked(layers, look),
        hooked(integer, lambda *_: fired.append(1)),
        evaluating(net),
        firing_hard(net),
        torch.no_grad(),
    ):
        functional.reset_net(net)
        net(x)
    if not any(reads.values()):
        raise ValueError("no layer with weights reads integer spikes alone; is `x` an input of it?")
    for name, module in list(net.named_modules(remove_duplicate=False)):
        if reads.get(module):
            net.set_submodule(name, BinarySteps(module, levels))
    return net


def _levels(module: nn.Module) -> int:
    """The largest output of neurons."""
    return getattr(getattr(module, "surrogate_function", None), "levels", 1)


def _counts(x: Tensor, levels: int) -> bool:
    return bool(((x == x.round()) & (x >= 0) & (x <= levels)).all())
