"""Nearest points of a simplex with bounds."""

from __future__ import annotations

import numpy as np


def project(weights: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return the nearest point x with lower <= x <= upper and sum(x) = 1, float64 [n].

    x_i = clip(w_i - t, l_i, u_i) for the one shift t at which the sum is one: the sum is piecewise
    linear and falling in t, so t is found exactly between two of its 2n breakpoints (Held, Wolfe
    and Crowder, Validation of subgradient optimization, 1974, extended to bounds).
    Raises ValueError when no such point exists.
    """
    if lower.sum() > 1 + 1e-9 or upper.sum() < 1 - 1e-9 or (lower > upper).any():
        raise ValueError(
            f"bounds must leave room for a sum of one, got lower sum {lower.sum():g} and upper "
            f"sum {upper.sum():g}"
        )
    breaks = np.unique(np.concatenate([weights - upper, weights - lower]))
    sums = np.array([np.clip(weights - t, lower, upper).sum() for t in breaks])
    after = int(np.searchsorted(-sums, -1.0))  # sums fall: the first breakpoint with sum <= 1
    if after in (0, len(breaks)):
        shift = breaks[min(after, len(breaks) - 1)]
    else:
        high, low = sums[after - 1], sums[after]
        share = 0.0 if high == low else (high - 1.0) / (high - low)
        shift = breaks[after - 1] + share * (breaks[after] - breaks[after - 1])
    return np.asarray(np.clip(weights - shift, lower, upper))
