"""The operations that a step is made of: one row each, its text in C with {0}, {1} its arguments.

R is the state's type. What a GPU has in hardware has a second text, for CUDA.
"""

_FUNCTIONS = (
    "abs", "sign", "exp", "log", "log1p", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "erf", "erfc", "sigmoid", "sigmoid_derivative", "floor", "ceil",
    "trunc",
)  # fmt: skip
_FUNCTIONS_OF_TWO = ("pow", "atan2", "fmod", "minimum", "maximum")
REAL = {
    **{name: f"{name}({{0}})" for name in _FUNCTIONS},
    **{name: f"{name}({{0}}, {{1}})" for name in _FUNCTIONS_OF_TWO},
    "exp_m1": "expm1({0})", "round": "rint({0})", "neg": "-{0}", "reciprocal": "R(1) / {0}",
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}",
    "where": "{0} ? {1} : {2}", "real": "{0} ? R(1) : R(0)",
}  # fmt: skip
TRUTH = {
    "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}", "ge": "{0} >= {1}",
    "eq": "{0} == {1}", "ne": "{0} != {1}",
    "and": "{0} & {1}", "or": "{0} | {1}", "xor": "{0} != {1}", "not": "!{0}",
}  # fmt: skip
OPERATIONS = REAL | TRUTH
_IN_HARDWARE = ("exp", "reciprocal", "sigmoid", "sigmoid_derivative", "tanh")
CUDA_OPERATIONS = OPERATIONS | {name: f"hardware::{name}({{0}})" for name in _IN_HARDWARE}

# Of many instructions, of which each waits for the one before.
LONG = {
    "exp", "exp_m1", "log", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh",
    "tanh", "erf", "erfc", "sigmoid", "sigmoid_derivative", "pow", "atan2", "fmod",
}  # fmt: skip
