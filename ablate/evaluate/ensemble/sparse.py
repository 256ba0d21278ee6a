"""The best mixture of at most k members: no convex problem, hence a heuristic with a certificate.

Solve without the limit; drop members one at a time, the cheapest by the quadratic model first,
solving again after each; then swap members while that helps. The limit-free optimum bounds from
below what any choice could reach, so the distance to the unknown best choice is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ablate.evaluate.ensemble.derivatives import Local, local
from ablate.evaluate.ensemble.optimum import (
    SUM_SLACK,
    Constraints,
    Optimum,
    checked_bounds,
    middle,
    solve_bounded,
)
from ablate.evaluate.ensemble.quadratic import minimise_quadratic
from ablate.evaluate.ensemble.values import Ensemble

TRIED = 4  # changes solved exactly among those that the quadratic model ranks
NEWCOMERS = 12  # members from outside that a swap considers, steepest first


@dataclass(frozen=True, kw_only=True, eq=False)
class _Problem:
    """What is minimised within which bounds, to which tolerance in nats, by how many members."""

    ensemble: Ensemble
    objective: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    at_most: int
    tolerance: float


def optimum(
    ensemble: Ensemble,
    objective: np.ndarray,
    constraints: Constraints | None = None,
    tolerance: float = 1e-6,
) -> Optimum:
    """Return the mixture over the ensemble's columns with the smallest objective.

    `objective` [domains] weights domains; without `constraints` the whole simplex is searched.
    The gap is at most `tolerance` nats when members are not limited; under `at_most` the choice
    of members is a heuristic and the gap says how far from the best it can be at most. Weights
    sum to one within 1e-12 and keep their bounds exactly. Deterministic. Collapse units with
    `by_partition` first when partitions are what is weighted.

    Raises ValueError for an objective or a tolerance that is none, and where no mixture meets
    the constraints.
    """
    constraints = constraints or Constraints.simplex(len(ensemble.units))
    if not tolerance > 0:
        raise ValueError(f"tolerance must be above 0 nats, got {tolerance}")
    lower, upper = checked_bounds(ensemble, constraints)
    relaxed = solve_bounded(ensemble, objective, constraints, tolerance)
    limit = constraints.at_most
    if limit is None or np.count_nonzero(relaxed.weights) <= limit:
        return relaxed
    problem = _Problem(
        ensemble=ensemble,
        objective=np.asarray(objective, dtype=np.float64),
        lower=lower,
        upper=upper,
        at_most=limit,
        tolerance=tolerance,
    )
    if not _can_shrink(problem, np.ones(len(lower), dtype=bool)):
        raise ValueError(
            f"at most {limit} positive weights must leave a mixture: {np.count_nonzero(lower)} "
            f"have a lower bound, the {limit} largest upper bounds sum to "
            f"{math.fsum(np.sort(upper)[-limit:] if limit > 0 else []):g}"
        )
    found = _swapped(problem, _shrunk(problem, relaxed))
    return replace(found, gap=max(0.0, found.loss - (relaxed.loss - relaxed.gap)))


def _can_shrink(problem: _Problem, members: np.ndarray) -> bool:
    """Return whether at_most of `members` bool [n], with all that must be in, meet the bounds."""
    needed = problem.lower > 0
    spare = problem.at_most - np.count_nonzero(needed)
    if spare < 0 or (needed & ~members).any():
        return False
    others = np.sort(problem.upper[members & ~needed])[::-1][:spare]
    return math.fsum([*problem.upper[needed], *others]) >= 1 - SUM_SLACK


def _shrunk(problem: _Problem, found: Optimum) -> Optimum:
    """Return the optimum over at_most members, reached by dropping them one at a time."""
    members = found.weights > 0
    if not _can_shrink(problem, members):
        members = problem.upper > 0
        found = _solved(problem, members, found)
    while np.count_nonzero(members) > problem.at_most:
        here = local(problem.ensemble, found.weights, problem.objective)
        options = []
        for index in np.flatnonzero(members & (problem.lower == 0)):
            left = members.copy()
            left[index] = False
            if _can_shrink(problem, left):
                options.append(left)
        tried = _promising(problem, found, here, options)
        found = min((_solved(problem, left, found) for left in tried), key=lambda one: one.loss)
        members = found.weights > 0
    return found


def _swapped(problem: _Problem, found: Optimum) -> Optimum:
    """Return `found` after every swap of a member for an outsider, or addition, that helped."""
    while True:
        here = local(problem.ensemble, found.weights, problem.objective)
        tried = _promising(problem, found, here, _swaps(problem, found, here))
        solved = [_solved(problem, members, found) for members in tried]
        best = min(solved, key=lambda one: one.loss, default=found)
        if best.loss >= found.loss - problem.tolerance:
            return found
        found = best


def _swaps(problem: _Problem, found: Optimum, here: Local) -> list[np.ndarray]:
    """Return the memberships, bool [n] each, that exchange or add one member and can hold 1."""
    members = found.weights > 0
    outside = np.flatnonzero(~members & (problem.upper > 0))
    newcomers = outside[np.argsort(here.gradient[outside], kind="stable")][:NEWCOMERS]
    options = []
    for new in newcomers:
        for old in np.flatnonzero(members & (problem.lower == 0)):
            option = members.copy()
            option[[new, old]] = True, False
            options.append(option)
        if np.count_nonzero(members) < problem.at_most:
            option = members.copy()
            option[new] = True
            options.append(option)
    return [option for option in options if _can_shrink(problem, option)]


def _promising(
    problem: _Problem, found: Optimum, here: Local, options: list[np.ndarray]
) -> list[np.ndarray]:
    """Return the TRIED memberships with the smallest objective by the quadratic model."""
    predicted = []
    for members in options:
        upper = np.where(members, problem.upper, 0)
        start = middle(problem.lower, upper)
        slope = here.gradient + here.hessian @ (start - found.weights)
        end = minimise_quadratic(here.hessian, slope, start, (problem.lower, upper))
        move = end - found.weights
        predicted.append(float(here.gradient @ move + move @ here.hessian @ move / 2))
    order = np.argsort(np.array(predicted), kind="stable")[:TRIED]
    return [options[index] for index in order]


def _solved(problem: _Problem, members: np.ndarray, before: Optimum) -> Optimum:
    """Return the optimum over `members`; its passes include those made `before`."""
    upper = np.where(members, problem.upper, 0)
    bounds = Constraints(lower=problem.lower, upper=upper)
    found = solve_bounded(problem.ensemble, problem.objective, bounds, problem.tolerance)
    return replace(found, passes=found.passes + before.passes)
