"""Mirror descent on the simplex with the exact slope of every weight.

One backward pass at the merged model gives the derivative of the objective with respect to every
mixture weight (`evaluate/slope.py`). Steps are multiplicative, w_k proportional to
w_k exp(-rate g_k) (Kivinen and Warmuth, Exponentiated gradient, 1997; Beck and Teboulle, Mirror
descent, 2003): longer after a success, shorter after a failure, always from the best mixture.
"""

from __future__ import annotations

import numpy as np

from ablate.mixture import Mixture
from ablate.search.algorithms.task import Task, Value
from ablate.search.spaces import SimplexSpace, vector

FIRST_STEP = 1.0  # largest change of a log weight in a first step
GROW, SHRINK = 1.6, 0.35
SMALLEST_STEP, LONGEST_STEP = 1e-3, 20.0
REVIVED = 1e-3  # weight from which a partition that has none may grow again
DRAWS = 64


class Gradient:
    """Descend from the ensemble's best mixture (or everything together), then from random ones."""

    lookahead = 1
    wants_gradient = True

    def __init__(self, task: Task) -> None:
        assert isinstance(task.space, SimplexSpace)  # `search/check.py` refuses any other before
        self._space = task.space
        self._rng = np.random.default_rng(task.rng_seed)
        even = np.full(len(task.space.names), 1 / len(task.space.names))
        self._start: Mixture | None = task.ensemble_best or task.space.nearest(even)
        self._seen: set[str] = set()
        self._best: tuple[Mixture, Value] | None = None
        self._step = FIRST_STEP

    def ask(self) -> Mixture | None:
        """Return the next step's mixture, a new start when steps are too small to matter."""
        if self._start is None:
            stepped = self._stepped()
            if stepped is not None:
                self._seen.add(stepped.key())
                return stepped
            self._start, self._best, self._step = self._drawn(), None, FIRST_STEP
        start, self._start = self._start, None
        if start is not None:
            self._seen.add(start.key())
        return start

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Take a value with its gradient; a failed trial shortens the step."""
        known = isinstance(value, Value) and value.gradient is not None
        if known and isinstance(value, Value) and (self._best is None or value < self._best[1]):
            grown = self._step * (GROW if self._best is not None else 1.0)
            self._step = min(grown, LONGEST_STEP)
            self._best = (mixture, value)
        else:
            self._step *= SHRINK

    def _stepped(self) -> Mixture | None:
        """Return the next mixture downhill of the best, None when none is left to try."""
        while self._best is not None and self._step > SMALLEST_STEP:
            mixture, value = self._best
            slopes = value.gradient or {}
            slope = np.array([slopes.get(name, 0.0) for name in self._space.names])
            slope = slope - slope.mean()
            rate = self._step / max(float(np.abs(slope).max()), 1e-12)
            change = -rate * slope
            lift = np.exp(change - change.max())
            weights = np.maximum(vector(self._space, mixture), REVIVED) * lift
            found = self._space.nearest(weights / weights.sum())
            if found.key() not in self._seen:
                return found
            self._step *= SHRINK
        return None

    def _drawn(self) -> Mixture | None:
        for _ in range(DRAWS):
            mixture = self._space.sample(self._rng)
            if mixture is not None and mixture.key() not in self._seen:
                return mixture
        return None
