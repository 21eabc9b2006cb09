"""Oracles."""

from __future__ import annotations

import numpy as np


def htaf_reference(x: float, alpha0: float, alpha1: float) -> tuple[float, float]:
    """HTAF's value and derivative by their definitions, in extended precision."""
    y, a0, a1 = (np.longdouble(a) for a in (x, alpha0, alpha1))
    t = np.tanh(a0 * y)
    value = 1 / (1 + np.exp(-a1 * t))
    u = min(abs(a0 * y), np.longdouble(5000))
    sech = 2 / (np.exp(u) + np.exp(-u))
    e = np.exp(-abs(a1 * t))
    return float(value), float(a0 * a1 * e / (1 + e) ** 2 * sech**2)
