"""Every member set, smaller ones first."""

from __future__ import annotations

from ablate.mixture import Mixture
from ablate.search.algorithms.task import Task, subsets_of


class Exhaustive:
    """Propose the whole space in its own order."""

    lookahead = 1 << 30

    def __init__(self, task: Task) -> None:
        space = subsets_of(task)
        self._mixtures = map(space.mixture, space)

    def ask(self) -> Mixture | None:
        """Return the next mixture, None after the last."""
        return next(self._mixtures, None)

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Learn nothing."""
