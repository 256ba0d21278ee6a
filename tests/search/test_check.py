"""Searches that could not start are refused by one line, before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest

from ablate.errors import StudyError
from ablate.search.algorithms import ALGORITHMS, SIMPLEX_ONLY, SUBSETS_ONLY
from ablate.search.check import check_search
from ablate.search.choice import choose_algorithm
from ablate.settings import build
from ablate.study import Study

GOALS = {"one": {"domain": "x"}, "two": {"domain": "y"}}
GROUPS = {"web": ["a", "b"]}


def study(search: dict[str, Any]) -> Study:
    tree = {"name": "n", "workspace": "w", "units": {"a": ["m"]}, "model": {"path": "m"}}
    return build(Study, {**tree, "search": search}, "study")


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
@pytest.mark.parametrize("kind", ["subsets", "simplex"])
def test_an_algorithm_of_the_other_kind_of_space_is_refused(algorithm: str, kind: str) -> None:
    given = study({"algorithm": algorithm, "space": {"kind": kind}, "objectives": GOALS})
    if algorithm in (SUBSETS_ONLY if kind == "simplex" else SIMPLEX_ONLY):
        with pytest.raises(StudyError, match=f"{algorithm} must stand with search.space.kind"):
            check_search(given)
    else:
        check_search(given)


def test_several_goals_do_not_stand_with_groups() -> None:
    both = {"objectives": GOALS, "space": {"groups": GROUPS}}
    with pytest.raises(StudyError, match=r"search.space.groups must not stand with .*nsga2"):
        check_search(study({"algorithm": "nsga2", **both}))
    check_search(study(both))
    assert choose_algorithm(study(both), 10**6)[0] == "surrogate"
    assert choose_algorithm(study({"objectives": GOALS}), 10**6)[0] == "nsga2"


def test_a_predictor_stands_with_the_search_that_fits_one() -> None:
    check_search(study({"algorithm": "surrogate", "predictor": "trees"}))
    with pytest.raises(StudyError, match=r"search.predictor must stand with .*got 'tpe'"):
        check_search(study({"algorithm": "tpe", "predictor": "trees"}))


def test_a_search_of_several_goals_has_several() -> None:
    with pytest.raises(StudyError, match="two goals or more for nsga2, got 1"):
        check_search(study({"algorithm": "nsga2", "objectives": {"one": {"domain": "x"}}}))
