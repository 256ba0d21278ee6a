"""Distinct member sets, uniform over the space. The baseline of every other algorithm."""

from __future__ import annotations

import numpy as np

from ablate.mixture import Mixture
from ablate.search.space import SubsetSpace

ENUMERATED_BELOW = 1 << 16
REPEATS = 1000


class Random:
    """Propose distinct member sets in a seeded random order."""

    lookahead = 1 << 30

    def __init__(self, space: SubsetSpace, rng_seed: int, trials: int) -> None:
        self._space = space
        self._rng = np.random.default_rng(rng_seed)
        self._seen: set[tuple[str, ...]] = set()
        self._order: list[tuple[str, ...]] | None = None
        if space.count() <= ENUMERATED_BELOW:
            every = list(space)
            self._order = [every[i] for i in self._rng.permutation(len(every))][::-1]

    def ask(self) -> Mixture | None:
        """Return a mixture not yet proposed, None when there is none."""
        members = self._next()
        return None if members is None else self._space.mixture(members)

    def _next(self) -> tuple[str, ...] | None:
        if self._order is not None:
            return self._order.pop() if self._order else None
        for _ in range(REPEATS):
            members = self._space.sample(self._rng)
            if members is not None and members not in self._seen:
                self._seen.add(members)
                return members
        return None

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Learn nothing."""
