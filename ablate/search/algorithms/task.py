"""What an algorithm is, what it is built from, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ablate.mixture import Mixture
from ablate.search.spaces import Space, SubsetSpace

Ensemble = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A search to be done.

    `trials` is the most mixtures that will be scored, `goals` the number of objectives,
    `predictor` what the surrogate fits: a name of `PREDICTORS`, or auto.
    `ensemble(weights [m, names])` returns the objective of the output-space proxy [m], nats per
    token, where the pool's token likelihoods are at hand; `ensemble_best` is its best mixture.
    """

    space: Space
    rng_seed: int
    trials: int
    predictor: str = "pairwise"
    goals: int = 1
    ensemble: Ensemble | None = None
    ensemble_best: Mixture | None = None


class Algorithm(Protocol):
    """What proposes mixtures and learns from their values."""

    lookahead: int
    """How many proposals may be open at once: fixed, so that no timing changes a search."""

    def ask(self) -> Mixture | None:
        """Return the next mixture; None = waiting for values, or done when none is open."""
        ...

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Take a value (smaller is better), or None for a trial that failed.

        The value is a `Value` when more is known of it: several goals, a gradient.
        """
        ...


class Value(float):
    """The objective of a mixture: a number, smaller is better, and what else is known of it.

    `goals` are the values of several objectives, where the study has them; `gradient[partition]`
    the derivative of the objective with respect to that partition's weight, where it was asked
    for, up to a constant that is the same for all partitions (weights sum to one).
    """

    goals: tuple[float, ...]
    gradient: Mapping[str, float] | None

    def __new__(
        cls,
        value: float,
        goals: tuple[float, ...] = (),
        gradient: Mapping[str, float] | None = None,
    ) -> Value:
        """Return `value` with its company."""
        made = super().__new__(cls, value)
        made.goals = goals or (float(value),)
        made.gradient = gradient
        return made


def subsets_of(task: Task) -> SubsetSpace:
    """Return the task's space of subsets; `search/check.py` refuses any other before."""
    assert isinstance(task.space, SubsetSpace)
    return task.space


def is_covered(space: Space, proposed: int) -> bool:
    """Return whether so many distinct proposals are the whole space."""
    count = space.count()
    return count is not None and proposed >= count
