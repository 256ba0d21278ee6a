"""The space of subsets: which sets of partitions may be proposed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ablate.errors import StudyError, did_you_mean
from ablate.mixture import Mixture, member_mixture
from ablate.study import SpaceSettings

REJECTION_TRIES = 10_000


@dataclass(frozen=True, kw_only=True)
class SubsetSpace:
    """Subsets of `free` joined with `include`, limited in size and in trained tokens.

    `units[partition]` counts base units, `tokens[partition]` the trained tokens behind them.
    """

    include: tuple[str, ...]
    free: tuple[str, ...]
    units: Mapping[str, int]
    tokens: Mapping[str, int]
    weighting: str
    min_size: int
    max_size: int
    max_tokens: int | None

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        """Yield every member set, smaller ones first, then in alphabetical order."""
        for added in self._added_sizes():
            for extra in combinations(self.free, added):
                members = tuple(sorted(self.include + extra))
                if self._within_budget(members):
                    yield members

    def __contains__(self, members: object) -> bool:
        """Return whether a tuple of partitions keeps every rule."""
        if not isinstance(members, tuple):
            return False
        chosen = set(members)
        return (
            len(chosen) == len(members)
            and self.min_size <= len(members) <= self.max_size
            and chosen >= set(self.include)
            and chosen <= set(self.include) | set(self.free)
            and self._within_budget(members)
        )

    def mixture(self, members: tuple[str, ...]) -> Mixture:
        """Return the mixture of a member set under the study's weighting."""
        return member_mixture(members, self.units, self.weighting)

    def count(self) -> int:
        """Return the number of member sets, exactly."""
        if self.max_tokens is None:
            return sum(math.comb(len(self.free), added) for added in self._added_sizes())
        return sum(self._tally().values())

    def total_tokens(self) -> int:
        """Return the trained tokens of all member sets together: the cost of the naive way."""
        if self.max_tokens is not None:
            return sum(tokens * number for tokens, number in self._tally().items())
        # A free partition is in comb(n - 1, k - 1) of the sets that add k of n.
        n, free = len(self.free), sum(self.tokens[name] for name in self.free)
        joined = sum(math.comb(n - 1, k - 1) for k in self._added_sizes() if k)
        return self.count() * sum(self.tokens[name] for name in self.include) + joined * free

    def _tally(self) -> dict[int, int]:
        """Return how many sets within the limit have how many tokens (dynamic programming)."""
        limit = self.max_tokens or 0
        spent = sum(self.tokens[name] for name in self.include)
        ways: dict[tuple[int, int], int] = {(0, spent): 1}
        most = max(self._added_sizes(), default=0)
        for name in self.free:
            for (added, total), number in list(ways.items()):
                bigger = (added + 1, total + self.tokens[name])
                if bigger[1] <= limit and bigger[0] <= most:
                    ways[bigger] = ways.get(bigger, 0) + number
        tally: dict[int, int] = {}
        for (added, total), number in ways.items():
            if added in self._added_sizes() and total <= limit:
                tally[total] = tally.get(total, 0) + number
        return tally

    def sample(self, rng: np.random.Generator) -> tuple[str, ...] | None:
        """Return one member set, uniform over the space; None when none was found."""
        sizes = list(self._added_sizes())
        shares = np.array([float(math.comb(len(self.free), added)) for added in sizes])
        for _ in range(REJECTION_TRIES):
            added = sizes[int(rng.choice(len(sizes), p=shares / shares.sum()))]
            extra = rng.choice(len(self.free), size=added, replace=False)
            members = tuple(sorted(self.include + tuple(self.free[i] for i in extra)))
            if self._within_budget(members):
                return members
        return None

    def _added_sizes(self) -> range:
        """Return how many free partitions may join: at least one member in all."""
        least = max(self.min_size - len(self.include), 0 if self.include else 1)
        return range(least, min(self.max_size - len(self.include), len(self.free)) + 1)

    def _within_budget(self, members: tuple[str, ...]) -> bool:
        return self.max_tokens is None or sum(map(self.tokens.get, members)) <= self.max_tokens  # type: ignore[arg-type]


def subset_space(
    settings: SpaceSettings, units: Mapping[str, int], tokens: Mapping[str, int], weighting: str
) -> SubsetSpace:
    """Return the space over partitions with their numbers of units and trained tokens.

    Raises StudyError for unknown names and for rules that no subset keeps.
    """
    known = sorted(tokens)
    for key, names in (("include", settings.include), ("exclude", settings.exclude)):
        for name in names:
            if name not in tokens:
                raise StudyError(
                    f"search.space.{key} must name partitions, got '{name}'; "
                    f"{did_you_mean(name, known)}"
                )
    include = tuple(sorted(set(settings.include)))
    free = tuple(n for n in known if n not in settings.exclude and n not in include)
    largest = len(free) + len(include)
    space = SubsetSpace(
        include=include,
        free=free,
        units=dict(units),
        tokens=dict(tokens),
        weighting=weighting,
        min_size=settings.min_size,
        max_size=min(settings.max_size or largest, largest),
        max_tokens=settings.max_tokens,
    )
    if space.count() == 0:
        raise StudyError(_why_empty(settings, space, largest))
    return space


def _why_empty(settings: SpaceSettings, space: SubsetSpace, largest: int) -> str:
    if settings.min_size > largest:
        return (
            f"search.space.min_size must be at most the {largest} partitions that may be used, "
            f"got {settings.min_size}; lower it or exclude fewer"
        )
    if len(space.include) > space.max_size:
        return (
            f"search.space.max_size must hold the {len(space.include)} included partitions, got "
            f"{settings.max_size}; raise it"
        )
    sizes = sorted(space.tokens[n] for n in space.free)
    missing = max(space.min_size - len(space.include), 0 if space.include else 1)
    least = sum(space.tokens[n] for n in space.include) + sum(sizes[:missing])
    return (
        f"search.space.max_tokens must allow one mixture, got {settings.max_tokens}; the smallest "
        f"one has {least} trained tokens: raise max_tokens"
    )
