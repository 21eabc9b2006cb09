"""The base of this library's spike functions: parameters, and smooth or exact output."""

import functools
import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor, nn

from . import functional

Mode = Literal["auto", "soft", "hard"]

_logger = logging.getLogger(__name__)
say_once = functools.cache(_logger.log)  # a message of a level, once a process


class SpikeFunction(SurrogateFunctionBase):
    """A firing function with a smooth primitive, for the ``surrogate_function`` of any neuron.

    | mode     | forward                                        | backward                 |
    |----------|------------------------------------------------|--------------------------|
    | `"auto"` | primitive in `train()`, exact step in `eval()` | derivative of what ran   |
    | `"soft"` | primitive, always                              | its derivative           |
    | `"hard"` | exact step, always                             | the primitive's          |

    Between smooth and exact there is `hardness`: what is smooth in the table puts out
    ``primitive + hardness * (step - primitive)``, so that a training can go from one to the other
    without a jump. Its derivative is the primitive's, or with `true_gradient` that of the output,
    ``1 - hardness`` times the primitive's.

    The step is 1 at exactly 0. In mode "hard" and in ``eval()`` the output is exactly 0 or 1.
    NaN stays NaN in every mode.

    With ``levels`` = D above 1 an output is an integer from 0 to D, the spikes of a time step, or
    while it is smooth the sum of D primitives, of ``x``, ``x - 1``, ..., ``x - D + 1``, with its
    true derivative. A neuron with ``v_reset=None`` then subtracts the output times its threshold.
    The steps lie 1 apart; for another ``v_threshold`` than 1 divide the neuron's input by it.

    A subclass is its `primitive_function`, in plain torch, and its parameters as class fields with
    their defaults, ``sigma: float = 0.4``; ``__init__`` takes them by name. A parameter is a
    positive float, or, if learnable, an `nn.Parameter` of shape ``[]`` or ``[num_channels]``
    (dimension 1 of the input, as for `nn.PReLU`). Either way it is part of the ``state_dict``.

    Args:
        mode: "auto", "soft" or "hard".
        learnable: whether the parameters are trained.
        num_channels: one value a channel instead of one for all; with ``learnable`` only.
        levels: the largest output, >= 1.
        *values, **parameters: initial value of each parameter, > 0, dimensionless.

    Raises:
        ValueError: an unknown mode, a parameter that is not positive and finite, or
            ``num_channels`` below 1 or without ``learnable``, or ``levels`` below 1.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ()
    fields: ClassVar[dict[str, float]] = {}  # the parameters that are declared, with defaults
    __signature__: ClassVar[inspect.Signature | None] = None
    levels: int = 1
    true_gradient: bool = False  # whether hardness scales the derivative too
    _hardness: Tensor
    _hardened: bool

    def __init__(
        self,
        *values: float,
        mode: Mode = "auto",
        learnable: bool = False,
        num_channels: int | None = None,
        levels: int = 1,
        **parameters: float,
    ) -> None:
        super().__init__()
        if self.fields:
            parameters = filled(type(self), values, parameters)
        if num_channels is not None and not (learnable and num_channels >= 1):
            raise ValueError(
                f"`num_channels` (={num_channels}) must be at least 1 and needs learnable=True"
            )
        if levels != int(levels) or levels < 1:
            raise ValueError(f"`levels` (={levels}) must be an integer of at least 1")
        self.levels = int(levels)
        for name in self.parameter_names:
            value = _positive(name, parameters[name])
            if learnable:
                shape = () if num_channels is None else (num_channels,)
                setattr(self, name, nn.Parameter(torch.full(shape, value)))
            else:
                setattr(self, name, value)
        self.mode = mode
        self.hardness = 0.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        fields = take_fields(cls)
        if "parameter_names" not in vars(cls):
            cls.parameter_names = tuple(fields) or cls.parameter_names
        declared = bool(fields) and "__init__" not in vars(cls)
        cls.__signature__ = _signature(fields) if declared else None

    @staticmethod
    def primitive_function(x: Tensor, *args: Any, **parameters: Any) -> Tensor:
        """The smooth function of ``x`` = charged potential - threshold; differentiable."""
        raise NotImplementedError

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, value: Mode) -> None:
        if value not in get_args(Mode):
            raise ValueError(f"`mode` (={value!r}) must be one of {', '.join(get_args(Mode))}")
        self._mode: Mode = value

    @property
    def hardness(self) -> float:
        """Share of the exact step in the smooth output, in [0, 1]; 0 unless it is set."""
        return float(self._hardness)

    @hardness.setter
    def hardness(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"`hardness` (={value}) must lie in [0, 1]")
        # A tensor, on the CPU wherever the module is: what changes at each step of a training is
        # then no reason for torch.compile to compile anew. A new one, for graphs that hold the old.
        made = torch.scalar_tensor(value, dtype=torch.float64, device="cpu")
        self.__dict__.update(_hardness=made, _hardened=value > 0)  # not asked what they are

    @property
    def spiking(self) -> bool:
        """True if the forward pass is the exact step now; SpikingJelly's name for it.

        Setting it, as SpikingJelly's ``set_spiking_mode`` does, is mode "hard" or "soft".
        """
        return self.mode == "hard" or (self.mode == "auto" and not self.training)

    @spiking.setter
    def spiking(self, value: bool) -> None:
        self.mode = "hard" if value else "soft"

    def current_parameters(self) -> dict[str, functional.Parameter]:
        """The parameters by name, as they stand."""
        return {name: getattr(self, name) for name in self.parameter_names}

    def set_parameters(self, **parameters: float) -> None:
        """Changes parameters in place, for example from a schedule during training.

        Raises:
            ValueError: an unknown name, or a value that is not positive and finite.
        """
        values = {}
        for name, value in parameters.items():
            if name not in self.parameter_names:
                raise ValueError(
                    f"{type(self).__name__} has no parameter {name!r}; "
                    f"it has {', '.join(self.parameter_names) or 'none'}"
                )
            values[name] = _positive(name, value)
        for name, value in values.items():
            current = getattr(self, name)
            if isinstance(current, Tensor):
                with torch.no_grad():
                    current.fill_(value)
            else:
                setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        if not self.spiking:
            smooth = self._smooth(x)
            if not self._hardened:
                return smooth
            beyond = functional.staircase(x, self.levels) - smooth
            beyond = beyond if self.true_gradient else beyond.detach()
            return smooth + self._hardness.to(smooth.dtype) * beyond
        if self.mode == "auto" or not torch.is_grad_enabled():
            return functional.staircase(x, self.levels)  # with the step's gradient: zero
        smooth = self._smooth(x)
        through = _StraightThrough if torch.compiler.is_compiling() else _DualStraightThrough
        return through.apply(functional.staircase(x.detach(), self.levels), smooth)

    def _smooth(self, x: Tensor) -> Tensor:
        parameters = self._broadcast_parameters(x)
        if self.levels == 1:
            return self.primitive_function(x, **parameters)
        wide = x.to(functional.compute_dtype(x.dtype))
        total: Any = sum(
            self.primitive_function(wide - k, **parameters) for k in range(self.levels)
        )
        return total.to(x.dtype)

    def _broadcast_parameters(self, x: Tensor) -> dict[str, functional.Parameter]:
        parameters = self.current_parameters()
        for name, value in parameters.items():
            if isinstance(value, Tensor) and value.ndim == 1:
                if x.ndim < 2 or x.shape[1] != value.numel():
                    raise ValueError(
                        f"`{name}` has {value.numel()} channels, but the input's shape is "
                        f"{tuple(x.shape)}; its dimension 1 must be the channels"
                    )
                parameters[name] = value.view(-1, *[1] * (x.ndim - 2))
        return parameters

    def extra_repr(self) -> str:
        shown = []
        for name, value in self.current_parameters().items():
            if isinstance(value, Tensor):
                kind = "learnable" if value.ndim == 0 else f"learnable, {value.numel()} channels"
                shown.append(f"{name}={value.detach().mean().item():.4g} ({kind})")
            else:
                shown.append(f"{name}={value}")
        if self.levels > 1:
            shown.append(f"levels={self.levels}")
        if self._hardened:
            shown.append(f"hardness={self.hardness:.4g}")
        return ", ".join([*shown, f"mode={self.mode!r}"])

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, value in self.current_parameters().items():
            if not isinstance(value, Tensor):
                destination[prefix + name] = torch.tensor(value, dtype=torch.float64)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        _metadata, _strict, missing_keys, _unexpected_keys, error_messages = rest
        constants = [
            name for name, value in self.current_parameters().items() if isinstance(value, float)
        ]
        if constants and not any(prefix + name in state_dict for name in constants):
            constants = []
            say_once(
                logging.WARNING,
                "the state dict is of a network with other spike functions: this one's keep the "
                "constants that they were made with",
            )
        for name in constants:
            if prefix + name not in state_dict:
                missing_keys.append(prefix + name)
            elif state_dict[prefix + name].numel() != 1:
                error_messages.append(
                    f"{prefix + name} holds {state_dict[prefix + name].numel()} values, one a "
                    "channel; build the spike function with learnable=True and num_channels"
                )
            else:
                setattr(self, name, float(state_dict[prefix + name]))
        others = {k: v for k, v in state_dict.items() if k not in {prefix + n for n in constants}}
        super()._load_from_state_dict(others, prefix, *rest)


def take_fields(cls: Any) -> dict[str, float]:
    """The numbers that a class and its bases declare as fields with a default, by name.

    They are taken off the class, where they would hide a parameter of a module.
    """
    own = {
        name: vars(cls)[name]
        for name in inspect.get_annotations(cls)
        if isinstance(vars(cls).get(name), float) and not name.startswith("_")
    }
    for name in own:
        delattr(cls, name)
    cls.fields = fields = {**getattr(cls, "fields", {}), **own}
    return fields


def _signature(fields: Mapping[str, float]) -> inspect.Signature:
    """Returns the signature of a class that declares its parameters as fields."""
    either, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    shared = {"mode": "auto", "learnable": False, "num_channels": None, "levels": 1}
    return inspect.Signature(
        [inspect.Parameter(name, either, default=value) for name, value in fields.items()]
        + [inspect.Parameter(name, keyword, default=value) for name, value in shared.items()]
    )


def filled(cls: Any, args: Sequence[float], values: Mapping[str, float]) -> dict[str, float]:
    """The values of a class's fields: those given, in order or by name, and its defaults.

    Raises:
        TypeError: a name that is no field, or more values than fields.
    """
    fields: dict[str, float] = cls.fields
    given = {**dict(zip(fields, args, strict=False)), **values}
    unknown = [name for name in given if name not in fields]
    if unknown or len(args) > len(fields):
        raise TypeError(
            f"{cls.__name__} has the fields {', '.join(fields) or '(none)'}, "
            f"not {', '.join(unknown) or f'{len(args)} of them'}"
        )
    return fields | given


def _positive(name: str, value: float) -> float:
    value = float(value)
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"`{name}` (={value}) must be positive and finite")
    return value


class _StraightThrough(torch.autograd.Function):
    """Outputs ``spike``; the gradient goes to ``smooth``, whole."""

    generate_vmap_rule = True

    @staticmethod
    def forward(spike: Tensor, smooth: Tensor) -> Tensor:
        return spike.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad


class _DualStraightThrough(_StraightThrough):
    """Adds a rule for forward-mode differentiation, which torch.compile does not take."""

    @staticmethod
    def jvp(ctx: Any, _spike: Tensor | None, smooth: Tensor) -> Tensor:
        return smooth.clone()
