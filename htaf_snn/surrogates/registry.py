"""Spike functions by name, for command lines and configuration files."""

import ast
import functools
import inspect
import re
from collections.abc import Callable

from spikingjelly.activation_based import surrogate

from ..arguments import by_name_or_path
from .baselines import IntegerSpike, ScaledSigmoid, StraightThrough, smooth_form
from .htaf import HTAFSpike
from .spike_function import SpikeFunction

_OURS: dict[str, Callable[..., surrogate.SurrogateFunctionBase]] = {
    "htaf": HTAFSpike,
    "scaled_sigmoid": ScaledSigmoid,
    "straight_through": StraightThrough,
    "integer": IntegerSpike,
}
_NOT_SPIKE_FUNCTIONS = (
    surrogate.MultiLevelSpikeCount,  # counts spikes instead of firing at a threshold
    surrogate.PoissonPass,  # samples; its input is a probability
)


def spike_function_names() -> list[str]:
    """The names that `spike_function` knows: ours, then SpikingJelly's built-ins."""
    return [*_OURS, *_built_ins()]


def spike_function(spec: str) -> surrogate.SurrogateFunctionBase:
    """Builds the spike function that ``spec`` names.

    Args:
        spec: ``name`` or ``name:parameter=value:parameter=value``, for example ``"htaf"``,
            ``"htaf:alpha0=0.67:mode=hard"`` or ``"atan:alpha=3"``. A name with a dot is the
            import path of a class of one's own, ``"my_module.MySpike"``. A built-in with a
            ``mode``, ``"atan:mode=auto"``, is its `smooth_form`.

    Raises:
        ValueError: an unknown name (the error lists the known ones), an unknown parameter, or a
            value that the function refuses.
    """
    name, *assignments = spec.split(":")
    kind = "subclass of SpikeFunction or SurrogateFunctionBase"
    constructor = by_name_or_path(
        "spike function", name, _OURS | _built_ins(), is_spike_function, kind
    )
    if name in _built_ins() and any(text.startswith("mode=") for text in assignments):
        constructor = smooth_form(_built_ins()[name])  # type: ignore[arg-type]  # untyped host
    known = list(inspect.signature(constructor).parameters)
    arguments = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or key not in known:
            raise ValueError(
                f"{assignment!r} in {spec!r} must read parameter=value, "
                f"with a parameter of {name}: {', '.join(known)}"
            )
        arguments[key] = _literal(text)
    try:
        return constructor(**arguments)
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"{spec!r}: {error or 'a value is out of range'}") from error


def trains_smooth(function: surrogate.SurrogateFunctionBase) -> bool:
    """Returns True if the function is smooth in the forward pass of training.

    If so, the network that was trained is not the one that fires, and a transfer gap can exist.
    """
    if isinstance(function, SpikeFunction):
        return function.mode != "hard"
    return not getattr(function, "spiking", True)


def is_built_in(spec: str) -> bool:
    """Returns True if ``spec`` names a surrogate of SpikingJelly's own."""
    return spec.partition(":")[0] in _built_ins()


@functools.cache
def _built_ins() -> dict[str, type[surrogate.SurrogateFunctionBase]]:
    found = {
        _snake_case(name): value
        for name, value in vars(surrogate).items()
        if inspect.isclass(value)
        and issubclass(value, surrogate.SurrogateFunctionBase)
        and value is not surrogate.SurrogateFunctionBase
        and value not in _NOT_SPIKE_FUNCTIONS
    }
    return dict(sorted(found.items()))


def is_spike_function(found: object) -> bool:
    """Returns True for a class that `spike_function` builds."""
    return inspect.isclass(found) and issubclass(found, surrogate.SurrogateFunctionBase)


def _snake_case(name: str) -> str:
    name = name.replace("ATan", "Atan").replace("ReLU", "Relu")
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text.capitalize() if text in ("true", "false") else text)
    except (SyntaxError, ValueError):
        return text
