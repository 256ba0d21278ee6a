"""Spaces: which mixtures may be proposed. One file, one kind; `make_space` builds a study's own."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ablate.mixture import Mixture
from ablate.search.spaces.groups import partition_groups
from ablate.search.spaces.partitions import Partitions, check_names
from ablate.search.spaces.simplex import SimplexSpace, simplex_space
from ablate.search.spaces.subsets import SubsetSpace, subset_space
from ablate.study import SpaceSettings

__all__ = ["Partitions", "SimplexSpace", "Space", "SubsetSpace", "make_space", "subset_space"]


class Space(Protocol):
    """What algorithms know of a space. Weight vectors have one entry per name of `names`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the partitions that a mixture may have, sorted."""
        ...

    def __contains__(self, mixture: object) -> bool:
        """Return whether a mixture keeps every rule."""
        ...

    def count(self) -> int | None:
        """Return the number of mixtures, None for a continuum."""
        ...

    def total_tokens(self) -> int | None:
        """Return the trained tokens of all mixtures together, None for a continuum."""
        ...

    def sample(self, rng: np.random.Generator) -> Mixture | None:
        """Return a random legal mixture; None when none was found."""
        ...

    def nearest(self, weights: np.ndarray) -> Mixture:
        """Return a legal mixture close to non-negative weights [names]; deterministic."""
        ...

    def vary(self, mixture: Mixture, rng: np.random.Generator, reach: float) -> Mixture:
        """Return a legal mixture near another; `reach` in (0, 1] says how far."""
        ...


def make_space(settings: SpaceSettings, partitions: Partitions, weighting: str) -> Space:
    """Return the study's space.

    Raises StudyError for unknown names and for rules that no mixture keeps.
    """
    check_names(settings, partitions)
    partition_groups(settings, partitions.tokens)
    if settings.kind == "subsets":
        return subset_space(settings, partitions.units, partitions.tokens, weighting)
    return simplex_space(settings, partitions)


def vector(space: Space, mixture: Mixture) -> np.ndarray:
    """Return a mixture's weights in the order of the space's names, float64 [names]."""
    weights = dict(mixture.weights)
    return np.array([weights.get(name, 0.0) for name in space.names])
