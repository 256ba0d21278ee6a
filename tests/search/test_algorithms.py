"""One suite of laws over every algorithm, and over the space that they search."""

from __future__ import annotations

import math
import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.errors import StudyError
from ablate.mixture import Mixture
from ablate.search.algorithms import ALGORITHMS
from ablate.search.conversation import Conversation, Pause
from ablate.search.space import SubsetSpace, subset_space
from ablate.study import SpaceSettings

NAMES = "abcdefg"
UNITS = {name: 1 + i % 3 for i, name in enumerate(NAMES)}
TOKENS = {name: 100 * UNITS[name] for name in NAMES}
SPACES = [
    SpaceSettings(),
    SpaceSettings(min_size=2, max_size=4, include=("c",), exclude=("g",), max_tokens=800),
    SpaceSettings(min_size=3, max_tokens=600),
]


def space(rules: SpaceSettings) -> SubsetSpace:
    return subset_space(rules, UNITS, TOKENS, "micro")


def value(mixture: Mixture) -> float:
    """A smooth function with interactions whose optimum is no extreme set."""
    weights = dict(mixture.weights)
    single = sum(w * math.sin(7 * (ord(n) - 96)) for n, w in weights.items())
    pair = sum(
        w * v * math.cos(ord(n) * ord(m)) for n, w in weights.items() for m, v in weights.items()
    )
    return single + pair


def converse(name: str, rules: SpaceSettings, workers: int, order: int) -> tuple[Mixture, ...]:
    """Run a search in which `workers` trials are open and end in an order drawn from `order`."""
    talk = Conversation(ALGORITHMS[name](space(rules), 5, 30), 30)
    rng, running = random.Random(order), []
    while True:
        step = talk.next() if len(running) < workers else Pause.WAIT
        if isinstance(step, Mixture):
            running.append(step)
        elif step is Pause.DONE and not running:
            return talk.asked
        else:
            done = running.pop(rng.randrange(len(running)))
            talk.result(done, None if done.partitions == ("c", "d") else value(done))


@pytest.mark.parametrize("rules", SPACES)
@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_proposals_are_legal_distinct_and_blind_to_timing(name: str, rules: SpaceSettings) -> None:
    first = converse(name, rules, workers=1, order=0)
    assert first
    assert all(mixture.partitions in space(rules) for mixture in first)
    assert len({mixture.key() for mixture in first}) == len(first)
    for workers in (2, 5):
        for order in (1, 2):
            assert converse(name, rules, workers, order) == first


@pytest.mark.parametrize("rules", SPACES[1:])
@pytest.mark.parametrize("name", ["exhaustive", "random", "tpe"])
def test_a_space_that_fits_is_covered(name: str, rules: SpaceSettings) -> None:
    everything = list(space(rules))
    talk = Conversation(ALGORITHMS[name](space(rules), 0, 1000), 1000)
    found = []
    while isinstance(step := talk.next(), Mixture):
        found.append(step.partitions)
        talk.result(step, value(step))
    assert sorted(found) == sorted(everything)


def test_greedy_finds_the_best_of_an_additive_function() -> None:
    want = {"b": -3.0, "e": -2.0}
    for name in ("greedy-forward", "greedy-backward"):
        talk = Conversation(ALGORITHMS[name](space(SpaceSettings()), 0, 100), 100)
        scores = {}
        while (step := talk.next()) is not Pause.DONE:
            assert isinstance(step, Mixture)
            scores[step.partitions] = sum(want.get(n, 1.0) for n in step.partitions)
            talk.result(step, scores[step.partitions])
        assert min(scores, key=lambda members: scores[members]) == ("b", "e")


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=7),
    least=st.integers(1, 4),
    most=st.integers(1, 7),
    budget=st.none() | st.integers(1, 25),
    included=st.integers(0, 2),
)
def test_count_and_cost_equal_an_enumeration(
    sizes: list[int], least: int, most: int, budget: int | None, included: int
) -> None:
    names = [f"p{i}" for i in range(len(sizes))]
    tokens = dict(zip(names, sizes, strict=True))
    include = tuple(names[:included])
    legal = [
        members
        for size in range(max(1, least), most + 1)
        for members in combinations(names, size)
        if set(include) <= set(members)
        and (budget is None or sum(tokens[n] for n in members) <= budget)
    ]
    rules = SpaceSettings(min_size=least, max_size=most, include=include, max_tokens=budget)
    if not legal:
        with pytest.raises(StudyError):
            subset_space(rules, dict.fromkeys(names, 1), tokens, "macro")
        return
    found = subset_space(rules, dict.fromkeys(names, 1), tokens, "macro")
    assert sorted(found) == sorted(legal)
    assert found.count() == len(legal)
    assert found.total_tokens() == sum(tokens[n] for members in legal for n in members)
    assert all(members in found for members in legal)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (SpaceSettings(include=("q",)), "include"),
        (SpaceSettings(min_size=9), "min_size"),
        (SpaceSettings(max_size=1, include=("a", "b")), "max_size"),
        (SpaceSettings(max_tokens=50), "max_tokens"),
        (SpaceSettings(exclude=tuple(NAMES)), "min_size"),
    ],
)
def test_an_impossible_space_says_which_rule(rules: SpaceSettings, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        space(rules)
