"""Groups of partitions: a search over hundreds goes over groups first, then inside the best ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from ablate.errors import StudyError, did_you_mean
from ablate.search.spaces.simplex import SimplexSpace
from ablate.search.spaces.subsets import SubsetSpace
from ablate.study import SpaceSettings

Groups = Mapping[str, tuple[str, ...]]


def partition_groups(
    settings: SpaceSettings, partitions: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Return the partitions of each group of `settings`, sorted; ungrouped ones are groups alone.

    A group names partitions or patterns (`cc-*`). Empty when the study has no groups. Raises
    StudyError when a name is unknown, a partition is in two groups, or a group has a lone
    partition's name.
    """
    if not settings.groups:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    home: dict[str, str] = {}
    for group, patterns in sorted(settings.groups.items()):
        if not patterns:
            raise StudyError(
                f"search.space.groups must name partitions in each group, got none in '{group}'; "
                "name some, or leave it out"
            )
        members = set()
        for pattern in patterns:
            matched = [name for name in partitions if fnmatchcase(name, pattern)]
            if pattern in partitions:  # a plain name, whatever marks it has
                matched = [pattern]
            if not matched:
                raise StudyError(
                    f"search.space.groups must name partitions, got '{pattern}' in '{group}'; "
                    f"{did_you_mean(pattern, partitions)}"
                )
            members |= set(matched)
        for name in sorted(members):
            if name in home:
                raise StudyError(
                    f"search.space.groups must hold a partition once, got '{name}' in "
                    f"'{home[name]}' and '{group}'; take it out of one"
                )
            home[name] = group
        found[group] = tuple(sorted(members))
    for name in sorted(set(partitions) - set(home)):
        if name in found:
            raise StudyError(
                f"search.space.groups must not use the name of a partition outside the group, got "
                f"'{name}'; rename the group"
            )
        found[name] = (name,)
    return dict(sorted(found.items()))


def over_groups(space: SubsetSpace | SimplexSpace, groups: Groups) -> SubsetSpace | SimplexSpace:
    """Return the space of whole groups. Rules that it cannot say are kept when members are named.

    Groups without a partition that may be used are left out. Of a group that is larger than the
    token limit a part may be used, so that its smallest partition decides what fits together.
    """
    usable = {g: kept for g, of in groups.items() if (kept := [n for n in of if n in space.names])}
    tokens = {group: min(space.tokens[name] for name in of) for group, of in usable.items()}
    names = tuple(usable)
    if isinstance(space, SubsetSpace):
        return SubsetSpace(
            include=(),
            free=names,
            units={group: sum(space.units[name] for name in of) for group, of in usable.items()},
            tokens=tokens,
            weighting=space.weighting,
            min_size=1,
            max_size=len(names),
            max_tokens=space.max_tokens,
        )
    upper = dict(zip(space.names, space.upper, strict=True))
    lower = dict(zip(space.names, space.lower, strict=True))
    most = {group: min(1.0, sum(upper[n] for n in of)) for group, of in usable.items()}
    least = {group: min(lower[n] for n in of) for group, of in usable.items()}
    needed = next((k for k in range(1, len(names) + 1) if _reach(most, k) >= 1), len(names))
    return SimplexSpace(
        names=names,
        lower=tuple(min(least[group], most[group]) for group in names),
        upper=tuple(most[group] for group in names),
        required=frozenset(),
        tokens=tokens,
        min_size=needed,
        max_size=len(names),
        max_tokens=None,
    )


def _reach(most: Mapping[str, float], count: int) -> float:
    return sum(sorted(most.values(), reverse=True)[:count]) + 1e-9


def inside_groups(
    space: SubsetSpace | SimplexSpace, names: Collection[str]
) -> SubsetSpace | SimplexSpace:
    """Return the part of a space whose mixtures have only `names` and what it requires."""
    if isinstance(space, SubsetSpace):
        free = tuple(name for name in space.free if name in names)
        most = min(space.max_size, len(free) + len(space.include))
        return replace(space, free=free, max_size=most)
    kept = [n for n in space.names if n in names or n in space.required]
    places = [space.names.index(name) for name in kept]
    return replace(
        space,
        names=tuple(kept),
        lower=tuple(space.lower[place] for place in places),
        upper=tuple(space.upper[place] for place in places),
        max_size=min(space.max_size, len(kept)),
    )


def spread(space: SubsetSpace | SimplexSpace, groups: Groups, group: str) -> np.ndarray:
    """Return a whole group's weights [space.names]: in proportion to trained tokens, in sum one."""
    members = [name for name in groups[group] if name in space.names]
    total = sum(space.tokens[name] for name in members)
    shares = {n: space.tokens[n] / total if total else 1 / len(members) for n in members}
    return np.array([shares.get(name, 0.0) for name in space.names])
