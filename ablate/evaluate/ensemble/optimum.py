"""The best mixture under bounds: a convex problem, solved to a stated tolerance in nats.

Sequential quadratic programming with exact Hessians, as mixsqp does for mixture proportions (Kim
et al., arXiv 1806.01412): -log is self-concordant, so that few passes over the data suffice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ablate.evaluate.ensemble.derivatives import Local, checked_objective, local
from ablate.evaluate.ensemble.quadratic import minimise_quadratic, settled
from ablate.evaluate.ensemble.values import Ensemble, restricted

ENOUGH = 0.1  # of the decrease that the slope promises makes a step acceptable (Armijo)
ROUNDING = 1e-14  # of the objective: differences below it say nothing
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
    without that limit. `iterations` counts quadratic programs, `passes` traversals of the ratios.
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
) -> Optimum:
    """Return the optimum within the bounds of `constraints`; its `at_most` is not looked at.

    Stops when the gap is at most `tolerance` nats, or when rounding allows no further descent
    (the gap says so). Starts amid the bounds. Raises ValueError where no mixture meets them.
    """
    objective = checked_objective(ensemble, objective)
    lower, upper = checked_bounds(ensemble, constraints)
    kept = upper > 0
    inner = ensemble if kept.all() else restricted(ensemble, kept)
    bounds = lower[kept], upper[kept]
    found = _descend(inner, objective, bounds, middle(*bounds), tolerance)
    weights = np.zeros(kept.size)
    weights[kept] = found.weights
    return replace(found, weights=weights)


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
    here = _at(ensemble, objective, bounds, start)
    iterations, passes = 0, 1
    while here.gap > tolerance and passes < PASSES:
        slope, curve = here.local.gradient, here.local.hessian
        target = minimise_quadratic(curve, slope, here.point, bounds)
        promised = float(slope @ (target - here.point))
        share, iterations = 1.0, iterations + 1
        while True:
            trial = settled(here.point + share * (target - here.point), *bounds)
            there = _at(ensemble, objective, bounds, trial)
            passes += 1
            if _descends(here, there, share * promised):
                here = there
                break
            share /= 2
            if -share * promised <= ROUNDING * here.local.value:
                return _optimum(here, iterations, passes)
    return _optimum(here, iterations, passes)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Place:
    """A feasible mixture, the objective there, and its duality gap in nats."""

    point: np.ndarray
    local: Local
    gap: float


def _at(
    ensemble: Ensemble,
    objective: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
    point: np.ndarray,
) -> _Place:
    here = local(ensemble, point, objective)
    return _Place(point=point, local=here, gap=duality_gap(point, here.gradient, bounds))


def _descends(here: _Place, there: _Place, promised: float) -> bool:
    """Return whether a step gains enough; near the optimum, where the gain drowns in rounding
    because it is of second order, whether it halves the gap, which is of first order.

    Never where a weight of zero takes all but nothing of a token's probability: the slope is
    infinite there, so that the optimum lies elsewhere.
    """
    if not (np.isfinite(there.local.gradient).all() and np.isfinite(there.local.hessian).all()):
        return False
    change = there.local.value - here.local.value
    if change < 0 and change <= ENOUGH * promised:
        return True
    return change <= ROUNDING * here.local.value and there.gap <= here.gap / 2


def _optimum(here: _Place, iterations: int, passes: int) -> Optimum:
    return Optimum(
        weights=here.point,
        loss=here.local.value,
        gap=here.gap,
        iterations=iterations,
        passes=passes,
    )


def duality_gap(
    point: np.ndarray, slope: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]
) -> float:
    """Return max <slope, point - v> over the mixtures v within the bounds, nats, at least 0.

    For a convex objective no such v is better than `point` by more. The linear problem is solved
    by filling coordinates up in order of their slope. Infinite where a slope is.
    """
    if not np.isfinite(slope).all():
        return math.inf
    best = bounds[0].copy()
    left = 1 - math.fsum(best.tolist())
    for index in np.argsort(slope, kind="stable"):
        more = min(left, bounds[1][index] - best[index])
        if more <= 0:
            continue
        best[index] += more
        left -= more
    return max(0.0, math.fsum((slope * (point - best)).tolist()))
