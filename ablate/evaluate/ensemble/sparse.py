"""The best mixture of at most k members: no convex problem, hence a heuristic with a certificate.

Solve without the limit; drop members one at a time, solving again for those whose weight is
missed least; then swap members while that helps. The limit-free optimum bounds from below what
any choice could reach, so the distance to the unknown best choice is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ablate.evaluate.ensemble.optimum import (
    SUM_SLACK,
    Constraints,
    Optimum,
    checked_bounds,
    solve_bounded,
)
from ablate.evaluate.ensemble.quadratic import settled
from ablate.evaluate.ensemble.scoring import losses
from ablate.evaluate.ensemble.values import Ensemble

TRIED = 4  # changes of members that are solved for, of those scored


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
    members = problem.upper > 0
    while np.count_nonzero(found.weights) > problem.at_most:
        # Who has no weight is no member, unless the bounds need it once others are dropped.
        held = found.weights > 0
        members = held if _can_shrink(problem, held) else members
        droppable = np.flatnonzero(members & (problem.lower == 0))
        options = [members & (np.arange(members.size) != index) for index in droppable]
        members, found = _best_of(problem, found, options)
    return found


def _swapped(problem: _Problem, found: Optimum) -> Optimum:
    """Return `found` after every exchange or addition of one member that helped."""
    while True:
        members = found.weights > 0
        outside = np.flatnonzero(~members & (problem.upper > 0))
        leaving = np.flatnonzero(members & (problem.lower == 0))
        options = []
        for new in outside:
            for old in leaving:
                option = members.copy()
                option[new], option[old] = True, False
                options.append(option)
        if np.count_nonzero(members) < problem.at_most:
            options += [members | (np.arange(members.size) == new) for new in outside]
        _, best = _best_of(problem, found, options)
        if best.loss >= found.loss - problem.tolerance:
            return found
        found = best


def _best_of(
    problem: _Problem, found: Optimum, options: list[np.ndarray]
) -> tuple[np.ndarray, Optimum]:
    """Return the most promising option, bool [n] members, that solves best, and its optimum.

    An option promises what its mixture next to `found` scores; the TRIED first are solved.
    `found` and its members where no option meets the bounds.
    """
    options = [option for option in options if _can_shrink(problem, option)]
    if not options:
        return found.weights > 0, found
    near = np.array([_moved(problem, found.weights, option) for option in options])
    scored = losses(problem.ensemble, near) @ problem.objective
    tried = [options[place] for place in np.argsort(scored, kind="stable")[:TRIED]]
    solved = [_solved(problem, members) for members in tried]
    best = min(range(len(solved)), key=lambda place: solved[place].loss)
    passes = found.passes + len(options) + sum(one.passes for one in solved)
    return tried[best], replace(solved[best], passes=passes)


def _solved(problem: _Problem, members: np.ndarray) -> Optimum:
    upper = np.where(members, problem.upper, 0)
    bounds = Constraints(lower=problem.lower, upper=upper)
    return solve_bounded(problem.ensemble, problem.objective, bounds, problem.tolerance)


def _moved(problem: _Problem, weights: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return a mixture of `members` within the bounds, close to `weights`.

    What leaves goes to the newcomer, or else to all in proportion, as far as there is room.
    """
    upper = np.where(members, problem.upper, 0)
    point = np.minimum(weights, upper)
    new = members & (weights == 0)
    for takers in (new.astype(float), point, upper - point):
        missing = 1 - point.sum()
        if missing > 0 and takers.any():
            point = np.minimum(point + missing * takers / takers.sum(), upper)
    return settled(point, problem.lower, upper)
