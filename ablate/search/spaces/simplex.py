"""The simplex: every mixture of proportions that keeps bounds, sizes and token limits.

A proportion is either zero or between its lower and upper bound, so the space is a union of
simplices with bounds, one for every member set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablate.errors import StudyError
from ablate.mixture import Mixture
from ablate.search.spaces.partitions import Partitions
from ablate.search.spaces.projection import project, rescale
from ablate.study import SpaceSettings

Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Weights, their lower and their upper bounds, to weights within them of sum one, all [members]."""

SLACK = 1e-9  # rounding that a sum or a bound may have


@dataclass(frozen=True, kw_only=True)
class SimplexSpace:
    """Proportions over `names`; a member's lies in [lower, upper], others are zero.

    `required` are the members that every mixture has. `tokens[partition]` are the trained tokens
    behind a partition, limited in sum over the members by `max_tokens`.
    """

    names: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    required: frozenset[str]
    tokens: Mapping[str, int]
    min_size: int
    max_size: int
    max_tokens: int | None

    def __contains__(self, mixture: object) -> bool:
        """Return whether a mixture keeps every rule."""
        if not isinstance(mixture, Mixture) or not set(mixture.partitions) <= set(self.names):
            return False
        bounds = dict(zip(self.names, zip(self.lower, self.upper, strict=True), strict=True))
        return (
            self.required <= set(mixture.partitions)
            and self.min_size <= mixture.size <= self.max_size
            and self._cost(mixture.partitions) <= self._limit
            and all(
                bounds[name][0] - SLACK <= weight <= bounds[name][1] + SLACK
                for name, weight in mixture.weights
            )
        )

    def count(self) -> None:
        """Return None: a continuum."""
        return None

    def total_tokens(self) -> None:
        """Return None: a continuum."""
        return None

    def sample(self, rng: np.random.Generator) -> Mixture | None:
        """Return a mixture: a random legal size and member set, then Dirichlet(1) proportions."""
        size = int(rng.integers(self.min_size, self.max_size + 1))
        order = [self.names[i] for i in rng.permutation(len(self.names))]
        members = self._members(order, size)
        if members is None:
            return None
        return self._on(
            members,
            dict(zip(members, rng.dirichlet(np.ones(len(members))), strict=True)),
            project,
        )

    def nearest(self, weights: np.ndarray) -> Mixture:
        """Return a legal mixture near `weights`: its members, then the nearest point over them.

        The members are those whose weight reaches half their lower bound, the heaviest first, as
        sizes and limits allow.
        """
        wanted = dict(zip(self.names, map(float, weights), strict=True))
        return self._on(self._chosen(wanted), wanted, project)

    def in_ratio(self, weights: np.ndarray) -> Mixture:
        """Return a legal mixture with the members of `nearest`, in the ratios of `weights`.

        Bounds hold some back; the others keep their ratios, where `nearest` keeps differences.
        """
        wanted = dict(zip(self.names, map(float, weights), strict=True))
        return self._on(self._chosen(wanted), wanted, rescale)

    @property
    def _safe_order(self) -> list[str]:
        """Return the partitions by upper bound: the order in which `_require_room` found a set."""
        upper = dict(zip(self.names, self.upper, strict=True))
        return sorted(self.names, key=lambda name: (-upper[name], name))

    def vary(self, mixture: Mixture, rng: np.random.Generator, reach: float) -> Mixture:
        """Return a legal mixture near another: a step to a random one, or a new member set."""
        here = dict(mixture.weights)
        there = self.sample(rng)
        step = reach * float(rng.random())
        other = {} if there is None else dict(there.weights)
        return self.nearest(
            np.array([(1 - step) * here.get(n, 0.0) + step * other.get(n, 0.0) for n in self.names])
        )

    def _on(self, members: Sequence[str], wanted: Mapping[str, float], onto: Fit) -> Mixture:
        """Return the legal proportions on a member set that `onto` finds near those wanted."""
        ordered = sorted(members)
        target = np.array([wanted.get(name, 0.0) for name in ordered])
        total = target.sum()
        target = target / total if total > 0 else np.full(len(ordered), 1 / len(ordered))
        place = {name: number for number, name in enumerate(self.names)}
        places = [place[name] for name in ordered]
        found = onto(target, np.array(self.lower)[places], np.array(self.upper)[places])
        return Mixture.of(dict(zip(ordered, found.tolist(), strict=True)))

    def _chosen(self, wanted: Mapping[str, float]) -> tuple[str, ...]:
        """Return the members of the legal mixture that is near `wanted`."""
        least = dict(zip(self.names, self.lower, strict=True))
        order = sorted(self.names, key=lambda name: (-wanted[name], name))
        size = sum(wanted[name] > 0 and wanted[name] >= least[name] / 2 for name in self.names)
        members = self._members(order, size) or self._members(self._safe_order, size)
        if members is None:
            raise StudyError("search.space must hold a mixture; loosen its rules")
        return members

    def _members(self, order: Sequence[str], size: int) -> tuple[str, ...] | None:
        """Return a legal member set of about `size`, taken from the front of `order`.

        Members are added until the size is reached and their upper bounds hold a whole, and left
        out where limits forbid them. Without a token limit the first ones that fit are legal;
        None where limits on tokens and bounds together lead this order astray.
        """
        free = [name for name in order if name not in self.required]
        for target in self._targets(size):
            members = self._take(free, target)
            if members is not None:
                return members
        return None

    def _targets(self, size: int) -> list[int]:
        """Return the legal sizes, the nearest to `size` first."""
        legal = range(self.min_size, self.max_size + 1)
        return sorted(legal, key=lambda number: (abs(number - size), number))

    def _take(self, free: Sequence[str], size: int) -> tuple[str, ...] | None:
        members = sorted(self.required)
        rest = list(free)
        while len(members) < size and rest:
            name = rest.pop(0)
            missing = size - len(members) - 1
            if self._completes([*members, name], rest, missing):
                members.append(name)
        if len(members) != size or not self._holds(members):
            return None
        return tuple(sorted(members))

    def _completes(self, members: Sequence[str], rest: Sequence[str], missing: int) -> bool:
        """Return whether `missing` more of `rest` could make a legal set, each rule by itself."""
        bounds = dict(zip(self.names, zip(self.lower, self.upper, strict=True), strict=True))
        costs = sorted(self.tokens[name] for name in rest)[:missing]
        lows = sorted(bounds[name][0] for name in rest)[:missing]
        highs = sorted((bounds[name][1] for name in rest), reverse=True)[:missing]
        return (
            len(costs) == missing
            and self._cost(members) + sum(costs) <= self._limit
            and math.fsum([*(bounds[n][0] for n in members), *lows]) <= 1 + SLACK
            and math.fsum([*(bounds[n][1] for n in members), *highs]) >= 1 - SLACK
        )

    def _holds(self, members: Sequence[str]) -> bool:
        return self._completes(members, (), 0)

    def _cost(self, members: Sequence[str]) -> int:
        return sum(self.tokens[name] for name in members)

    @property
    def _limit(self) -> float:
        return math.inf if self.max_tokens is None else self.max_tokens


def simplex_space(settings: SpaceSettings, partitions: Partitions) -> SimplexSpace:
    """Return the space of proportions that `settings` describe.

    The upper bound of a partition is also what its text allows: available tokens x max_epochs /
    target_tokens. Raises StudyError for rules that no mixture keeps.
    """
    allowed = sorted(n for n in partitions.tokens if n not in settings.exclude)
    required = set(settings.include) | {n for n, (low, _) in settings.bounds.items() if low > 0}
    bounds = {name: _bounds(name, settings, partitions) for name in allowed}
    _require_bounds(required, bounds)
    names = tuple(name for name in allowed if _is_open(bounds[name]))
    space = SimplexSpace(
        names=names,
        lower=tuple(bounds[name][0] for name in names),
        upper=tuple(bounds[name][1] for name in names),
        required=frozenset(required),
        tokens=dict(partitions.tokens),
        min_size=max(settings.min_size, len(required), 1),
        max_size=min(settings.max_size or len(names), len(names)),
        max_tokens=settings.max_tokens,
    )
    _require_room(space, settings, bounds)
    return space


def _bounds(name: str, settings: SpaceSettings, partitions: Partitions) -> tuple[float, float]:
    low, high = settings.bounds.get(name, (0.0, 1.0))
    if settings.target_tokens is not None:
        available = settings.available.get(name, partitions.available.get(name, 0))
        high = min(high, available * settings.max_epochs / settings.target_tokens)
    return max(low, settings.min_weight), high


def _is_open(bound: tuple[float, float]) -> bool:
    return bound[0] <= bound[1] + SLACK


def _require_bounds(required: set[str], bounds: Mapping[str, tuple[float, float]]) -> None:
    """Raise StudyError when a partition that every mixture must have can have no proportion."""
    for name in sorted(required):
        if name not in bounds:
            raise StudyError(
                f"search.space.exclude must not name a partition that bounds require, got '{name}'; "
                "lower its bound to 0, or leave it in"
            )
        if not _is_open(bounds[name]):
            raise StudyError(
                f"search.space must leave room between bounds for '{name}', got at least "
                f"{bounds[name][0]:g} and at most {bounds[name][1]:g}; lower bounds or min_weight, "
                "raise max_epochs, or lower target_tokens"
            )


def _require_room(
    space: SimplexSpace, settings: SpaceSettings, bounds: Mapping[str, tuple[float, float]]
) -> None:
    """Raise StudyError, naming the rule, when no mixture keeps them all."""
    room = sum(sorted((bounds[name][1] for name in space.names), reverse=True)[: space.max_size])
    if room < 1 - SLACK:
        raise StudyError(
            f"search.space upper bounds must add up to at least 1 over {space.max_size} partitions, "
            f"got {room:.4g}; raise bounds, max_size or max_epochs, or lower target_tokens"
        )
    if space.min_size > space.max_size:
        raise StudyError(
            f"search.space.max_size must hold min_size and the required partitions, got "
            f"{space.max_size} < {space.min_size}; raise it"
        )
    try:
        space.nearest(np.array([bounds[name][1] for name in space.names]))
    except StudyError as error:
        budget = "" if settings.max_tokens is None else f"max_tokens {settings.max_tokens:,}, "
        raise StudyError(
            "search.space must hold a mixture, got rules that no mixture keeps together (sizes "
            f"{space.min_size} to {space.max_size}, {budget}bounds, min_weight); loosen one"
        ) from error
