"""The contenders' spike functions and their derivatives, drawn."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ..surrogates import spike_function, trains_smooth
from .figures import Looks
from .style import legend_below, legend_height, new_figure


def spike_functions(looks: Looks, reach: float = 2.0) -> Figure:
    """What each contender outputs in training, and the derivative that its backward pass takes.

    Contenders that differ only in how they are trained (after the ``@``) are drawn once.

    Args:
        looks: by label.
        reach: largest |x| drawn, > 0; x is the charged potential minus the threshold.

    Raises:
        ValueError: a label that `spike_function` can't build.
    """
    shown: dict[str, str] = {}  # the first label of each function
    for spike in looks:
        shown.setdefault(spike.partition("@")[0], spike)
    figure = new_figure(4.0 + legend_height(shown.values()))
    above, below = figure.subplots(2, 1, sharex=True)
    x = torch.linspace(-reach, reach, 801, dtype=torch.float64)
    above.step([-reach, 0, reach], [0, 1, 1], where="post", color="#bbbbbb", linewidth=3, zorder=1)
    above.annotate(
        "exact step",
        (0.62 * reach, 1),
        (0, -9),
        textcoords="offset points",
        color="#777777",
        fontsize=6.5,
        ha="center",
    )
    for spec, spike in shown.items():
        value, slope = value_and_derivative(spec, x)
        if trains_smooth(spike_function(spec)):
            above.plot(x.numpy(), value, **looks[spike].line)
        below.plot(x.numpy(), slope, **looks[spike].line)
    above.set(ylabel="output in training", ylim=(-0.05, 1.08))
    below.set(ylabel="derivative in training", xlabel="potential minus threshold")
    figure.align_ylabels()
    legend_below(figure, {spike: looks[spike] for spike in shown.values()}, markers=False)
    return figure


def value_and_derivative(spec: str, x: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A spike function's output in training and the gradient that it passes back, at ``x``.

    Args:
        spec: as `spike_function` reads it.
        x: float64.
    """
    function = spike_function(spec).train()
    points = x.detach().requires_grad_()
    output = function(points)
    (slope,) = torch.autograd.grad(output.sum(), points)
    return output.detach().numpy(), slope.numpy()
