"""Greedy searches: add the partition that helps most, or drop the one that is missed least.

Only legal sets are scored. A forward search starts from the included partitions; where the
smallest legal size is larger, it starts from the legal sets of that size when they are few, else
from a seeded sample of them. A backward search starts from the largest set; where the size or
token limit forbids that, from the legal sets of the largest legal size in the same way. The
searches with swaps go on from the best set that was found: its legal additions, drops and swaps
are scored until none is better (a local optimum of that neighbourhood).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np

from ablate.mixture import Mixture
from ablate.search.algorithms.task import Task, subsets_of
from ablate.search.spaces import SubsetSpace

FIRST_ROUND = 64
Members = tuple[str, ...]


class _Rounds:
    """Propose the neighbours of one set, wait for all their values, move to the best of them."""

    lookahead = 1 << 30

    def __init__(
        self,
        space: SubsetSpace,
        start: list[Members],
        step: Callable[[Members], list[Members]],
        swaps: bool,
    ) -> None:
        self._space = space
        self._step = step
        self._swaps = swaps
        self._centre: Members | None = None
        self._queue: list[Members] = []
        self._round: list[Members] = []
        self._values: dict[Members, float] = {}
        self._propose(start)

    def ask(self) -> Mixture | None:
        """Return the next neighbour; None while the round is open, and at the end."""
        if not self._queue and all(m in self._values for m in self._round):
            if self._round:
                best = min(self._round, key=lambda members: (self._values[members], members))
                self._propose(self._step(best))
            if not self._queue and not self._round and self._swaps:
                self._propose_swaps()
        return self._space.mixture(self._queue.pop(0)) if self._queue else None

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Take a value; a failed trial counts as the worst."""
        self._values[mixture.partitions] = math.inf if value is None else value

    def _propose(self, candidates: list[Members]) -> None:
        self._round = [members for members in candidates if self._space.legal(members)]
        self._queue = [members for members in self._round if members not in self._values]
        if self._round and not self._queue:  # all known: go on from the best of them
            best = min(self._round, key=lambda members: (self._values[members], members))
            self._propose(self._step(best))

    def _propose_swaps(self) -> None:
        """Queue the neighbours of the best set so far; nothing when it is a local optimum."""
        best = min(self._values, key=lambda members: (self._values[members], members))
        if best != self._centre:
            self._centre = best
            near = self._space.neighbours(best)
            self._queue = [members for members in near if members not in self._values]


class GreedyForward(_Rounds):
    """Grow one partition at a time up to the largest legal set."""

    swaps = False

    def __init__(self, task: Task) -> None:
        space = subsets_of(task)

        def added(members: Members) -> list[Members]:
            return [tuple(sorted((*members, name))) for name in space.free if name not in members]

        start = _sets_of_size(space, len(space.include) + space.added_sizes[0], task.rng_seed)
        super().__init__(space, start, added, self.swaps)


class GreedyBackward(_Rounds):
    """Shrink one partition at a time down to the smallest legal set."""

    swaps = False

    def __init__(self, task: Task) -> None:
        space = subsets_of(task)

        def dropped(members: Members) -> list[Members]:
            return [
                tuple(n for n in members if n != name)
                for name in members
                if name not in space.include
            ]

        start = _sets_of_size(space, len(space.include) + space.added_sizes[-1], task.rng_seed)
        super().__init__(space, start, dropped, self.swaps)


class GreedyForwardSwaps(GreedyForward):
    """Grow, then add, drop and swap around the best set until nothing is better."""

    swaps = True


class GreedyBackwardSwaps(GreedyBackward):
    """Shrink, then add, drop and swap around the best set until nothing is better."""

    swaps = True


def _sets_of_size(space: SubsetSpace, size: int, rng_seed: int) -> list[Members]:
    """Return the legal sets of one size, or a seeded sample of `FIRST_ROUND` of them.

    The cheapest set is always among them, so a legal size never yields an empty round.
    """
    added = size - len(space.include)
    if math.comb(len(space.free), added) <= max(FIRST_ROUND, len(space.free)):
        every = (tuple(sorted(space.include + extra)) for extra in combinations(space.free, added))
        return [members for members in every if space.legal(members)]
    rng = np.random.default_rng(rng_seed)
    cheapest = sorted(space.free, key=lambda name: (space.tokens[name], name))[:added]
    found = {tuple(sorted((*space.include, *cheapest)))}
    for _ in range(FIRST_ROUND * 20):
        extra = rng.choice(len(space.free), size=added, replace=False)
        members = tuple(sorted((*space.include, *(space.free[i] for i in extra))))
        if space.legal(members):
            found.add(members)
        if len(found) == FIRST_ROUND:
            break
    return sorted(found)
