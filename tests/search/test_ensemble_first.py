"""The two-stage search over spaces too large to rank whole."""

from __future__ import annotations

import numpy as np
import pytest

from ablate.search.algorithms.ensemble_first import RANKED, EnsembleFirst
from ablate.search.algorithms.task import Task
from ablate.search.spaces import SubsetSpace, vector
from ablate.search.spaces.subsets import subset_space
from ablate.study import SpaceSettings


def large_space(max_size: int, names: int = 30) -> SubsetSpace:
    units = {f"p{n:03}": 1 for n in range(names)}
    return subset_space(SpaceSettings(max_size=max_size), units, units, "macro")


class Landscape:
    """An ensemble's objective: -log of averaged probabilities; counts what it is asked."""

    def __init__(self, names: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        shown = rng.normal(size=(names, 3)) @ rng.normal(size=(3, 200))
        self.probabilities = np.exp(-np.abs(shown + rng.normal(size=shown.shape)))
        self.asked = 0

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        self.asked += len(weights)
        return -np.log(weights @ self.probabilities).mean(axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_ensemble_first_finds_the_best_sets_of_a_space_too_large_to_rank(seed: int) -> None:
    where, landscape = large_space(4), Landscape(30, seed)
    every = [where.mixture(members) for members in where]
    values = landscape(np.stack([vector(where, one) for one in every]))
    assert len(every) == where.count() > RANKED
    best = [every[place].key() for place in np.argsort(values)[:20]]
    landscape.asked = 0
    searched = EnsembleFirst(Task(space=where, rng_seed=1, trials=20, ensemble=landscape))
    found = [mixture.key() for _ in range(20) if (mixture := searched.ask())]
    print(f"ranked {landscape.asked:,} of {len(every):,}")
    assert found == best and landscape.asked <= RANKED and searched.ask() is None


def test_ensemble_first_ranks_a_bounded_number_where_sets_have_thousands_of_neighbours() -> None:
    where, landscape = large_space(120, names=120), Landscape(120, 0)
    start = where.sample(np.random.default_rng(0))
    assert start is not None
    made = Task(space=where, rng_seed=1, trials=50, ensemble=landscape, ensemble_best=start)
    first = EnsembleFirst(made).ask()
    assert first is not None and where.legal(first.partitions) and landscape.asked <= RANKED
    begun, ended = landscape(np.stack([vector(where, one) for one in (start, first)]))
    assert ended < begun - 0.05
