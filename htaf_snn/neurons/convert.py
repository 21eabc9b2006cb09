"""SpikingJelly's neurons to ours and back, in place, inside any network."""

import logging
from typing import Any

from torch import nn

from .base import BackendNode, check_subtracts
from .batch_norm import average_norms
from .classes import ORIGINAL_OF
from .host import backend_class, is_neuron, why_not
from .kernels import Backend, check_backend
from .norm_fusion import fuse_norms

_logger = logging.getLogger(__name__)


def convert(net: nn.Module, backend: Backend = "auto", fuse_norm: bool = False) -> nn.Module:
    """Makes the neurons in ``net`` run on our backends, in place.

    That is every elementwise neuron class of SpikingJelly's and every subclass of one. A neuron
    stays the object that it was, with its equation, parameters, carried state, spike function and
    hooks: it only changes its class. Neurons that can't be fused are left as they are, and named
    with the reason at INFO. Neurons that are ours already take the backend. Batch norms become an
    `AveragedNorm`, whose running statistics are right after few steps too.

    Args:
        net: a network, or a neuron.
        backend: "auto", "torch", "cpu" or "cupy".
        fuse_norm: has each batch norm whose output goes to one of these neurons, and nowhere else,
            be computed within its kernel: less time, and nothing between the two is kept for the
            backward pass. Such a norm changes its class too, and keeps all else. It is computed
            alone again while a hook watches it, under torch.compile and wherever else its output
            is wanted. Norms that can't be fused are named with the reason at INFO.

    Returns:
        ``net``.

    Raises:
        ValueError: an unknown backend, no neuron to convert, one that SpikingJelly's precision
            configuration governs, or one with integer spikes and a reset that does not subtract.
            Nothing has been changed then.
        BackendUnavailableError: a backend that cannot run here. Nothing has been changed then.
    """
    check_backend(backend)
    chosen: list[tuple[str, Any]] = []
    left: dict[str, str] = {}
    for name, module in net.named_modules():
        if not is_neuron(module):
            continue
        reason = None if isinstance(module, BackendNode) else why_not(module)
        if reason is None:
            chosen.append((name, module))
        else:
            left[f"{type(module).__module__}.{type(module).__qualname__}"] = reason
    others = "; ".join(f"{path}: {reason}" for path, reason in sorted(left.items()))
    if not chosen:
        raise ValueError(
            f"{type(net).__name__} has no neuron that can be fused; its neurons are: "
            f"{others or 'none'}"
        )
    for name, module in chosen:
        if not isinstance(module, BackendNode):
            function = getattr(module, "surrogate_function", None)
            check_subtracts(getattr(module, "v_reset", None), function)
        if getattr(module, "_neuron_precision", None) is not None:
            raise ValueError(
                f"{name or 'the network'} runs in SpikingJelly's neuron precision "
                f"{module._neuron_precision}, which our neurons don't have: they keep their state "
                "in float32; prepare the model with PrecisionConfig(neuron_storage=None) first"
            )
    if others:
        _logger.info("convert leaves these neurons as they are: %s", others)
    for _, module in chosen:
        module.__class__ = backend_class(type(module))
        module.backend = backend
    average_norms(net)
    if fuse_norm and (stay := fuse_norms(net)):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in stay.items())
        _logger.info("convert leaves these batch norms as they are: %s", reasons)
    return net


def revert(net: nn.Module) -> nn.Module:
    """Makes our neurons in ``net`` SpikingJelly's own again, in place: the inverse of `convert`.

    So are the batch norms that are computed within them. For tools that match SpikingJelly's exact
    classes, such as its NIR export. Neurons of a class of one's own, with `Neuron` or a class of
    ours for a base, are left as they are.

    Args:
        net: a network, or a neuron.

    Returns:
        ``net``.

    Raises:
        ValueError: there is no neuron to revert.
    """
    ours = [module for module in net.modules() if type(module) in ORIGINAL_OF]
    if not ours:
        raise ValueError(f"{type(net).__name__} has no neuron of htaf_snn's to revert")
    for module in ours:
        for name in ("_backend", "_resolved", "_key", "proof", "proofs", "gpu"):
            module.__dict__.pop(name, None)
        module.__class__ = ORIGINAL_OF[type(module)]
    return net
