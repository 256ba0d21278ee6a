"""Searches of one trained pool: the ensemble, other merges, proportions, comparisons, effects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from ablate import engine
from ablate.errors import StudyError, WorkspaceError
from ablate.exporting import export_mixture, named_mixture
from ablate.here import answer_here
from ablate.mixture import Mixture
from ablate.on_ray import scorer_settings
from ablate.resources import Cluster
from ablate.search.journal import Journal
from ablate.search.questions import Question
from ablate.standing import standing_of
from ablate.study import Study, load_study
from ablate.workspace import read_json

CLUSTER = Cluster(cpus=2)


def study(folder: Path, *overrides: str) -> Study:
    return load_study(folder / "study.yaml", overrides)


def rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "work" / "trials.parquet").to_pylist()


def evaluated_tokens(folder: Path, domain: str) -> list[int]:
    with pyarrow.memory_map(str(folder / f"work/corpus/{domain}/evaluation.arrow")) as source:
        found: list[int] = pyarrow.ipc.open_file(source).read_all().column(0).to_pylist()
    return found


def unit_probabilities(folder: Path, domain: str) -> dict[tuple[str, int], np.ndarray]:
    """Return each unit's probability of every scored token, by transformers alone, float64."""
    stream = evaluated_tokens(folder, domain)
    pool = read_json(folder / "work" / "pool.json")
    assert pool is not None
    found = {}
    for unit in pool["units"]:
        model = AutoModelForCausalLM.from_pretrained(folder / "work" / unit["folder"])
        parts = []
        with torch.no_grad():
            for start in range(0, len(stream), 64):
                window = torch.tensor([stream[start : start + 64]])
                chances = model(input_ids=window).logits[0, :-1].double().softmax(-1)
                parts.append(chances.gather(1, window[0, 1:, None])[:, 0].numpy())
        found[unit["partition"], unit["index"]] = np.concatenate(parts)
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("evaluate.tokens_per_domain=1_000", r"corpus.json .* tokens_per_domain changed"),
        ("corpus.unit_tokens=6_000", r"corpus.json .* corpus changed"),
        ("train.learning_rate=1e-4", r"pool.json .* got 0 of the 4 models"),
        ("seed.learning_rate=1e-4", r"pool.json .* got 0 of the 4 models"),
    ],
)
def test_an_edited_study_is_refused_until_it_is_trained(ran: Path, change: str, said: str) -> None:
    edited, kept = study(ran, change), (ran / "work/study.yaml").read_bytes()
    python = Mixture.uniform(["python"])
    for verb in (engine.search, engine.validate, engine.report):
        with pytest.raises(WorkspaceError, match=said):
            verb(edited)
    with pytest.raises(WorkspaceError, match=said):
        engine.score_study(edited, python)
    with pytest.raises(WorkspaceError, match=said):
        export_mixture(edited, "best", ran / "mixture.json", "weights")
    assert (ran / "work/study.yaml").read_bytes() == kept


def test_the_ensemble_row_is_the_mean_probability_of_the_units(ran: Path) -> None:
    chances = unit_probabilities(ran, "reference")
    row = next(
        r
        for r in rows(ran)
        if r["merge"] == "ensemble" and r["partitions"] == ["headers", "python"]
    )
    mean = sum(chances[unit] for unit in [("headers", 0), ("python", 0), ("python", 1)]) / 3
    assert row["loss/reference"] == pytest.approx(-np.log(mean).mean(), rel=1e-5)
    assert row["kind"] == "proxy" and row["error"] is None
    every = {tuple(r["partitions"]) for r in rows(ran) if r["merge"] == "linear"}
    assert {tuple(r["partitions"]) for r in rows(ran) if r["merge"] == "ensemble"} == every


@pytest.mark.faults
def test_a_damaged_likelihood_is_made_again(ran: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = rows(ran)
    file = sorted((ran / "work/likelihoods").glob("*/*.safetensors"))[0]
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    engine.search(study(ran), cluster=CLUSTER)
    assert file.read_bytes() == good
    assert [r["objective"] for r in rows(ran)] == [r["objective"] for r in before]


def test_comparisons_and_effects_follow_from_the_scores(ran: Path) -> None:
    board = engine.leaderboard(study(ran))
    tied = board.tied_with_best()
    assert tied[0] == board.best and all(row in board.mixtures for row in tied)
    best, other = board.mixtures[0], board.mixtures[-1]
    found = board.compare(best, other)
    assert best.objective is not None and other.objective is not None
    assert found.mean == pytest.approx(best.objective - other.objective, abs=1e-6)
    assert found.probability > 0.5
    effects = board.effects()
    everything = next(row for row in board.mixtures if row.size == 3)
    seed = next(row for row in board.trials if row.candidate.kind == "seed")
    assert everything.objective is not None and seed.objective is not None
    gained = everything.objective - seed.objective
    assert effects["shapley"].sum() == pytest.approx(gained, abs=1e-5)  # efficiency
    assert (effects["shapley_lower"] <= effects["shapley"]).all()
    assert len(board.interactions()) == 3
    assert board.ensemble_agreement is None or -1 <= board.ensemble_agreement <= 1


def test_the_ensemble_alone_is_searched_without_an_evaluator(ran: Path) -> None:
    board = engine.search(study(ran, "search.merge.method=ensemble"), cluster=CLUSTER)
    assert len(board.mixtures) == 7 and board.merges == ("ensemble",)
    objectives = {
        tuple(r["partitions"]): r["objective"] for r in rows(ran) if r["merge"] == "ensemble"
    }
    assert board.best_of_size[2].objective == min(v for k, v in objectives.items() if len(k) == 2)
    engine.search(study(ran), cluster=CLUSTER)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["regmean", "ties", "fisher"])
def test_other_merges_are_searched_and_their_statistics_kept(ran: Path, method: str) -> None:
    asked = study(ran, f"search.merge.method={method}", "search.space.min_size=3")
    board = engine.search(asked, cluster=CLUSTER)
    linear = next(r for r in rows(ran) if r["merge"] == "linear" and r["size"] == 3)
    assert board.best.candidate.merge == method and board.best.objective is not None
    assert board.best.objective != linear["objective"]
    assert abs(board.best.objective - linear["objective"]) < 1.0
    kept = list((ran / "work/statistics").glob(f"*-{method}.safetensors"))
    assert len(kept) == (0 if method == "ties" else 4)
    engine.search(study(ran), cluster=CLUSTER)


@pytest.mark.slow
def test_the_merge_is_searched_beside_the_mixture(ran: Path) -> None:
    alternatives = "[{method: regmean}, {method: linear, scale: 0.6}]"
    asked = study(ran, f"search.merge={{alternatives: {alternatives}}}")
    board = engine.search(asked, cluster=CLUSTER)
    labels = ("linear", "regmean", "linear(scale=0.6)")
    assert board.merges == labels and len(board.mixtures) == 7
    assert len(list((ran / "work/statistics").glob("*-regmean.safetensors"))) == 4
    scored = [row for row in rows(ran) if row["merge"] in labels and row["kind"] == "proxy"]
    for row in board.mixtures:
        same = [r for r in scored if tuple(r["partitions"]) == row.partitions]
        if row.candidate.kind == "proxy":
            assert {r["merge"] for r in same} == set(labels)
            assert row.objective == min(r["objective"] for r in same)
    count = len(Journal(asked.open_workspace().journal).records)
    assert engine.search(asked, cluster=CLUSTER).best == board.best
    assert len(Journal(asked.open_workspace().journal).records) == count
    assert engine.search(study(ran), cluster=CLUSTER).best.candidate.merge in ("linear", None)


@pytest.mark.parametrize("method", ["ties", pytest.param("regmean", marks=pytest.mark.slow)])
def test_another_merge_is_exported_as_it_was_scored(ran: Path, tmp_path: Path, method: str) -> None:
    asked = study(ran, f"search.merge.method={method}")
    out = export_mixture(asked, "python, headers", tmp_path / "merged", "checkpoint")
    model = AutoModelForCausalLM.from_pretrained(out).eval()
    stream = evaluated_tokens(ran, "reference")
    nats = []
    with torch.no_grad():
        for start in range(0, len(stream), 64):
            window = torch.tensor([stream[start : start + 64]])
            nats += [float(model(input_ids=window, labels=window).loss)] * (window.shape[1] - 1)
    mixture = named_mixture(asked, "python, headers")
    scored = engine.score_study(asked, mixture, cluster=CLUSTER)
    assert scored.candidate.merge == method
    assert scored.losses["reference"] == pytest.approx(np.mean(nats), rel=1e-5)
    if method == "ties":
        export_mixture(asked, "python, headers", tmp_path / "m.yaml", "mergekit")
        assert "merge_method: ties" in (tmp_path / "m.yaml").read_text()
    else:
        with pytest.raises(StudyError, match="not one of mergekit's"):
            export_mixture(asked, "python, headers", tmp_path / "m.yaml", "mergekit")


@pytest.mark.parametrize("name", ["best:-1", "best:0", "best:1.5", "best:" + "9" * 5000])
def test_a_rank_is_a_whole_number(ran: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(StudyError, match="a rank must be"):
        export_mixture(study(ran), name, tmp_path / "w.json", "weights")


def test_an_ensemble_is_not_exported_as_a_model(ran: Path, tmp_path: Path) -> None:
    asked = study(ran, "search.merge.method=ensemble")
    with pytest.raises(StudyError, match="no model at all"):
        export_mixture(asked, "python, headers", tmp_path / "merged", "checkpoint")
    assert not (tmp_path / "merged").exists()


@pytest.mark.slow
def test_proportions_are_searched_by_their_slopes(ran: Path) -> None:
    asked = study(
        ran,
        "search.space={kind: simplex, bounds: {python: [0.2, 0.5]}}",
        "search.algorithm=gradient",
        "search.trials=6",
    )
    board = engine.search(asked, cluster=CLUSTER)
    proposed = [row for row in board.mixtures if row.candidate.mixture in board.space]
    assert len(proposed) >= 6
    assert all(0.2 <= dict(r.candidate.mixture.weights)["python"] <= 0.5 for r in proposed)  # type: ignore[union-attr]
    standing = standing_of(asked, asked.open_workspace())
    candidate = next(r.candidate for r in proposed if r.candidate.kind == "proxy")
    question = Question(candidate=candidate, domains=("reference",), slopes=("reference",))
    here = answer_here(standing, question, scorer_settings(standing, CLUSTER))
    known = Journal(standing.workspace.journal).get(candidate.key)
    mark = standing.frame.domains["reference"]
    assert here.scores[mark].loss == pytest.approx(known.scores[mark].loss, rel=1e-6)
    assert dict(here.slopes[mark]) == pytest.approx(dict(known.slopes[mark]), rel=1e-4, abs=1e-7)
    again = engine.search(asked, cluster=CLUSTER)
    assert [row.candidate.key for row in again.mixtures] == [
        r.candidate.key for r in board.mixtures
    ]
    engine.search(study(ran), cluster=CLUSTER)


@pytest.mark.slow
def test_a_race_keeps_the_winner_and_its_scores(ran: Path) -> None:
    random = ("search.space={kind: simplex}", "search.algorithm=random", "search.trials=24")
    raced = engine.search(study(ran, *random, "search.racing={alpha: 0.2}"), cluster=CLUSTER)
    stopped = {row.candidate.key: row for row in raced.stopped}
    seconds = {row.candidate.key: row.evaluate_seconds for row in raced.mixtures}
    assert stopped and all(row.objective is None for row in stopped.values())
    table = {r["trial"]: r for r in rows(ran)}
    whole = table[raced.best.candidate.key]["evaluated_tokens"]
    assert all(0 < table[key]["evaluated_tokens"] < whole for key in stopped)
    full = engine.search(study(ran, *random), cluster=CLUSTER)
    assert full.best.candidate.key == raced.best.candidate.key
    assert full.best.losses == raced.best.losses and not full.stopped
    for row in full.mixtures:
        if row.candidate.key in stopped:
            early = stopped[row.candidate.key].stopped
            assert early is not None and row.objective is not None
            assert abs(early.estimate - row.objective) < 0.05
            assert row.candidate.key not in seconds
    engine.search(study(ran), cluster=CLUSTER)


@pytest.mark.slow
def test_groups_are_searched_first(ran: Path) -> None:
    asked = study(
        ran,
        "search.space={kind: simplex, groups: {code: [python, headers]}}",
        "search.algorithm=surrogate",
        "search.trials=10",
    )
    board = engine.search(asked, cluster=CLUSTER)
    weights = [dict(r.candidate.mixture.weights) for r in board.mixtures if r.candidate.mixture]
    whole = [w for w in weights if {"python", "headers"} <= set(w)]
    # A group's share is spread by trained tokens: two units of python, one of headers.
    assert sum(w["python"] == pytest.approx(2 * w["headers"]) for w in whole) >= 3
    engine.search(study(ran), cluster=CLUSTER)
