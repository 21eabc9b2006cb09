"""Switching a whole network between its smooth and its exact form."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

from spikingjelly.activation_based import functional
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import nn

from ..surrogates import SpikeFunction, trains_smooth


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
