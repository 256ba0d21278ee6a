"""Nearest points of a simplex with bounds, by distance and by ratio."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TINY = 1e-12


def project(weights: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return the nearest point x with lower <= x <= upper and sum(x) = 1, float64 [n].

    x_i = clip(w_i + t, l_i, u_i) for the one shift t at which the sum is one: the sum is piecewise
    linear and rising in t, so t is found exactly between two of its 2n breakpoints (Held, Wolfe
    and Crowder, Validation of subgradient optimization, 1974, extended to bounds).
    Raises ValueError when no such point exists.
    """
    _require_room(lower, upper)
    breaks = np.unique(np.concatenate([lower - weights, upper - weights]))
    shift = _crossing(breaks, lambda t: np.clip(weights + t, lower, upper))
    return np.asarray(np.clip(weights + shift, lower, upper))


def rescale(weights: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return the point x nearest by Kullback-Leibler divergence from `weights` >= 0, float64 [n].

    lower <= x <= upper, sum(x) = 1; x_i = clip(c w_i, l_i, u_i) for one factor c, found exactly as
    in `project`: what no bound holds keeps its ratios. A weight of zero counts as TINY. Raises
    ValueError when no such point exists.
    """
    _require_room(lower, upper)
    weights = np.maximum(weights, TINY)
    breaks = np.unique(np.concatenate([lower / weights, upper / weights]))
    factor = _crossing(breaks, lambda c: np.clip(c * weights, lower, upper))
    return np.asarray(np.clip(factor * weights, lower, upper))


def _require_room(lower: np.ndarray, upper: np.ndarray) -> None:
    if lower.sum() > 1 + 1e-9 or upper.sum() < 1 - 1e-9 or (lower > upper).any():
        raise ValueError(
            f"bounds must leave room for a sum of one, got lower sum {lower.sum():g} and upper "
            f"sum {upper.sum():g}"
        )


def _crossing(breaks: np.ndarray, at: Callable[[float], np.ndarray]) -> float:
    """Return where the sum of `at` is one: it rises, in straight lines between `breaks`."""
    sums = np.array([at(place).sum() for place in breaks])
    after = int(np.searchsorted(sums, 1.0))
    if after in (0, len(breaks)):
        return float(breaks[min(after, len(breaks) - 1)])
    low, high = sums[after - 1], sums[after]
    share = 0.0 if high == low else (1.0 - low) / (high - low)
    return float(breaks[after - 1] + share * (breaks[after] - breaks[after - 1]))
