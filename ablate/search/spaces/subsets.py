"""The space of subsets: which sets of partitions may be proposed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from ablate.errors import StudyError
from ablate.mixture import Mixture, member_mixture
from ablate.search.spaces.token_limit import TokenLimit, cheapest_sums
from ablate.study import SpaceSettings

VARY_TRIES = 32


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
        for added in self.added_sizes:
            limited = self._limited
            every = (
                limited.of_size(added) if limited else combinations(range(len(self.free)), added)
            )
            yield from map(self._members, every)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the partitions that a mixture may have, sorted."""
        return tuple(sorted(self.include + self.free))

    def __contains__(self, mixture: object) -> bool:
        """Return whether a mixture has a legal member set, with that set's weights."""
        if not isinstance(mixture, Mixture) or not self.legal(mixture.partitions):
            return False
        return self.mixture(mixture.partitions).key() == mixture.key()

    def legal(self, members: tuple[str, ...]) -> bool:
        """Return whether a member set keeps every rule."""
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
        """Return the number of member sets; beyond 2^53 under a token limit, a near estimate."""
        if self._limited is not None:
            return self._limited.count
        return sum(math.comb(len(self.free), added) for added in self.added_sizes)

    def total_tokens(self) -> int:
        """Return the trained tokens of all member sets together: the cost of the naive way."""
        always = self.count() * sum(self.tokens[name] for name in self.include)
        if self._limited is not None:
            return always + self._limited.total_cost
        # A free partition is in comb(n - 1, k - 1) of the sets that add k of n.
        n, free = len(self.free), sum(self.tokens[name] for name in self.free)
        return always + free * sum(math.comb(n - 1, k - 1) for k in self.added_sizes if k)

    def sample(self, rng: np.random.Generator) -> Mixture | None:
        """Return a mixture, uniform over the member sets; None when none was found."""
        members = self._sample(rng)
        return None if members is None else self.mixture(members)

    def nearest(self, weights: np.ndarray) -> Mixture:
        """Return the legal subset, of the largest weights first, that lies nearest to `weights`.

        Partitions are taken in the order of weight per share (of its unit count under micro
        weighting), those that would break the token limit left out; among all sizes the subset
        with the smallest Euclidean distance is returned.
        """
        order = self._by_weight(weights)
        cheapest = cheapest_sums([self.tokens[name] for name in order])
        held = tuple(n for n, w in zip(self.names, weights, strict=True) if w > 0)
        if self.legal(held) and self._distance(self.mixture(held), weights) < 1e-15:
            return self.mixture(held)
        best: tuple[float, Mixture] | None = None
        for added in self.added_sizes:
            members = self._first_legal(order, cheapest, len(self.include) + added)
            if members is None:
                continue
            mixture = self.mixture(members)
            distance = self._distance(mixture, weights)
            if best is None or distance < best[0] - 1e-15:
                best = (distance, mixture)
        if best is None:
            raise StudyError("search.space must hold a mixture; loosen its rules")
        return best[1]

    def _distance(self, mixture: Mixture, weights: np.ndarray) -> float:
        shares = dict(mixture.weights)
        gaps = [shares.get(n, 0.0) - float(w) for n, w in zip(self.names, weights, strict=True)]
        return math.fsum(gap * gap for gap in gaps)

    def vary(self, mixture: Mixture, rng: np.random.Generator, reach: float) -> Mixture:
        """Return a legal subset a few additions, drops and swaps away; itself when none is found."""
        for _ in range(VARY_TRIES):
            members = set(mixture.partitions)
            for _ in range(1 + int(rng.poisson(reach * len(self.free) / 4))):
                self._move(members, rng)
            found = tuple(sorted(members))
            if found != mixture.partitions and self.legal(found):
                return self.mixture(found)
        return mixture

    def neighbours(self, members: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Return the legal sets one addition, drop or swap away, sorted."""
        inside = [name for name in members if name not in self.include]
        outside = [name for name in self.free if name not in members]
        found = [(*members, name) for name in outside]
        found += [tuple(n for n in members if n != name) for name in inside]
        found += [(*(n for n in members if n != out), new) for out in inside for new in outside]
        return sorted({tuple(sorted(item)) for item in found if self.legal(tuple(item))})

    def _move(self, members: set[str], rng: np.random.Generator) -> None:
        inside = sorted(members & set(self.free))
        outside = sorted(set(self.free) - members)
        kind = int(rng.integers(3))  # 0 adds, 1 drops, 2 swaps
        if kind != 0 and inside:
            members.remove(inside[int(rng.integers(len(inside)))])
        if kind != 1 and outside:
            members.add(outside[int(rng.integers(len(outside)))])

    def _by_weight(self, weights: np.ndarray) -> list[str]:
        """Return the free partitions, those of the largest weight for their share first."""
        heavy = self.weighting == "micro"
        per_share = {
            name: float(weight) / (self.units[name] if heavy else 1)
            for name, weight in zip(self.names, weights, strict=True)
        }
        return sorted(self.free, key=lambda name: (-per_share[name], name))

    def _first_legal(
        self, order: list[str], cheapest: list[list[int]], size: int
    ) -> tuple[str, ...] | None:
        """Return the set of `size` partitions that takes from `order` what the limit allows.

        `cheapest[i][k]` are the tokens of the k smallest partitions of order[i:].
        """
        members, missing = list(self.include), size - len(self.include)
        room = math.inf if self.max_tokens is None else self.max_tokens
        room -= sum(self.tokens[name] for name in members)
        for place, name in enumerate(order):
            if not missing:
                break
            later = cheapest[place + 1]
            if missing <= len(later) and self.tokens[name] + later[missing - 1] <= room:
                members.append(name)
                room -= self.tokens[name]
                missing -= 1
        found = tuple(sorted(members))
        return found if self.legal(found) else None

    def _sample(self, rng: np.random.Generator) -> tuple[str, ...] | None:
        if self._limited is not None:
            places = self._limited.draw(rng)
            return None if places is None else self._members(places)
        sizes, shares = self._size_shares
        added = sizes[int(rng.choice(len(sizes), p=shares))]
        return self._members(rng.choice(len(self.free), size=added, replace=False))

    def _members(self, places: Iterable[int]) -> tuple[str, ...]:
        """Return what every set has and the free partitions at `places`, sorted."""
        return tuple(sorted([*self.include, *(self.free[place] for place in places)]))

    @cached_property
    def _limited(self) -> TokenLimit | None:
        """Return the choice among the free partitions that the token limit leaves; None without."""
        if self.max_tokens is None:
            return None
        added = self._added
        return TokenLimit(
            costs=tuple(self.tokens[name] for name in self.free),
            limit=self.max_tokens - sum(self.tokens[name] for name in self.include),
            least=added.start,
            most=added.stop - 1,
        )

    @cached_property
    def _size_shares(self) -> tuple[list[int], np.ndarray]:
        """Return how many partitions may be added, and the share of the sets that add so many."""
        sizes = list(self.added_sizes)
        chances = np.array([_log_comb(len(self.free), added) for added in sizes])
        shares = np.exp(chances - chances.max())
        return sizes, shares / shares.sum()

    @property
    def added_sizes(self) -> range:
        """Return how many free partitions may join: at least one member in all."""
        return self._added if self._limited is None else self._limited.sizes

    @property
    def _added(self) -> range:
        """Return how many free partitions may join as far as the size limits say."""
        least = max(self.min_size - len(self.include), 0 if self.include else 1)
        return range(least, min(self.max_size - len(self.include), len(self.free)) + 1)

    def _within_budget(self, members: tuple[str, ...]) -> bool:
        return self.max_tokens is None or sum(map(self.tokens.get, members)) <= self.max_tokens  # type: ignore[arg-type]


def _log_comb(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def subset_space(
    settings: SpaceSettings, units: Mapping[str, int], tokens: Mapping[str, int], weighting: str
) -> SubsetSpace:
    """Return the space over partitions with their numbers of units and trained tokens.

    Raises StudyError for rules that no subset keeps.
    """
    _refuse_proportions(settings)
    known = sorted(tokens)
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


def _refuse_proportions(settings: SpaceSettings) -> None:
    """Refuse rules about proportions: a subset's weights follow from its members."""
    given = {"bounds": settings.bounds, "target_tokens": settings.target_tokens}
    for key, value in given.items():
        if value:
            raise StudyError(
                f"search.space.{key} must stand with kind: simplex, got kind: subsets; a subset's "
                "weights follow from its members: set search.space.kind=simplex"
            )


def _why_empty(settings: SpaceSettings, space: SubsetSpace, largest: int) -> str:
    if not largest:
        return "search.space.exclude must leave a partition, got all of them in it; exclude fewer"
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
