"""Spike functions as C expressions, from which the fused kernels are compiled.

An expression may use ``x``, the parameters by name, arithmetic, ``?:``, and the functions of
``kernel.h``: abs, exp, exp_negative (of a number that is not positive; fast), log, sqrt, sin, cos,
atan, erfc, pow, square, minimum, sigmoid, sigmoid_derivative and tanh. Literals are written
without a suffix.
"""

from __future__ import annotations

import functools
import importlib
import math
import operator

from spikingjelly.activation_based import surrogate
from torch import Tensor

from .spike_function import SPIKE_FUNCTIONS, SpikeFunction
from .spike_function import Expression as Expression

PI = repr(math.pi)


_BUILT_IN: dict[type[surrogate.SurrogateFunctionBase], Expression] = {
    surrogate.ATan: Expression(
        ("alpha",),
        f"atan({PI} / 2 * alpha * x) / {PI} + 0.5",
        f"alpha / 2 / (1 + square({PI} / 2 * alpha * x))",
    ),
    surrogate.DeterministicPass: Expression((), "x", "1"),
    surrogate.Erf: Expression(
        ("alpha",),
        "erfc(-alpha * x) / 2",
        f"exp_negative(-square(alpha * x)) * alpha / sqrt({PI})",
    ),
    surrogate.FakeNumericalGradient: Expression(("alpha",), None, "minimum(1 / abs(x), alpha)"),
    surrogate.LeakyKReLU: Expression(("leak", "k"), "(x >= 0 ? k : leak) * x", "x >= 0 ? k : leak"),
    surrogate.LogTailedReLU: Expression(
        ("alpha",),
        "x > 1 ? log(x) + 1 : x >= 0 ? x : alpha * x",
        "x > 1 ? 1 / x : x <= 0 ? alpha : 1",
    ),
    surrogate.NonzeroSignLogAbs: Expression(
        ("alpha",),
        "x >= 0 ? log(alpha * x + 1) : -log(1 - alpha * x)",
        "1 / (1 / alpha + abs(x))",
    ),
    surrogate.PiecewiseExp: Expression(
        ("alpha",),
        "x >= 0 ? 1 - exp_negative(-alpha * abs(x)) / 2 : exp_negative(-alpha * abs(x)) / 2",
        "alpha / 2 * exp_negative(-alpha * abs(x))",
    ),
    surrogate.PiecewiseLeakyReLU: Expression(
        ("w", "c"),
        "x < -w ? c * x + c * w : x > w ? c * x - c * w + 1 : x / (2 * w) + 0.5",
        "abs(x) < w ? 1 / (2 * w) : c",
    ),
    surrogate.PiecewiseQuadratic: Expression(
        ("alpha",),
        "x > 1 / alpha ? 1 : x < -1 / alpha ? 0"
        " : -square(alpha) / 2 * x * abs(x) + alpha * x + 0.5",
        "abs(x) > 1 / alpha ? 0 : alpha - square(alpha) * abs(x)",
    ),
    surrogate.QPseudoSpike: Expression(
        ("alpha",),
        "x >= 0 ? 1 - 0.5 * pow(1 + 2 / (alpha - 1) * abs(x), 1 - alpha)"
        " : 0.5 * pow(1 + 2 / (alpha - 1) * abs(x), 1 - alpha)",
        "pow(1 + 2 / (alpha - 1) * abs(x), -alpha)",
    ),
    surrogate.Rect: Expression(
        ("alpha",),
        "alpha * x + 0.5 < 0 ? 0 : minimum(alpha * x + 0.5, 1)",
        "abs(x) < 0.5 / alpha ? alpha : 0",
    ),
    # Its primitive's derivative is not quite its surrogate gradient.
    surrogate.S2NN: Expression(
        ("alpha", "beta"),
        None,
        "x < 0 ? alpha * sigmoid_derivative(alpha * x) : beta / (x + 1)",
    ),
    surrogate.Sigmoid: Expression(
        ("alpha",), "sigmoid(alpha * x)", "alpha * sigmoid_derivative(alpha * x)"
    ),
    surrogate.SoftSign: Expression(
        ("alpha",),
        "(alpha * x / (1 + abs(alpha * x)) + 1) / 2",
        "1 / (2 * alpha * square(1 / alpha + abs(x)))",
    ),
    surrogate.SuperSpike: Expression(("alpha",), None, "alpha / square(abs(x) + 1)"),
}


def expression(function: surrogate.SurrogateFunctionBase) -> Expression | None:
    """The C expression of a spike function, or None if it has none."""
    if isinstance(function, SpikeFunction):
        return function.expression
    return _BUILT_IN.get(type(function))


def class_name(function: surrogate.SurrogateFunctionBase) -> str:
    """The name by which `expression_of_class` finds a spike function's expression again."""
    return f"{type(function).__module__}:{type(function).__qualname__}"


@functools.cache
def expression_of_class(name: str) -> Expression:
    """The expression of the class of that `class_name`, imported if it has not been yet."""
    found = SPIKE_FUNCTIONS.get(name)
    if found is None:
        module, _, path = name.partition(":")
        found = operator.attrgetter(path)(importlib.import_module(module))
    of = found.expression if issubclass(found, SpikeFunction) else _BUILT_IN.get(found)
    assert of is not None
    return of


def parameters(
    function: surrogate.SurrogateFunctionBase, of: Expression
) -> dict[str, float | Tensor]:
    """The values of an expression's parameters."""
    return {name: getattr(function, name) for name in of.parameters}
