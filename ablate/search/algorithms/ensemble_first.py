"""Two stages: rank mixtures by the ensemble of token probabilities, then score the promising.

The first stage costs microseconds a mixture; only what it ranks best is merged and evaluated.
Sources: Mixture of Data Experts (arXiv 2502.15950), MixMin (arXiv 2502.10510).
"""

from __future__ import annotations

import numpy as np

from ablate.errors import StudyError
from ablate.mixture import Mixture
from ablate.search.algorithms.task import Task
from ablate.search.spaces import SubsetSpace, vector

RANKED = 1 << 14  # mixtures that are ranked at most
REACH = 0.5  # how far from the ensemble's best mixture the others are drawn


class EnsembleFirst:
    """Propose mixtures in the order of their ensemble's objective, the best first."""

    lookahead = 1 << 30

    def __init__(self, task: Task) -> None:
        if task.ensemble is None:
            raise StudyError(
                "search.algorithm ensemble-first must have every unit's token likelihoods, got "
                "some missing: a unit could not be scored; see `ablate status`"
            )
        mixtures = _mixtures(task)
        values = task.ensemble(np.stack([vector(task.space, mixture) for mixture in mixtures]))
        order = np.argsort(values, kind="stable")[: task.trials]
        self._queue = [mixtures[place] for place in order[::-1]]

    def ask(self) -> Mixture | None:
        """Return the next mixture, None after the last."""
        return self._queue.pop() if self._queue else None

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Learn nothing."""


def _mixtures(task: Task) -> list[Mixture]:
    """Return the mixtures to rank: all that fit, else the ensemble's best, near and random ones."""
    space, rng = task.space, np.random.default_rng(task.rng_seed)
    if isinstance(space, SubsetSpace) and space.count() <= RANKED:
        return [space.mixture(members) for members in space]
    found: dict[str, Mixture] = {}
    best = task.ensemble_best
    for number in range(min(RANKED, 16 * task.trials)):
        near = best is not None and number % 2 == 1
        drawn = space.vary(best, rng, REACH) if near and best is not None else space.sample(rng)
        if number == 0 and best is not None:
            drawn = best
        if drawn is not None:
            found.setdefault(drawn.key(), drawn)
    return list(found.values())
