"""Distinct mixtures drawn at random: the baseline of every other algorithm.

Subsets are uniform over the space; on the simplex the size is uniform over the legal ones, the
members too, and proportions are Dirichlet(1).
"""

from __future__ import annotations

import numpy as np

from ablate.mixture import Mixture
from ablate.search.algorithms.task import Task
from ablate.search.spaces import SubsetSpace

ENUMERATED_BELOW = 1 << 16
REPEATS = 1000


class Random:
    """Propose distinct mixtures in a seeded random order."""

    lookahead = 1 << 30

    def __init__(self, task: Task) -> None:
        self._space = task.space
        self._rng = np.random.default_rng(task.rng_seed)
        self._seen: set[str] = set()
        self._order: list[Mixture] | None = None
        if isinstance(task.space, SubsetSpace) and task.space.count() <= ENUMERATED_BELOW:
            every = list(task.space)
            order = self._rng.permutation(len(every))[::-1]
            self._order = [task.space.mixture(every[i]) for i in order]

    def ask(self) -> Mixture | None:
        """Return a mixture not yet proposed, None when there is none."""
        if self._order is not None:
            return self._order.pop() if self._order else None
        for _ in range(REPEATS):
            mixture = self._space.sample(self._rng)
            if mixture is not None and mixture.key() not in self._seen:
                self._seen.add(mixture.key())
                return mixture
        return None

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Learn nothing."""
