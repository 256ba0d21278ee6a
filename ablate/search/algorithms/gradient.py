"""Mirror descent on the simplex with the exact slope of every weight.

One backward pass at the merged model gives the derivative of the objective with respect to every
mixture weight (`evaluate/slope.py`). Steps are multiplicative, w_k proportional to
w_k exp(-rate g_k) (Kivinen and Warmuth, Exponentiated gradient, 1997; Beck and Teboulle, Mirror
descent, 2003), with bounds kept as in that geometry: what no bound holds keeps its ratios. Steps are
longer after a success, shorter after a failure, always from the best mixture, and their length is
that of the weights that may move: a weight at its bound that would go on has no say in it.
"""

from __future__ import annotations

import numpy as np

from ablate.mixture import Mixture
from ablate.search.algorithms.task import Task, Value
from ablate.search.spaces import SimplexSpace, vector
from ablate.search.spaces.projection import rescale
from ablate.search.spaces.simplex import SLACK

FIRST_STEP = 1.0  # largest change of a log weight in a first step
GROW, SHRINK = 1.6, 0.35
SMALLEST_STEP, LONGEST_STEP = 1e-3, 20.0
SMALLEST_GAIN = 1e-5  # nats that the slopes promise of a step: with less a descent is at its end
FARTHEST = 50.0  # change of a log weight in a step that no bound holds
DRAWS = 64
TRIALS_EACH, MOST_AT_ONCE = 50, 64  # one descent for so many trials; at most so many


class Gradient:
    """Descents that take turns: from the ensemble's best mixture (or everything), and random ones.

    A long search has several at once, so that a cluster has work; each waits for its own value.
    """

    wants_gradient = True

    def __init__(self, task: Task) -> None:
        assert isinstance(task.space, SimplexSpace)  # `search/check.py` refuses any other before
        self._space = task.space
        self._rng = np.random.default_rng(task.rng_seed)
        even = np.full(len(task.space.names), 1 / len(task.space.names))
        self.lookahead = descents_at_once(task.trials)
        self._descents = [_Descent(task.space) for _ in range(self.lookahead)]
        self._descents[0].begin(task.ensemble_best or task.space.nearest(even))
        self._seen: set[str] = set()
        self._asked: dict[str, _Descent] = {}

    def ask(self) -> Mixture | None:
        """Return the next step of the descent whose turn it is."""
        for _ in range(len(self._descents)):
            descent = self._descents.pop(0)
            self._descents.append(descent)
            if descent in self._asked.values():
                continue
            mixture = descent.step(self._seen)
            if mixture is None:
                descent.begin(self._drawn())
                mixture = descent.step(self._seen)
            if mixture is not None:
                self._seen.add(mixture.key())
                self._asked[mixture.key()] = descent
                return mixture
        return None

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Take a value with its gradient; a failed trial shortens the step."""
        sloped = value if isinstance(value, Value) and value.gradient is not None else None
        self._asked.pop(mixture.key()).take(mixture, sloped)

    def _drawn(self) -> Mixture | None:
        for _ in range(DRAWS):
            mixture = self._space.sample(self._rng)
            if mixture is not None and mixture.key() not in self._seen:
                return mixture
        return None


class _Descent:
    """Steps downhill from one start until they promise too little to matter."""

    def __init__(self, space: SimplexSpace) -> None:
        self._space = space
        self.begin(None)

    def begin(self, start: Mixture | None) -> None:
        """Go on from `start`."""
        self._start = start
        self._best: tuple[Mixture, Value] | None = None
        self._step = FIRST_STEP

    def take(self, mixture: Mixture, value: Value | None) -> None:
        """Take the value of a step: longer steps after a success, shorter ones otherwise."""
        if value is not None and (self._best is None or value < self._best[1]):
            grown = self._step * (GROW if self._best is not None else 1.0)
            self._step = min(grown, LONGEST_STEP)
            self._best = (mixture, value)
        else:
            self._step *= SHRINK

    def step(self, seen: set[str]) -> Mixture | None:
        """Return the start, then the next mixture downhill of the best; None when none is left."""
        if self._start is not None:
            start, self._start = self._start, None
            return start
        while self._best is not None and self._step > SMALLEST_STEP:
            mixture, value = self._best
            slopes = value.gradient or {}
            slope = np.array([slopes.get(name, 0.0) for name in self._space.names])
            here = vector(self._space, mixture)
            found = self._downhill(here, slope)
            if slope @ (here - vector(self._space, found)) < SMALLEST_GAIN:
                break
            if found.key() not in seen:
                return found
            self._step *= SHRINK
        return None

    def _downhill(self, here: np.ndarray, slope: np.ndarray) -> Mixture:
        """Return the mixture a step from `here`, both [names].

        Who is in and would fall below its least weight leaves; who is not may grow from there.
        """
        least, most = np.array(self._space.lower), np.array(self._space.upper)
        floor = np.array(
            [
                low if name in self._space.required else 0.0
                for name, low in zip(self._space.names, least, strict=True)
            ]
        )
        base = np.maximum(here, least)
        over = slope - _level(slope, base, least, most)
        moves = _may_move(over, base, least, most)
        rate = self._step / max(float(np.abs(over[moves]).max(initial=0.0)), 1e-12)
        wanted = base * np.exp(np.clip(-rate * over, -FARTHEST, FARTHEST))
        reached = rescale(wanted, floor, most)
        return self._space.in_ratio(np.where((reached <= least) & (floor == 0), 0.0, reached))


def _level(slope: np.ndarray, weights: np.ndarray, least: np.ndarray, most: np.ndarray) -> float:
    """Return the slope at which a weight is neither raised nor lowered, all arrays [names].

    It is the mean over the weights that may move, found by leaving out those that a bound holds.
    """
    level = float(np.average(slope, weights=weights))
    for _ in slope:
        moves = _may_move(slope - level, weights, least, most)
        found = float(np.average(slope[moves], weights=weights[moves])) if moves.any() else level
        if found == level:
            break
        level = found
    return level


def _may_move(
    over: np.ndarray, weights: np.ndarray, least: np.ndarray, most: np.ndarray
) -> np.ndarray:
    """Return which weights no bound holds, `over` being their slopes above the level."""
    at_least, at_most = weights <= least + SLACK, weights >= most - SLACK
    return ~((at_least & (over >= 0)) | (at_most & (over <= 0)))


def descents_at_once(trials: int) -> int:
    """Return how many descents take turns in a search of so many trials."""
    return max(1, min(MOST_AT_ONCE, trials // TRIALS_EACH))
