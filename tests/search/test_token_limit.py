"""Sets under a token limit: counted, listed and drawn as by trying them all."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.search.algorithms import ALGORITHMS, Task
from ablate.search.spaces import subset_space
from ablate.search.spaces.token_limit import TokenLimit
from ablate.study import SpaceSettings

COST = st.one_of(st.integers(0, 5), st.integers(0, 10**8))


@given(
    costs=st.lists(COST, min_size=1, max_size=8),
    share=st.floats(-0.1, 1.1),
    least=st.integers(0, 3),
    most=st.integers(0, 8),
    seed=st.integers(0, 9),
)
@settings(max_examples=150, deadline=None)
def test_it_is_what_trying_every_set_gives(
    costs: list[int], share: float, least: int, most: int, seed: int
) -> None:
    limit = int(share * sum(costs))
    found = TokenLimit(costs=tuple(costs), limit=limit, least=least, most=min(most, len(costs)))
    every = [
        places
        for size in range(least, min(most, len(costs)) + 1)
        for places in combinations(range(len(costs)), size)
        if sum(costs[i] for i in places) <= limit
    ]
    assert list(found) == every
    assert found.count == len(every)
    assert found.total_cost == sum(costs[i] for places in every for i in places)
    drawn = found.draw(np.random.default_rng(seed))
    assert drawn in every if every else drawn is None


@pytest.mark.parametrize("unit", [1, 1_234_567])
def test_draws_are_uniform(unit: int) -> None:
    costs = tuple(unit * cost + (unit > 1) * cost for cost in (3, 1, 4, 1, 5))
    found = TokenLimit(costs=costs, limit=6 * unit + 9, least=1, most=5)
    rng = np.random.default_rng(0)
    counts = Counter(found.draw(rng) for _ in range(200 * found.count))
    assert set(counts) == set(found) and 120 < min(counts.values()) < max(counts.values()) < 290


def test_a_tight_limit_over_many_partitions_takes_no_walk_through_all_sets() -> None:
    names = [f"p{i:03}" for i in range(100)]
    space = subset_space(
        SpaceSettings(max_tokens=20), dict.fromkeys(names, 1), dict.fromkeys(names, 10), "micro"
    )
    assert space.count() == len(list(space)) == 100 + 100 * 99 // 2
    for algorithm in ("exhaustive", "random", "surrogate", "tpe"):
        built = ALGORITHMS[algorithm](Task(space=space, rng_seed=0, trials=40))
        mixture = built.ask()
        assert mixture is not None and mixture in space
    wide = subset_space(
        SpaceSettings(max_tokens=200), dict.fromkeys(names, 1), {n: 9 + i for i, n in enumerate(names)},
        "macro",
    )  # fmt: skip
    sampled = [wide.sample(np.random.default_rng(i)) for i in range(20)]
    assert all(mixture in wide for mixture in sampled)
