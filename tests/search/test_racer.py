"""The race inside a search: what is stopped, what is kept, and that timing changes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate.errors import StudyError
from ablate.evaluate.statistics import DomainScore
from ablate.models.pool import ModelPool, SeedModel, UnitModel
from ablate.search.algorithms import ALGORITHMS, Task
from ablate.search.candidates import base_candidates
from ablate.search.check import check_search
from ablate.search.conversation import Conversation, Pause
from ablate.search.journal import Journal, Scored
from ablate.search.questions import Frame, Question, Questions
from ablate.search.racer import Racer
from ablate.search.spaces import subset_space
from ablate.settings import build
from ablate.study import MergeSettings, RacingSettings, SpaceSettings, Study

NAMES = "abcdef"
UNITS = dict.fromkeys(NAMES, 1)
GROUPS = 32
MARKS = {"x": "mark-x", "y": "mark-y"}
FRAME = Frame(domains=MARKS, weights={"x": 0.5, "y": 0.5})
TOKENS = {name: np.full(GROUPS, 100.0) for name in MARKS}


def pool() -> ModelPool:
    units = tuple(
        UnitModel(partition=name, index=0, fingerprint=name * 3, folder="f", digest="d", tokens=10)
        for name in NAMES
    )
    seed = SeedModel(fingerprint="s", folder="f", digest="d")
    return ModelPool(seed=seed, units=units, layout_fingerprint="l", tokenizer="t")


def nats(question: Question, domain: str) -> np.ndarray:
    """Group sums of a made-up model: hard groups shared by all, gains by member, some noise."""
    rng = np.random.default_rng([*domain.encode()])
    hard = 4 + rng.standard_normal(GROUPS)
    gain = rng.uniform(-0.4, 0.4, len(NAMES))
    shares = dict.fromkeys(NAMES, 0.0)
    for (name, _), share in question.candidate.coefficients:
        shares[name] += share
    own = np.random.default_rng([*question.candidate.key.encode()]).standard_normal(GROUPS)
    return np.asarray((hard + gain @ np.array(list(shares.values())) + 0.03 * own) * 100.0)


def full(question: Question) -> Scored:
    scores = {}
    for name in question.domains:
        values = nats(question, name)
        scores[MARKS[name]] = DomainScore(
            nats=float(values.sum()),
            tokens=100 * GROUPS,
            bytes=300,
            stderr=0.01,
            groups=tuple(values.astype(np.float32).tolist()),
        )
    return Scored(key=question.candidate.key, scores=scores)


def racer(**changes: Any) -> Racer:
    return Racer(
        RacingSettings(**changes),
        tokens=TOKENS,
        weights=FRAME.weights,
        marks=MARKS,
        space=subset_space(SpaceSettings(), UNITS, UNITS, "micro"),
        question="q",
    )


def search(
    journal: Journal,
    race: Racer | None,
    evaluators: int = 1,
    order: int = 0,
    algorithm: str = "exhaustive",
) -> tuple[Questions, int]:
    """Run a search whose evaluators finish in a random order; return it and the groups scored."""
    models = pool()
    units = models.units_of()
    space = subset_space(SpaceSettings(), units, dict.fromkeys(units, 10), "micro")
    begin: Callable[[], Conversation] = lambda: Conversation(  # noqa: E731
        ALGORITHMS[algorithm](Task(space=space, rng_seed=0, trials=63)), 63, 8
    )
    questions = Questions(
        pool=models,
        frame=FRAME,
        merge=MergeSettings(),
        journal=journal,
        base=base_candidates(models),
        begin=begin,
        racer=race,
    )
    rng, working, scored = random.Random(order), [], 0
    while True:
        while len(working) < evaluators:
            question = questions.next()
            if isinstance(question, Pause):
                break
            working.append(question)
        if not working:
            return questions, scored
        question = working.pop(rng.randrange(len(working)))
        found = None
        if question.ticket is not None:
            for stage, groups in enumerate(questions.stages):
                scored += sum(len(wanted) for wanted in groups.values())
                seen = {name: nats(question, name)[wanted] for name, wanted in groups.items()}
                found = questions.judge(question, stage, seen)
                if found is not None:
                    break
        if found is None and question.ticket is None:
            scored += 2 * GROUPS
        elif found is None:
            scored += 2 * GROUPS - sum(len(w) for s in questions.stages for w in s.values())
        questions.answered(question, found or full(question))


@pytest.mark.parametrize("rule", ["paired", "asha"])
def test_the_same_race_for_any_number_of_evaluators_and_any_timing(
    tmp_path: Path, rule: str
) -> None:
    found = []
    for number, evaluators in enumerate((1, 2, 5, 8, 20)):
        journal = Journal(tmp_path / f"{number}.jsonl")
        questions, _ = search(journal, racer(rule=rule), evaluators, order=number)
        stops = {key: one.stopped for key in journal.records if (one := journal.get(key)).stopped}
        found.append((questions.best, stops))
    assert found[0][1]
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("algorithm", ["exhaustive", "greedy-forward", "surrogate"])
def test_the_race_finds_the_winner_with_fewer_tokens(tmp_path: Path, algorithm: str) -> None:
    whole, all_tokens = search(Journal(tmp_path / "w.jsonl"), None, algorithm=algorithm)
    raced, tokens = search(Journal(tmp_path / "r.jsonl"), racer(), algorithm=algorithm)
    assert whole.best is not None and raced.best == whole.best
    assert tokens < all_tokens


def test_a_rerun_asks_nothing_and_a_search_without_the_race_scores_what_was_stopped(
    tmp_path: Path,
) -> None:
    path = tmp_path / "trials.jsonl"
    first, _ = search(Journal(path), racer(), 4)
    size = path.stat().st_size
    again, tokens = search(Journal(path), racer(), 4)
    assert (tokens, path.stat().st_size) == (0, size)
    assert again.best == first.best
    journal = Journal(path)
    stopped = [key for key in journal.records if not journal.get(key).scores]
    search(journal, None)
    assert stopped and all(journal.get(key).scores for key in stopped)


def test_a_race_under_other_rules_does_not_use_the_stops(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    search(Journal(path), racer(), 4)
    _, tokens = search(Journal(path), racer(alpha=0.05), 4)
    assert tokens > 0


def test_stops_are_estimates_near_the_truth(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "t.jsonl")
    search(journal, racer())
    truth = Journal(tmp_path / "w.jsonl")
    search(truth, None)
    errors = []
    for key in journal.records:
        stopped = journal.get(key).stopped
        if stopped is not None:
            value = FRAME.value(truth.get(key))
            assert value is not None
            errors.append(stopped.estimate - value)
    assert np.abs(errors).max() < 0.1


@pytest.mark.parametrize(
    ("search_settings", "told"),
    [
        ({"racing": {}, "merge": {"method": "ensemble"}}, "ensemble"),
        ({"racing": {}, "algorithm": "gradient", "space": {"kind": "simplex"}}, "gradient"),
        (
            {"racing": {}, "objectives": {"a": {"domain": "x"}, "b": {"domain": "y"}}},
            "objectives",
        ),
    ],
)
def test_a_race_is_refused_where_it_makes_no_sense(
    search_settings: dict[str, Any], told: str
) -> None:
    tree = {
        "name": "n",
        "workspace": "w",
        "units": {"a": ["m"]},
        "model": {"path": "m"},
        "search": search_settings,
    }
    with pytest.raises(StudyError, match=told):
        check_search(build(Study, tree, "study"))


def test_shares_must_grow() -> None:
    with pytest.raises(ValueError, match="shares"):
        RacingSettings(shares=(0.5, 0.25))
