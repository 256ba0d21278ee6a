"""Two stages: rank mixtures by the ensemble of token probabilities, then score the promising.

The first stage costs microseconds a mixture; only what it ranks best is merged and evaluated.
Sources: Mixture of Data Experts (arXiv 2502.15950), MixMin (arXiv 2502.10510).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from ablate.errors import StudyError
from ablate.mixture import Mixture
from ablate.search.algorithms.task import Ensemble, Task
from ablate.search.spaces import Space, SubsetSpace, vector

RANKED = 1 << 14  # mixtures that are ranked at most
DRAWN = 16  # of the mixtures of a larger space, drawn for each trial before the walk
REACH = 0.5  # how far from the ensemble's best mixture half of them are drawn
NEAR = 512  # neighbours of one set that are ranked at most


class EnsembleFirst:
    """Propose mixtures in the order of their ensemble's objective, the best first.

    A small space of subsets is ranked whole. Of a larger space the ensemble's best mixture, others
    near it and random ones are ranked; subsets then go on to their neighbours, from the best of
    those ranked so far, until the best `trials` have no neighbour that was not ranked, or RANKED
    were. Proportions do not: the best of them would crowd around one point.
    """

    lookahead = 1 << 30

    def __init__(self, task: Task) -> None:
        if task.ensemble is None:
            raise StudyError(
                "search.algorithm ensemble-first must have every unit's token likelihoods, got "
                "some missing: a unit could not be scored; see `ablate status`"
            )
        ranked = _Ranked(task.space, task.ensemble, task.trials)
        space = task.space
        if isinstance(space, SubsetSpace) and space.count() <= RANKED:
            ranked.add(map(space.mixture, space))
        else:
            ranked.add(_drawn(task))
        if isinstance(space, SubsetSpace):
            _walk(ranked, task, space)
        self._queue = list(ranked)[::-1]

    def ask(self) -> Mixture | None:
        """Return the next mixture, None after the last."""
        return self._queue.pop() if self._queue else None

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Learn nothing."""


class _Ranked:
    """The best `kept` mixtures of those that were ranked, best first; equals as they came in."""

    def __init__(self, space: Space, ensemble: Ensemble, kept: int) -> None:
        self._space, self._ensemble, self._kept = space, ensemble, kept
        self._seen: set[str] = set()
        self._best: list[tuple[float, Mixture]] = []

    def __len__(self) -> int:
        return len(self._seen)

    def __iter__(self) -> Iterator[Mixture]:
        return iter([mixture for _, mixture in self._best])

    def add(self, mixtures: Iterable[Mixture]) -> None:
        """Rank those that are new, in order, as far as RANKED goes."""
        new = {one.key(): one for one in mixtures if one.key() not in self._seen}
        taken = dict(islice(new.items(), RANKED - len(self)))
        if taken:
            values = self._ensemble(np.stack([vector(self._space, o) for o in taken.values()]))
            self._seen |= taken.keys()
            self._best += zip(map(float, values), taken.values(), strict=True)
            self._best = sorted(self._best, key=lambda found: found[0])[: self._kept]


def _drawn(task: Task) -> Iterator[Mixture]:
    """Yield the ensemble's best mixture, and near and random ones in turn."""
    space, rng = task.space, np.random.default_rng(task.rng_seed)
    best = task.ensemble_best
    if best is not None:
        yield best
    for number in range(1, min(RANKED, DRAWN * task.trials)):
        near = best if number % 2 else None
        drawn = space.sample(rng) if near is None else space.vary(near, rng, REACH)
        if drawn is not None:
            yield drawn


def _walk(ranked: _Ranked, task: Task, space: SubsetSpace) -> None:
    """Rank neighbours of the best until all that are kept have theirs, or RANKED are ranked."""
    rng = np.random.default_rng([task.rng_seed, 1])
    done: set[str] = set()
    while len(ranked) < min(RANKED, space.count()):
        ahead = next((one for one in ranked if one.key() not in done), None)
        if ahead is None:
            return
        done.add(ahead.key())
        ranked.add(_near(ahead, space, rng))


def _near(mixture: Mixture, space: SubsetSpace, rng: np.random.Generator) -> Iterator[Mixture]:
    """Yield the sets one addition, drop or swap away: all of them, or NEAR drawn ones of more."""
    size = len(mixture.partitions)
    if (size + 1) * (len(space.names) - size + 1) <= NEAR:
        yield from map(space.mixture, space.neighbours(mixture.partitions))
    else:
        yield from (space.vary(mixture, rng, 0.0) for _ in range(NEAR))
