"""One suite of laws over every algorithm, on both kinds of space."""

from __future__ import annotations

import dataclasses
import math
from itertools import combinations

import numpy as np
import pytest
from conversing import converse
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.errors import StudyError
from ablate.mixture import Mixture
from ablate.search.algorithms import (
    ALGORITHMS,
    SIMPLEX_ONLY,
    SUBSETS_ONLY,
    Task,
    Value,
    lookahead_of,
)
from ablate.search.conversation import Conversation, Pause
from ablate.search.predictors.pairwise import pairwise
from ablate.search.spaces import (
    Partitions,
    SimplexSpace,
    Space,
    SubsetSpace,
    make_space,
    subset_space,
)
from ablate.search.spaces.projection import project, rescale
from ablate.study import SpaceSettings

NAMES = "abcdefg"
UNITS = {name: 1 + i % 3 for i, name in enumerate(NAMES)}
TOKENS = {name: 100 * UNITS[name] for name in NAMES}
SUBSETS = [
    SpaceSettings(),
    SpaceSettings(min_size=2, max_size=4, include=("c",), exclude=("g",), max_tokens=800),
    SpaceSettings(min_size=3, max_tokens=600),
]
SIMPLICES = [
    SpaceSettings(kind="simplex"),
    SpaceSettings(
        kind="simplex",
        bounds={"a": (0.1, 0.3), "b": (0.0, 0.2)},
        include=("c",),
        exclude=("g",),
        min_weight=0.05,
        min_size=3,
        max_size=5,
        target_tokens=1000,
        max_epochs=2,
        max_tokens=1100,
    ),
]
CASES = [
    (name, rules)
    for name in sorted(ALGORITHMS)
    for rules in [
        *([] if name == "gradient" else SUBSETS),
        *([] if name in SUBSETS_ONLY else SIMPLICES),
    ]
]
SLOW = {"gaussian-process", "surrogate"}  # a proposal takes tenths of a second


def space(rules: SpaceSettings) -> Space:
    return make_space(rules, Partitions(units=UNITS, tokens=TOKENS, available=TOKENS), "micro")


def ensemble(weights: np.ndarray) -> np.ndarray:
    """A proxy that leans the same way as `value`, but is not it."""
    singles = np.array([math.sin(7 * (ord(n) - 96)) for n in NAMES[: weights.shape[1]]])
    return weights @ singles


def task(rules: SpaceSettings, trials: int = 30, rng_seed: int = 5) -> Task:
    return Task(space=space(rules), rng_seed=rng_seed, trials=trials, ensemble=ensemble)


def value(mixture: Mixture) -> Value:
    """A smooth function with interactions whose optimum is no extreme set, and its gradient."""
    weights = dict(mixture.weights)
    single = {n: math.sin(7 * (ord(n) - 96)) for n in NAMES}
    pair = {n: {m: math.cos(ord(n) * ord(m)) for m in NAMES} for n in NAMES}
    drawn = {n: sum(pair[n][m] * v for m, v in weights.items()) for n in NAMES}
    total = sum(w * (single[n] + drawn[n]) for n, w in weights.items())
    return Value(total, gradient={n: single[n] + 2 * drawn[n] for n in NAMES})


def proposed(name: str, rules: SpaceSettings, workers: int, order: int) -> tuple[Mixture, ...]:
    """Run a search in which `workers` trials are open and end in an order drawn from `order`."""
    trials = {"gaussian-process": 6, "surrogate": 11}.get(name, 24)
    talk = Conversation(ALGORITHMS[name](task(rules, trials)), trials)
    return converse(
        talk, lambda m: None if m.partitions == ("c", "d") else value(m), workers, order
    )


@pytest.mark.parametrize(("name", "rules"), CASES)
def test_proposals_are_legal_distinct_and_blind_to_timing(name: str, rules: SpaceSettings) -> None:
    first = proposed(name, rules, workers=1, order=0)
    assert first
    assert all(mixture in space(rules) for mixture in first)
    assert len({mixture.key() for mixture in first}) == len(first)
    for workers, order in ((2, 1),) if name in SLOW else ((2, 1), (5, 2)):
        assert proposed(name, rules, workers, order) == first


@pytest.mark.parametrize("rules", SUBSETS[1:])
@pytest.mark.parametrize("name", ["exhaustive", "random", "tpe"])
def test_a_space_that_fits_is_covered(name: str, rules: SpaceSettings) -> None:
    subsets = space(rules)
    assert isinstance(subsets, SubsetSpace)
    talk = Conversation(ALGORITHMS[name](task(rules, 1000)), 1000)
    found = []
    while isinstance(step := talk.next(), Mixture):
        found.append(step.partitions)
        talk.result(step, value(step))
    assert sorted(found) == sorted(subsets)


def test_only_the_ranking_objective_is_heard_but_by_a_search_of_several_goals() -> None:
    for name in ("tpe", "cma-es", "gaussian-process"):
        built = ALGORITHMS[name](task(SpaceSettings(), 30))
        mixture = built.ask()
        assert isinstance(mixture, Mixture)
        built.tell(mixture, Value(1.0, (9.0,)))  # predicted, and one goal that is not the objective
        assert built._study.best_value == 1.0
        built.tell(built.ask(), Value(1.0, (9.0, 8.0)))


def test_the_surrogate_finds_the_best_subset_in_a_quarter_of_the_space() -> None:
    talk = Conversation(ALGORITHMS["surrogate"](task(SpaceSettings(), 30)), 30)
    found = []
    while isinstance(step := talk.next(), Mixture):
        found.append(float(value(step)))
        talk.result(step, value(step))
    subsets = space(SpaceSettings())
    assert isinstance(subsets, SubsetSpace)
    assert min(found) == min(float(value(subsets.mixture(members))) for members in subsets)


def test_the_gradient_descends_a_bowl_to_its_bottom() -> None:
    bottom = {"b": 0.5, "d": 0.3, "f": 0.2}
    talk = Conversation(ALGORITHMS["gradient"](task(SIMPLICES[0], 30)), 30)
    found = []
    while isinstance(step := talk.next(), Mixture):
        gaps = {n: dict(step.weights).get(n, 0.0) - bottom.get(n, 0.0) for n in NAMES}
        found.append(sum(gap**2 for gap in gaps.values()))
        talk.result(step, Value(found[-1], gradient={n: 2 * gap for n, gap in gaps.items()}))
    assert min(found) < 1e-3 < found[0]


BOUNDS = [
    {},
    {"b": (0.0, 0.25)},  # the bottom lies outside
    {"b": (0.0, 0.25), "d": (0.0, 0.25), "a": (0.15, 1.0)},
    dict.fromkeys("bdf", (0.0, 0.2)),
]


@pytest.mark.parametrize("bounds", BOUNDS)
def test_the_gradient_descends_a_bowl_to_its_lowest_legal_point(
    bounds: dict[str, tuple[float, float]],
) -> None:
    bottom = {"a": 0.05, "b": 0.45, "c": 0.04, "d": 0.3, "e": 0.03, "f": 0.1, "g": 0.03}
    rules = SpaceSettings(kind="simplex", bounds=bounds)
    where = np.array([bottom[name] for name in NAMES])
    legal = space(rules)
    assert isinstance(legal, SimplexSpace)
    lowest = project(where, np.array(legal.lower), np.array(legal.upper))
    talk = Conversation(ALGORITHMS["gradient"](task(rules, 30)), 30)
    found = []
    while isinstance(step := talk.next(), Mixture):
        gaps = np.array([dict(step.weights).get(name, 0.0) for name in NAMES]) - where
        found.append(float(gaps @ gaps))
        slopes = dict(zip(NAMES, 2 * gaps, strict=True))
        talk.result(step, Value(found[-1], gradient=slopes))
    least = float((lowest - where) @ (lowest - where))
    assert least - 1e-12 <= min(found) < least + 1e-4 * (found[0] - least)


@given(
    st.lists(
        st.tuples(st.floats(1e-6, 1), st.floats(0, 0.1), st.floats(0.2, 1)), min_size=5, max_size=9
    )
)
def test_a_rescaled_point_is_the_nearest_by_ratio(rows: list[tuple[float, float, float]]) -> None:
    weights, lower, upper = np.array(rows).T
    found = rescale(weights, lower, upper)
    assert found.sum() == pytest.approx(1, abs=1e-9)
    assert (found >= lower).all() and (found <= upper).all()
    factors = found / weights
    free = (found > lower) & (found < upper)
    for factor in factors[free]:  # what no bound holds has one factor; bounds hold the others back
        assert factors[free] == pytest.approx(factor)
        assert (factors[found == upper] <= factor * (1 + 1e-9)).all()
        assert (factors[(found == lower) & (lower > 0)] >= factor * (1 - 1e-9)).all()


def test_greedy_finds_the_best_of_an_additive_function() -> None:
    want = {"b": -3.0, "e": -2.0}
    for name in (n for n in ALGORITHMS if n.startswith("greedy")):
        talk = Conversation(ALGORITHMS[name](task(SpaceSettings(), 100, 0)), 100)
        scores = {}
        while (step := talk.next()) is not Pause.DONE:
            assert isinstance(step, Mixture)
            scores[step.partitions] = sum(want.get(n, 1.0) for n in step.partitions)
            talk.result(step, scores[step.partitions])
        assert min(scores, key=lambda members: scores[members]) == ("b", "e")


def test_swaps_end_in_a_local_optimum() -> None:
    subsets = space(SpaceSettings(min_size=2, max_size=4))
    assert isinstance(subsets, SubsetSpace)
    for name in ("greedy-forward-swaps", "greedy-backward-swaps"):
        talk = Conversation(
            ALGORITHMS[name](task(SpaceSettings(min_size=2, max_size=4), 1000)), 1000
        )
        scores: dict[tuple[str, ...], float] = {}
        while isinstance(step := talk.next(), Mixture):
            scores[step.partitions] = value(step)
            talk.result(step, scores[step.partitions])
        best = min(scores, key=lambda members: scores[members])
        assert all(scores[near] >= scores[best] for near in subsets.neighbours(best))


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
    assert all(found.mixture(members) in found for members in legal)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (SpaceSettings(include=("q",)), "include"),
        (SpaceSettings(min_size=9), "min_size"),
        (SpaceSettings(max_size=1, include=("a", "b")), "max_size"),
        (SpaceSettings(max_tokens=50), "max_tokens"),
        (SpaceSettings(exclude=tuple(NAMES)), "exclude must leave"),
    ],
)
def test_an_impossible_space_says_which_rule(rules: SpaceSettings, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        space(rules)


def test_a_draw_that_limits_lead_astray_is_none_and_the_nearest_is_still_legal() -> None:
    rules = SpaceSettings(
        kind="simplex",
        min_size=3,
        max_size=3,
        max_tokens=21,
        bounds={n: (0.0, 0.5 if n in "abf" else 0.1) for n in ("a", "b", "f", "x", "y")},
    )
    tokens = {"a": 10, "b": 10, "f": 10, "x": 1, "y": 2}
    made = make_space(rules, Partitions(units=tokens, tokens=tokens, available=tokens), "micro")
    rng = np.random.default_rng(0)
    drawn = [made.sample(rng) for _ in range(50)]
    assert None in drawn and all(mixture in made for mixture in drawn if mixture)
    assert all(made.nearest(rng.dirichlet(np.ones(5))) in made for _ in range(50))


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
@pytest.mark.parametrize("trials", [7, 500, 20_000])
def test_how_many_are_open_at_once_is_known_without_building_the_search(
    name: str, trials: int
) -> None:
    rules = SIMPLICES[0] if name in SIMPLEX_ONLY else SpaceSettings()
    built = ALGORITHMS[name](task(rules, trials))
    names = len(space(rules).names)
    assert lookahead_of(name, trials, names) == min(trials, built.lookahead)


def test_believed_scores_move_no_prediction_and_tell_less_than_none() -> None:
    rng = np.random.default_rng(0)
    rows, more, asked = (rng.dirichlet(np.ones(5), count) for count in (30, 6, 40))
    losses = rows @ rng.normal(size=5) + 0.3 * (rows**2).sum(axis=1)
    fit = pairwise(rows, losses, 0)
    believing = fit.believing(more)
    assert np.allclose(believing.predict(asked)[0], fit.predict(asked)[0], atol=1e-6)
    assert (believing.predict(asked)[1] <= fit.predict(asked)[1] + 1e-12).all()
    assert (believing.predict(more)[1] < fit.predict(more)[1]).all()
    again = fit.refitted(rows, losses)
    assert np.allclose(again.predict(asked), fit.predict(asked))


@pytest.mark.parametrize("predictor", ["linear", "gaussian", "trees", "mixing-law", "auto"])
def test_the_surrogate_fits_what_it_is_told_to(predictor: str) -> None:
    asked = dataclasses.replace(task(SpaceSettings(), 100), predictor=predictor)
    talk = Conversation(ALGORITHMS["surrogate"](asked), 12)
    found = []
    while isinstance(step := talk.next(), Mixture):
        found.append(step)
        talk.result(step, value(step))
    assert len({mixture.key() for mixture in found}) == 12
    again = Conversation(ALGORITHMS["surrogate"](asked), 12)
    assert converse(again, value, workers=3, order=1) == tuple(found)
