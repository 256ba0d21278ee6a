"""Evenly spread mixtures: a scrambled Sobol sequence mapped into the space.

Source: Owen, Scrambling Sobol' and Niederreiter-Xing points, J. Complexity 14, 1998 (scipy's
`qmc.Sobol`). A point u of the cube becomes -log(u), normalised: even points of the cube become
Dirichlet(1) proportions; the nearest legal mixture is proposed.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from ablate.mixture import Mixture
from ablate.search.algorithms.task import Task, is_covered

REPEATS = 256
BATCH = 64
SMALLEST = 1e-12


class Sobol:
    """Propose distinct mixtures of a seeded low-discrepancy sequence."""

    lookahead = 1 << 30

    def __init__(self, task: Task) -> None:
        self._space = task.space
        self._points: list[np.ndarray] = []
        self._engine = qmc.Sobol(len(task.space.names), rng=np.random.default_rng(task.rng_seed))
        self._seen: set[str] = set()

    def ask(self) -> Mixture | None:
        """Return a mixture not yet proposed, None when the sequence brings no new one."""
        if is_covered(self._space, len(self._seen)):
            return None
        for _ in range(REPEATS):
            if not self._points:
                self._points = list(self._engine.random(BATCH)[::-1])
            shares = -np.log(np.maximum(self._points.pop(), SMALLEST))
            mixture = self._space.nearest(shares / shares.sum())
            if mixture.key() not in self._seen:
                self._seen.add(mixture.key())
                return mixture
        return None

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Learn nothing."""
