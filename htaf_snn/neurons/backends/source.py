"""The one kernel source: the neuron's header, a spike function, and a driver for each compiler."""

from __future__ import annotations

import re
from importlib import resources

from ...surrogates.expressions import Expression

_LITERAL = re.compile(r"(?<![\w.])(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])")


def read(name: str) -> str:
    """The text of a file beside this one."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def function_struct(expression: Expression) -> str:
    """``struct Function``, what kernel.h's users ask of a spike function."""
    arguments = "".join(
        f" const R {name} = p[{k}]; (void){name};" for k, name in enumerate(expression.parameters)
    )

    def method(name: str, extra: str, body: str) -> str:
        return (
            "    template <class R, class P>\n"
            f"    static HTAF_METHOD R {name}({extra}R x, const P& p) {{\n"
            f"       {arguments} (void)x; (void)p;\n{body}    }}\n"
        )

    def returns(text: str | None) -> str:
        return f"        return R({_typed(text or '0')});\n"

    derivatives = "".join(
        f"        if (which_parameter == {k}) return R({_typed(text)});\n"
        for k, text in enumerate(expression.parameter_derivatives)
    )
    learnable = "true" if expression.parameter_derivatives else "false"
    return (
        "namespace htaf_snn {\nstruct Function {\n"
        f"    static const int parameters = {len(expression.parameters)};\n"
        f"    static const bool learnable = {learnable};\n"
        + method("primitive", "", returns(expression.primitive))
        + method("derivative", "", returns(expression.derivative))
        + method(
            "parameter_derivative", "int which_parameter, ", derivatives + "        return R(0);\n"
        )
        + "};\n}\n"
    )


def _typed(text: str) -> str:
    """``text`` with its literals in the type R, so that float arithmetic stays float."""
    return _LITERAL.sub(lambda match: f"R({match[0]})", text)
