"""Sharpness over a training: from a smooth network to one that fires exactly."""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import Tensor, nn

from ..arguments import in_range, one_of, typed
from ..surrogates import SpikeFunction, trains_smooth
from .firing import spike_functions

Shape = Literal["linear", "cosine", "geometric"]
_MOST = 0.98  # hardness at the end of a hardening with the true gradient


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
            layer of neurons behind it. Use an optimizer that divides by the gradient's size and
            soon forgets earlier sizes: ``AdamW(betas=(0.9, 0.95), eps=1e-20)``, in float32 or
            float64.
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
        self._most = _MOST if true_gradient else 1.0
        self._parameters = parameters
        self._sharpened = [
            (f, [name for name in parameters if name in f.parameter_names]) for f in functions
        ]
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
        for function, names in self._sharpened:
            function.set_parameters(**{name: values[name] for name in names})
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
