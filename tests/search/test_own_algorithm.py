"""An algorithm of the user's own proposes mixtures of the space, or is an error by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ablate.errors import StudyError
from ablate.mixture import Mixture
from ablate.search.algorithms import ALGORITHMS, Task
from ablate.search.algorithms.own import Own
from ablate.search.conversation import Conversation, Pause
from ablate.search.spaces import subset_space
from ablate.study import SpaceSettings


def task() -> Task:
    units = {"a": 1, "b": 2, "c": 1}
    space = subset_space(SpaceSettings(max_size=2), units, dict.fromkeys(units, 10), "micro")
    return Task(space=space, rng_seed=0, trials=3)


class Says:
    """An algorithm that proposes what it is given."""

    lookahead = 1

    def __init__(self, proposal: Any) -> None:
        self.proposal = proposal

    def ask(self) -> Any:
        return self.proposal

    def tell(self, mixture: Mixture, value: float | None) -> None:
        raise LookupError("no room")


def own(build: Callable[[Task], Any]) -> Own:
    return Own("mine:algorithm", build, task())


def test_a_right_one_is_asked_and_told_as_it_is() -> None:
    inner = ALGORITHMS["exhaustive"]
    talks = [Conversation(algorithm, 3) for algorithm in (own(inner), inner(task()))]
    seen = [[], []]
    for talk, asked in zip(talks, seen, strict=True):
        while isinstance(mixture := talk.next(), Mixture):
            asked.append(mixture)
            talk.result(mixture, 1.0)
        assert mixture is Pause.DONE
    assert seen[0] == seen[1] and len(seen[0]) == 3


@pytest.mark.parametrize(
    ("proposal", "said"),
    [
        ("a, b", "must return a Mixture or None from ask, got a str"),
        (
            Mixture.uniform(["a", "b", "c"]),
            "must propose mixtures of the study's space, got a 0.333",
        ),
        (Mixture.uniform(["a", "other"]), "must propose mixtures of the study's space"),
    ],
)
def test_what_is_no_mixture_of_the_space_is_refused(proposal: Any, said: str) -> None:
    with pytest.raises(StudyError, match="'mine:algorithm' must") as caught:
        own(lambda _: Says(proposal)).ask()
    assert said in str(caught.value)


def test_what_it_raises_is_one_line_with_its_name() -> None:
    with pytest.raises(StudyError, match="'mine:algorithm' must take a value, got LookupError: no"):
        own(lambda _: Says(None)).tell(Mixture.uniform(["a"]), 1.0)
    with pytest.raises(StudyError, match="must be built from a Task, got ZeroDivisionError"):
        own(lambda _: 1 // 0)
    with pytest.raises(
        StudyError, match="must have a whole number `lookahead` of 1 or more, got None"
    ):
        own(lambda _: object())
