"""The best mixture under bounds: a convex problem, solved to a stated tolerance in nats.

Sequential quadratic programming with exact Hessians, as mixsqp does for mixture proportions (Kim
et al., arXiv 1806.01412): -log is self-concordant, so that few passes over the data suffice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ablate.evaluate.ensemble.derivatives import Local, checked_objective, local
from ablate.evaluate.ensemble.quadratic import minimise_quadratic, settled
from ablate.evaluate.ensemble.values import Ensemble, restricted

ENOUGH = 0.1  # of the decrease that the slope promises makes a step acceptable (Armijo)
HALVINGS = 40
SUM_SLACK = 1e-12
PASSES = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Constraints:
    """Bounds on weights, float64 [n] each, and at most how many may be positive (None: any)."""

    lower: np.ndarray
    upper: np.ndarray
    at_most: int | None = None

    @classmethod
    def simplex(cls, count: int, at_most: int | None = None) -> Constraints:
        """Return the whole simplex over `count` coordinates."""
        return cls(lower=np.zeros(count), upper=np.ones(count), at_most=at_most)


@dataclass(frozen=True, kw_only=True, eq=False)
class Optimum:
    """The best mixture found: `weights` [n] and its objective `loss` in nats.

    No feasible mixture has a loss below loss - gap: `gap` is the Frank-Wolfe duality gap, or,
    when a limited number of coordinates may be positive, the distance to the certified minimum
    without that limit. `passes` counts traversals of the ratios; `local` is the last of them.
    """

    weights: np.ndarray
    loss: float
    gap: float
    iterations: int
    passes: int


def solve_bounded(
    ensemble: Ensemble,
    objective: np.ndarray,
    constraints: Constraints,
    tolerance: float,
    start: np.ndarray | None = None,
) -> Optimum:
    """Return the optimum within the bounds of `constraints`; its `at_most` is not looked at.

    Stops when the gap is at most `tolerance` nats, or when rounding allows no further descent
    (the gap says so). Starts at `start`, a feasible mixture, or amid the bounds. Raises
    ValueError where no mixture meets the bounds.
    """
    objective = checked_objective(ensemble, objective)
    lower, upper = checked_bounds(ensemble, constraints)
    kept = upper > 0
    inner = restricted(ensemble, kept)
    bounds = lower[kept], upper[kept]
    first = middle(*bounds) if start is None else settled(start[kept], *bounds)
    found = _descend(inner, objective, bounds, first, tolerance)
    weights = np.zeros(kept.size)
    weights[kept] = found.weights
    return Optimum(
        weights=weights,
        loss=found.loss,
        gap=found.gap,
        iterations=found.iterations,
        passes=found.passes,
    )


def checked_bounds(ensemble: Ensemble, constraints: Constraints) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper bounds, float64 [n] within [0, 1].

    Raises ValueError where they contradict each other or no mixture sums to one within them.
    """
    lower, upper = (
        np.asarray(bound, dtype=np.float64) for bound in (constraints.lower, constraints.upper)
    )
    shape = (len(ensemble.units),)
    if lower.shape != shape or upper.shape != shape or not ((lower >= 0) & (lower <= upper)).all():
        raise ValueError(
            f"bounds must hold 0 <= lower <= upper for {shape[0]} weights, got "
            f"{lower.tolist()} and {upper.tolist()}"
        )
    upper = np.minimum(upper, 1)
    if math.fsum(lower) > 1 + SUM_SLACK or math.fsum(upper) < 1 - SUM_SLACK:
        raise ValueError(
            f"bounds must leave a mixture: lower ones sum to {math.fsum(lower):g} (at most 1), "
            f"upper ones to {math.fsum(upper):g} (at least 1)"
        )
    return lower, upper


def middle(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return the mixture that lies equally far between all lower and upper bounds."""
    room = upper - lower
    total = room.sum()
    share = (1 - lower.sum()) / total if total else 0.0
    return settled(lower + share * room, lower, upper)


def _descend(
    ensemble: Ensemble,
    objective: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
    start: np.ndarray,
    tolerance: float,
) -> Optimum:
    point, here = start, local(ensemble, start, objective)
    iterations, passes = 0, 1
    while True:
        gap = duality_gap(point, here.gradient, bounds)
        if gap <= tolerance or passes >= PASSES:
            break
        target = minimise_quadratic(here.hessian, here.gradient, point, bounds)
        reached = _line_search(ensemble, objective, point, target, here, bounds)
        passes += reached[2]
        iterations += 1
        if reached[1] is None:
            break
        point, here = reached[0], reached[1]
    return Optimum(weights=point, loss=here.value, gap=gap, iterations=iterations, passes=passes)


def _line_search(
    ensemble: Ensemble,
    objective: np.ndarray,
    point: np.ndarray,
    target: np.ndarray,
    here: Local,
    bounds: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, Local | None, int]:
    """Return the first point towards `target` that descends enough, what is there, and passes.

    None instead of a local where no such point exists in float64.
    """
    promised = float(here.gradient @ (target - point))
    share = 1.0
    for passes in range(1, HALVINGS):
        trial = settled(point + share * (target - point), *bounds)
        there = local(ensemble, trial, objective)
        if there.value < here.value and there.value <= here.value + ENOUGH * share * promised:
            return trial, there, passes
        share /= 2
    return point, None, HALVINGS - 1


def duality_gap(
    point: np.ndarray, slope: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]
) -> float:
    """Return max <slope, point - v> over the mixtures v within the bounds, nats, at least 0.

    For a convex objective no such v is better than `point` by more. The linear problem is solved
    by filling coordinates up in order of their slope.
    """
    best = bounds[0].copy()
    left = 1 - math.fsum(best.tolist())
    for index in np.argsort(slope, kind="stable"):
        more = min(left, bounds[1][index] - best[index])
        if more <= 0:
            continue
        best[index] += more
        left -= more
    return max(0.0, math.fsum((slope * (point - best)).tolist()))
