"""The journal, the questions that it leaves open, and the table that comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ablate.errors import StudyError
from ablate.evaluate.statistics import DomainScore
from ablate.mixture import Mixture
from ablate.models.pool import ModelPool, SeedModel, UnitModel
from ablate.search.algorithms import ALGORITHMS, Task, Value
from ablate.search.candidates import (
    Candidate,
    base_candidates,
    describe,
    mixture_candidate,
    mixture_candidates,
    named_by,
    recall,
)
from ablate.search.conversation import Conversation, Pause
from ablate.search.journal import Journal, Scored
from ablate.search.objective import objective_value, objective_weights
from ablate.search.questions import Frame, Question, Questions
from ablate.search.spaces import subset_space
from ablate.search.table import build_trial, write_table
from ablate.study import MergeMethod, MergeSettings, ObjectiveSettings, SpaceSettings

FRAME = Frame(domains={"x": "mark-x", "y": "mark-y"}, weights={"x": 0.5, "y": 0.5})
LINEAR = MergeSettings()


def pool(*names: str, salt: str = "") -> ModelPool:
    units = [
        UnitModel(
            partition=name,
            index=i,
            fingerprint=f"{name}{i}{salt}",
            folder="f",
            digest="d",
            tokens=10,
        )
        for name in names
        for i in range(2 if name == "a" else 1)
    ]
    seed = SeedModel(fingerprint="s" + salt, folder="f", digest="d")
    return ModelPool(seed=seed, units=tuple(units), layout_fingerprint="l", tokenizer="t")


def loss(name: str, question: Question) -> float:
    """A loss that only depends on the members and the domain."""
    shares = question.candidate.coefficients
    return 1.0 + sum(s * (ord(p) + i) for (p, i), s in shares) / 1000 + (name == "y")


def answer(question: Question, frame: Frame = FRAME) -> Scored:
    scores = {
        frame.domains[name]: DomainScore(
            nats=100 * loss(name, question), tokens=100, bytes=300, stderr=0.01
        )
        for name in question.domains
    }
    return Scored(key=question.candidate.key, scores=scores, merge_seconds=0.1)


def questions(
    models: ModelPool,
    journal: Journal,
    frame: Frame = FRAME,
    trials: int = 50,
    merge: MergeSettings = LINEAR,
    told: dict[str, float | None] | None = None,
    foretell: Callable[[Candidate], float] | None = None,
) -> Questions:
    units = models.units_of()
    space = subset_space(SpaceSettings(), units, {n: 10 * u for n, u in units.items()}, "micro")

    def begin() -> Conversation:
        task = Task(space=space, rng_seed=0, trials=trials)
        talk = _Overheard(ALGORITHMS["exhaustive"](task), trials)
        talk.told = {} if told is None else told
        return talk

    return Questions(
        pool=models,
        frame=frame,
        merge=merge,
        journal=journal,
        base=base_candidates(models),
        begin=begin,
        foretell=lambda: foretell,
    )


class _Overheard(Conversation):
    """A conversation that writes down every result."""

    told: dict[str, float | None]

    def result(self, mixture: Mixture, value: Value | None) -> None:
        self.told[mixture.key()] = value
        super().result(mixture, value)


def drain(stream: Questions, frame: Frame = FRAME, limit: int = 1000) -> list[Question]:
    asked = []
    while len(asked) < limit and (question := stream.next()) is not Pause.DONE:
        assert isinstance(question, Question)
        asked.append(question)
        stream.answered(question, answer(question, frame))
    return asked


def test_everything_is_asked_once_ever(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    asked = drain(questions(pool("a", "b", "c"), Journal(path)))
    # seed + 4 units + 7 subsets, of which {b} and {c} are units
    assert len(asked) == 1 + 4 + 7 - 2
    assert len({question.candidate.key for question in asked}) == len(asked)
    assert not questions(pool("a", "b", "c"), Journal(path)).peek()


def test_an_interrupted_search_loses_only_what_was_open(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    first = drain(questions(pool("a", "b", "c"), Journal(path)), limit=6)
    second = drain(questions(pool("a", "b", "c"), Journal(path)))
    assert len(first) + len(second) == 10
    whole = tmp_path / "whole.jsonl"
    drain(questions(pool("a", "b", "c"), Journal(whole)))
    assert whole.read_bytes() == path.read_bytes()


def test_a_new_partition_keeps_old_scores_and_a_new_domain_asks_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    drain(questions(pool("a", "b"), Journal(path)))
    more = drain(questions(pool("a", "b", "c"), Journal(path)))
    assert all("c" in dict(q.candidate.mixture.weights) for q in more if q.candidate.mixture)
    wider = Frame(domains={**FRAME.domains, "z": "mark-z"}, weights={"z": 1.0})
    again = drain(questions(pool("a", "b", "c"), Journal(path), wider), wider)
    assert {question.domains for question in again} == {("z",)}


def test_a_retrained_unit_is_scored_again(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    drain(questions(pool("a", "b"), Journal(path)))
    assert len(drain(questions(pool("a", "b", salt="'"), Journal(path)))) == 1 + 3 + 2


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_torn_tail_is_left_out_and_scored_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "trials.jsonl"
    drain(questions(pool("a", "b"), Journal(path)))
    whole = Journal(path)
    path.write_bytes(path.read_bytes()[:-cut])
    torn = Journal(path)
    assert torn.damaged == (0 if cut == 1 else 1)
    drain(questions(pool("a", "b"), torn))
    assert {key: Journal(path).get(key) for key in whole.records} == {
        key: whole.get(key) for key in whole.records
    }


def test_a_flipped_byte_never_becomes_a_number(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    drain(questions(pool("a", "b"), Journal(path)))
    good = {key: Journal(path).get(key) for key in Journal(path).records}
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(bytes(changed))
        found = Journal(path)
        for key, record in found.records.items():
            assert good[key] == found.get(key), record


def test_the_algorithm_hears_the_least_of_a_mixtures_merges(tmp_path: Path) -> None:
    merge = MergeSettings(alternatives=(MergeMethod(method="ties"), MergeMethod(scale=0.3)))
    told: dict[str, float | None] = {}
    journal = Journal(tmp_path / "trials.jsonl")
    stream = questions(pool("a", "b", "c"), journal, merge=merge, told=told)
    lows = {"linear": 0.2, "ties": 0.1, "linear(scale=0.3)": 0.3}
    asked: dict[str, list[str]] = {}
    while (question := stream.next()) is not Pause.DONE:
        assert isinstance(question, Question)
        candidate = question.candidate
        scored = answer(question)
        if candidate.kind == "proxy" and candidate.mixture and candidate.merge:
            asked.setdefault(candidate.mixture.key(), []).append(candidate.merge)
            low = lows[candidate.merge]
            scores = {m: replace(s, nats=s.nats * (1 + low)) for m, s in scored.scores.items()}
            scored = replace(scored, scores=scores)
        if candidate.merge == "ties" and len(asked) == 1:
            scored = Scored(key=candidate.key, error="NaN")
        stream.answered(question, scored)
    assert all(merges == list(lows) for merges in asked.values()) and len(asked) == 5
    first, *others = asked
    for key in asked:
        plain = next(v for k, v in told.items() if k == key)
        best = 0.2 if key == first else 0.1
        weights = dict(pair.split("=") for pair in key.split("|"))
        base = 1.5 + sum(float(w) * (ord(p) + (p == "a") / 2) for p, w in weights.items()) / 1000
        assert plain == pytest.approx(base * (1 + best), rel=1e-9)
    assert len(others) == 4 and len(told) == 7


def test_merges_that_make_the_same_parameters_are_one_candidate_under_all_their_labels() -> None:
    """The average of two units is `scale: 0.5`; it stays the average, whatever it was called."""
    models = pool("a", "b", "c")
    average, half = MergeMethod(), MergeMethod(scale=0.5)
    for merges in ((average, half), (half, average)):
        labels = ["linear" if one is average else "linear(scale=0.5)" for one in merges]
        (pair,) = mixture_candidates(models, Mixture.uniform(["b", "c"]), merges)
        assert [pair.merge, *pair.also] == labels
        other = mixture_candidates(models, Mixture.uniform(["a", "b"]), merges)
        assert [one.merge for one in other] == labels and not any(one.also for one in other)
        for called in ("linear", "linear(scale=0.5)", "somebody's"):
            record = {"key": pair.key, **describe(replace(pair, merge=called, also=()))}
            known = recall(models, record)
            assert known is not None and named_by(known, models, merges) == pair
            (alone,) = (named_by(known, models, [one]) for one in (average,))
            assert (alone.merge, alone.also) == ("linear", ())


def test_the_algorithm_hears_predicted_losses_where_they_are_calibrated(tmp_path: Path) -> None:
    told: dict[str, float | None] = {}
    stream = questions(
        pool("a", "b"),
        Journal(tmp_path / "trials.jsonl"),
        told=told,
        foretell=lambda candidate: 5.0 - len(candidate.coefficients),
    )
    drain(stream)
    assert told == {"a=1": 3.0, "b=1": 4.0, Mixture.by_units("ab", {"a": 2, "b": 1}).key(): 2.0}
    assert stream.best == 2.0


def test_a_failed_trial_is_recorded_and_tried_again_next_time(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    stream = questions(pool("a", "b"), Journal(path))
    question = stream.next()
    assert isinstance(question, Question)
    stream.answered(question, Scored(key=question.candidate.key, error="NaN on x"))
    drain(stream)
    journal = Journal(path)
    assert journal.get(question.candidate.key).error == "NaN on x"
    row = build_trial(
        question.candidate, journal.get(question.candidate.key), FRAME.domains, FRAME.weights, {}
    )
    assert row.objective is None and row.error == "NaN on x"
    whole = Scored(
        key="k",
        scores={
            m: DomainScore(nats=2.0, tokens=1, bytes=1, stderr=0.0) for m in FRAME.domains.values()
        },
        error="no room for the slopes",
    )
    row = build_trial(question.candidate, whole, FRAME.domains, FRAME.weights, {})
    assert row.objective == 2.0 and row.error is None  # what failed is not among its scores
    retried = drain(questions(pool("a", "b"), journal))
    assert [q.candidate.key for q in retried] == [question.candidate.key]
    assert Journal(path).get(question.candidate.key).error is None


def test_a_proxy_is_recalled_only_in_a_pool_that_has_its_members() -> None:
    models = pool("a", "b")
    candidate = mixture_candidate(
        models, Mixture.of({"a": 0.3, "b": 0.7}), MergeSettings(scale=0.5)
    )
    record = {**describe(candidate), "key": candidate.key}
    assert recall(models, record) == candidate
    assert recall(pool("a", "b", "c"), record) == candidate
    assert recall(pool("b"), record) is None
    assert recall(pool("a", "b", salt="'"), record) is None
    grown = replace(models, units=(*models.units, replace(models.units[0], index=2)))
    assert recall(grown, record) is None  # it lacks a unit that the partition has now


def test_the_table_has_the_contracts_columns(tmp_path: Path) -> None:
    models = pool("a", "b")
    journal = Journal(tmp_path / "trials.jsonl")
    asked = drain(questions(models, journal))
    units = {
        (q.candidate.coefficients[0][0]): {n: loss(n, q) for n in FRAME.domains}
        for q in asked
        if q.candidate.kind == "unit"
    }
    trials = [
        build_trial(q.candidate, journal.get(q.candidate.key), FRAME.domains, FRAME.weights, units)
        for q in asked
    ]
    write_table(tmp_path / "t.parquet", trials, list(FRAME.domains))
    table = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["kind"] for row in table] == ["seed", "unit", "unit", "unit", "proxy", "proxy"]
    last = table[-1]
    assert (last["partitions"], last["size"], last["tokens"]) == (["a", "b"], 2, 30)
    assert last["weights"] == pytest.approx([2 / 3, 1 / 3])
    assert last["objective"] == pytest.approx((last["loss/x"] + last["loss/y"]) / 2)
    # This loss is linear in the weights, so the mean of the members' losses is the merge's.
    assert last["member_objective"] == pytest.approx(last["objective"])
    assert last["evaluated_tokens"] == 200 and last["merge"] == "linear" and last["unit"] is None
    assert {"stderr/x", "bits_per_byte/y", "merge_seconds", "evaluate_seconds", "error"} <= set(
        last
    )


KINDS = {"x": "domain", "y": "domain", "p": "heldout"}


@pytest.mark.parametrize(
    ("objective", "weights"),
    [
        ({"mean": "all"}, {"x": 1 / 3, "y": 1 / 3, "p": 1 / 3}),
        ({"mean": "domains"}, {"x": 0.5, "y": 0.5}),
        ({"mean": "partitions"}, {"p": 1.0}),
        ({"mean": ["x", "p"]}, {"x": 0.5, "p": 0.5}),
        ({"weighted": {"x": 3, "y": 1, "p": 0}}, {"x": 0.75, "y": 0.25}),
        ({"domain": "p"}, {"p": 1.0}),
    ],
)
def test_objectives(objective: dict[str, object], weights: dict[str, float]) -> None:
    found = objective_weights(ObjectiveSettings.model_validate(objective), KINDS)
    assert found == pytest.approx(weights)
    assert objective_value(found, {"x": 1.0, "y": 1.0, "p": 1.0}) == pytest.approx(1.0)


def test_an_unknown_domain_in_the_objective_is_named() -> None:
    with pytest.raises(StudyError, match="'q'"):
        objective_weights(ObjectiveSettings(domain="q"), KINDS)
    with pytest.raises(StudyError, match="at least one domain"):
        objective_weights(ObjectiveSettings(mean="partitions"), {"x": "domain"})
