"""Hierarchical search: groups first, then inside the best ones, for hundreds of partitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conversing import converse

from ablate.errors import StudyError
from ablate.mixture import Mixture
from ablate.search.algorithms import ALGORITHMS, Task, Value
from ablate.search.algorithms.by_groups import ByGroups
from ablate.search.conversation import Conversation
from ablate.search.spaces import Partitions, Space, make_space
from ablate.search.spaces.groups import partition_groups
from ablate.study import SpaceSettings

NAMES = tuple(f"{group}-{number}" for group in "abcde" for number in range(4))
UNITS = {name: 1 + place % 3 for place, name in enumerate(NAMES)}
TOKENS = {name: 100 * UNITS[name] for name in NAMES}
GROUPS: dict[str, Any] = {group: (f"{group}-*",) for group in "abcd"}
RULES = [
    SpaceSettings(groups=GROUPS),
    SpaceSettings(groups=GROUPS, include=("e-0",), exclude=("a-1",), min_size=2, max_size=6),
    SpaceSettings(groups=GROUPS, max_tokens=900),
    SpaceSettings(groups=GROUPS, kind="simplex"),
    SpaceSettings(
        groups=GROUPS, kind="simplex", bounds={"a-0": (0.1, 0.3)}, max_size=5, min_weight=0.02
    ),
]


def space(rules: SpaceSettings, weighting: str = "micro") -> Space:
    return make_space(rules, Partitions(units=UNITS, tokens=TOKENS, available=TOKENS), weighting)


def value(mixture: Mixture) -> Value:
    """Groups b and d help, and inside them the even partitions; a whole is better than a part."""
    slope = {
        n: (-1.0 if n[0] in "bd" else 1.0) + (-0.3 if int(n[-1]) % 2 == 0 else 0.3) for n in NAMES
    }
    weights = dict(mixture.weights)
    even = sum(weight**2 for weight in weights.values())
    total = sum(slope[n] * w for n, w in weights.items()) + 0.2 * even
    return Value(total, gradient={n: slope[n] + 0.4 * weights.get(n, 0.0) for n in NAMES})


def proposed(name: str, rules: SpaceSettings, workers: int, order: int) -> tuple[Mixture, ...]:
    made = space(rules)
    task = Task(
        space=made,
        rng_seed=3,
        trials=40,
        ensemble=lambda weights: (
            weights @ np.array([float(value(Mixture.of({n: 1.0}))) for n in made.names])
        ),
    )
    algorithm = ByGroups(task, partition_groups(rules, NAMES), ALGORITHMS[name])
    talk = Conversation(algorithm, 40)
    return converse(talk, value, workers, order)


CASES = [
    (name, rules)
    for name in ("random", "greedy-forward-swaps", "tpe", "surrogate", "gradient", "ensemble-first")
    for rules in RULES
    if not (name == "gradient" and rules.kind == "subsets")
    and not (name == "surrogate" and rules.kind == "simplex")  # a second a proposal
    and not (name.startswith("greedy") and rules.kind == "simplex")
]


@pytest.mark.parametrize(("name", "rules"), CASES)
def test_proposals_are_legal_distinct_blind_to_timing_and_end_inside_the_best_groups(
    name: str, rules: SpaceSettings
) -> None:
    first = proposed(name, rules, workers=1, order=0)
    assert all(mixture in space(rules) for mixture in first)
    assert len({mixture.key() for mixture in first}) == len(first)
    assert proposed(name, rules, workers=3, order=1) == first
    if name not in ("random", "tpe"):
        best = min(first, key=value)
        helped = sum(weight for n, weight in best.weights if n[0] in "bd")
        assert helped > 0.6


def test_hundreds_of_partitions_are_searched_in_eighty_trials() -> None:
    names = tuple(f"{group:02d}-{number:02d}" for group in range(15) for number in range(20))
    units = dict.fromkeys(names, 1)
    rules = SpaceSettings(groups={f"g{group:02d}": (f"{group:02d}-*",) for group in range(15)})
    rng = np.random.default_rng(0)
    of_group = dict(zip(range(15), rng.normal(0, 1, 15), strict=True))
    worth = {n: of_group[int(n[:2])] + 0.3 * rng.normal() for n in names}
    made = make_space(rules, Partitions(units=units, tokens=units, available=units), "macro")

    def loss(mixture: Mixture) -> float:
        return sum(worth[n] * w for n, w in mixture.weights) + 3 / (3 + mixture.size)

    task = Task(space=made, rng_seed=0, trials=80)
    talk = Conversation(ByGroups(task, partition_groups(rules, names), ALGORITHMS["surrogate"]), 80)
    found = []
    while isinstance(step := talk.next(), Mixture):
        found.append(loss(step))
        talk.result(step, found[-1])
    best_group = min(of_group, key=lambda group: of_group[group])
    alone = loss(Mixture.uniform([n for n in names if int(n[:2]) == best_group]))
    flat = [loss(m) for _ in range(100) if (m := made.sample(rng)) is not None]
    assert len(found) == 80
    assert min(found) <= alone < min(flat)


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ({"web": ()}, "got none in 'web'"),
        ({"a": ("q-*",)}, "'q-\\*' in 'a'"),
        ({"x": ("a-0",), "y": ("a-*",)}, "'a-0' in 'x' and 'y'"),
        ({"e-0": ("a-*",)}, "rename the group"),
    ],
)
def test_impossible_groups_are_one_line(groups: dict[str, tuple[str, ...]], told: str) -> None:
    with pytest.raises(StudyError, match=told):
        space(SpaceSettings(groups=groups))


@pytest.mark.parametrize("name", ["random", "greedy-forward", "tpe", "surrogate"])
def test_winners_that_are_too_small_alone_leave_something_to_search_inside(name: str) -> None:
    rules = SpaceSettings(groups={"web": ("a", "b", "c")}, min_size=2)
    ones = dict.fromkeys("abcdef", 1)
    made = make_space(rules, Partitions(units=ones, tokens=ones, available=ones), "macro")
    groups = partition_groups(rules, "abcdef")
    talk = Conversation(
        ByGroups(Task(space=made, rng_seed=0, trials=40), groups, ALGORITHMS[name]), 40
    )
    found = converse(talk, lambda mixture: -dict(mixture.weights).get("d", 0.0), workers=1, order=0)
    assert all(mixture in made for mixture in found)
    assert dict(min(found, key=lambda m: -dict(m.weights).get("d", 0.0)).weights)["d"] == 0.5


@pytest.mark.parametrize("name", ["random", "greedy-forward", "tpe", "surrogate"])
def test_a_group_larger_than_the_token_limit_is_searched_in_part(name: str) -> None:
    web = tuple(f"cc-{number}" for number in range(10))
    tokens = dict.fromkeys([*web, "news", "wiki"], 4)
    rules = SpaceSettings(groups={"web": ("cc-*",)}, max_tokens=20)
    made = make_space(rules, Partitions(units=tokens, tokens=tokens, available=tokens), "macro")
    groups = partition_groups(rules, tokens)
    talk = Conversation(
        ByGroups(Task(space=made, rng_seed=0, trials=30), groups, ALGORITHMS[name]), 30
    )

    def loss(mixture: Mixture) -> float:
        return -sum(weight for n, weight in mixture.weights if n.startswith("cc"))

    found = converse(talk, loss, workers=1, order=0)
    assert all(mixture in made for mixture in found) and min(map(loss, found)) == -1.0
