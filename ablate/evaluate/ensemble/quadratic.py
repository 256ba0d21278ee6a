"""Small convex quadratic programs over box and simplex: the step of the mixture solver.

Primal active set (Nocedal and Wright, Numerical Optimization, algorithm 16.3): dense, exact
bounds, at most some tens of linear solves for tens of variables.
"""

from __future__ import annotations

import math

import numpy as np

RIDGE = 1e-12  # of the Hessian's mean diagonal: equal columns leave it singular
ROUNDING = 1e-14


def minimise_quadratic(
    hessian: np.ndarray,
    slope: np.ndarray,
    start: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Return argmin_y <slope, y - start> + (y - start)' hessian (y - start) / 2, float64 [n].

    y lies within `bounds` (lower, upper) exactly and sums to what `start`, a feasible point,
    sums to, up to rounding. It is never worse than `start`, even where the iterations run out.
    """
    lower, upper = bounds
    hessian = hessian + RIDGE * max(np.trace(hessian) / len(slope), ROUNDING) * np.eye(len(slope))
    point = start.copy()
    free = (point > lower) & (point < upper)
    arrived = False  # at the minimum over the free coordinates
    for _ in range(20 + 10 * len(slope)):
        pull = slope + hessian @ (point - start)
        if not arrived:
            blocked = _advance(point, _equality_step(hessian, pull, free), free, bounds)
            if blocked is None:
                arrived = True
            else:
                free[blocked] = False
        elif _release(point, pull, free, bounds):
            arrived = False
        else:
            break
    return point


def _equality_step(hessian: np.ndarray, pull: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Return the step to the minimum over the free coordinates whose sum stays, float64 [n]."""
    step = np.zeros(len(pull))
    index = np.flatnonzero(free)
    if index.size < 2:
        return step
    both = np.column_stack([-pull[index], np.ones(index.size)])
    newton, even = np.linalg.solve(hessian[np.ix_(index, index)], both).T
    step[index] = newton - newton.sum() / even.sum() * even
    step[index] -= step[index].mean()
    return step


def _advance(
    point: np.ndarray, step: np.ndarray, free: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]
) -> int | None:
    """Move `point` in place by `step` as far as the bounds go; return who stops it, if any does."""
    room = np.full(len(point), np.inf)
    up, down = free & (step > 0), free & (step < 0)
    room[up] = (bounds[1] - point)[up] / step[up]
    room[down] = (bounds[0] - point)[down] / step[down]
    first = int(room.argmin())
    point += min(1.0, float(room[first])) * step
    np.clip(point, *bounds, out=point)
    if room[first] > 1:
        return None
    point[first] = bounds[1][first] if step[first] > 0 else bounds[0][first]
    return first


def _release(
    point: np.ndarray, pull: np.ndarray, free: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]
) -> bool:
    """Free, in place, the pair of coordinates between which weight should move, if one exists."""
    rising = np.where(point < bounds[1], pull, np.inf)
    falling = np.where(point > bounds[0], pull, -np.inf)
    more, less = int(rising.argmin()), int(falling.argmax())
    if rising[more] >= falling[less] - ROUNDING * (1 + abs(pull).max()):
        return False
    if free[more] and free[less]:
        return False  # the step between them is rounding
    free[[more, less]] = True
    return True


def settled(point: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return `point` within its bounds exactly, its sum mended to 1 to the last bits.

    What is missing goes to the largest coordinate that can take it, so that zeros stay zeros.
    """
    point = np.clip(point, lower, upper)
    for _ in range(3):
        missing = 1 - math.fsum(point.tolist())
        room = upper - point if missing > 0 else point - lower
        able = room >= abs(missing)
        index = int(np.where(able, point, -1).argmax() if able.any() else room.argmax())
        point[index] = min(max(point[index] + missing, lower[index]), upper[index])
    return point
