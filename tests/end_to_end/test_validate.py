"""`validate` on a real pool: trained mixtures, agreement, calibration, and what follows from them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM

from ablate import engine
from ablate.cluster.session import session
from ablate.errors import StudyError, WorkspaceError
from ablate.resources import Cluster
from ablate.search.journal import Journal
from ablate.standing import standing_of
from ablate.status import garbage, status
from ablate.study import Study, load_study
from ablate.validate.agreement import Agreement

CLUSTER = Cluster(cpus=2)
# Four partitions: six pairs, four of three, the one of all, and the one that has two units.
SOURCES = (
    "corpus.sources=[{path: data/python.jsonl.gz, partition: python, max_tokens: 25_000}, "
    "{path: data/headers.jsonl, partition: headers, max_tokens: 14_000}, "
    "{path: data/tests.jsonl, partition: sessions, max_tokens: 14_000}, "
    "{path: data/more.jsonl, partition: more, max_tokens: 14_000}]"
)
ASKED = "validate={mixtures: 8}"


def study(folder: Path, *overrides: str) -> Study:
    return load_study(folder / "study.yaml", (SOURCES, *overrides))


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    table = pq.read_table(folder / "work/trials.parquet").to_pylist()
    return [row for row in table if row["kind"] == kind]


def windows_of(folder: Path, domain: str) -> list[torch.Tensor]:
    """Return the evaluated tokens of a domain in windows, [1, 64 at most] each."""
    with pyarrow.memory_map(str(folder / f"work/corpus/{domain}/evaluation.arrow")) as source:
        stream = pyarrow.ipc.open_file(source).read_all().column(0).to_pylist()
    return [torch.tensor([stream[start : start + 64]]) for start in range(0, len(stream), 64)]


def mixture(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row["partitions"]), tuple(round(weight, 9) for weight in row["weights"])


def model_of(folder: Path, row: dict[str, Any]) -> Path:
    found = [
        path
        for path in (folder / "work/models").glob("trained-*")
        if json.loads((path / "training.json").read_text())["weights"]
        == pytest.approx(dict(zip(row["partitions"], row["weights"], strict=True)))
    ]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def validated(folder: Path) -> Iterator[tuple[Path, Agreement]]:
    with session(CLUSTER):
        engine.search(study(folder), engine.train(study(folder)), cluster=CLUSTER)
        yield folder, engine.validate(study(folder, ASKED), cluster=CLUSTER)


def test_every_mixture_is_trained_on_its_units_text_and_scored_like_any_model(
    validated: tuple[Path, Agreement],
) -> None:
    ran, found = validated
    trained = rows(ran, "trained")
    assert len(trained) == len(found.trained) == 8
    sizes = Counter(row["size"] for row in trained)
    assert sizes[2] >= 3 and sizes[3] >= 3
    assert sum(one.control for one in found.trained) == 1
    units = {(r["partitions"][0], r["unit"]): r["tokens"] for r in rows(ran, "unit")}
    for row in trained:
        assert row["merge"] is None and row["error"] is None
        members = [n for (name, _), n in units.items() if name in row["partitions"]]
        assert row["tokens"] == sum(members)
    row = next(r for r in trained if r["size"] == 3)
    model = AutoModelForCausalLM.from_pretrained(model_of(ran, row))
    nats, count = 0.0, 0
    with torch.no_grad():
        for window in windows_of(ran, "reference"):
            chances = model(input_ids=window).logits[0, :-1].double().log_softmax(-1)
            nats -= float(chances.gather(1, window[0, 1:, None]).sum())
            count += window.shape[1] - 1
    assert row["loss/reference"] == pytest.approx(nats / count, rel=1e-5)


def test_averaged_logits_of_the_members_are_a_baseline(validated: tuple[Path, Agreement]) -> None:
    ran, found = validated
    averaged = [row for row in rows(ran, "proxy") if row["merge"] == "logit_ensemble"]
    assert {tuple(row["partitions"]) for row in averaged} == {
        tuple(row["partitions"]) for row in rows(ran, "trained")
    }
    row = next(row for row in averaged if row["size"] == 3)
    members = [  # of each unit, the weight of its partition by its number of units
        (AutoModelForCausalLM.from_pretrained(folder), weight / len(folders))
        for name, weight in zip(row["partitions"], row["weights"], strict=True)
        for folders in [list((ran / "work/models").glob(f"unit-{name}-*"))]
        for folder in folders
    ]
    assert len(members) == 3 + ("python" in row["partitions"])
    nats, count = 0.0, 0
    with torch.no_grad():
        for window in windows_of(ran, "reference"):
            logits = [w * model(input_ids=window).logits[0, :-1].double() for model, w in members]
            chances = torch.stack(logits).sum(0).log_softmax(-1)
            nats -= float(chances.gather(1, window[0, 1:, None]).sum())
            count += window.shape[1] - 1
    assert row["loss/reference"] == pytest.approx(nats / count, rel=1e-5)
    assert row["stderr/reference"] > 0 and row["bits_per_byte/reference"] > 0
    assert "logit_ensemble" in found.proxies and found.proxies[0] == "merge"
    assert found.predictor is not None and "logit_ensemble" not in found.predictor.used


def test_agreement_can_be_recomputed_from_the_table(validated: tuple[Path, Agreement]) -> None:
    ran, found = validated
    body = json.loads((ran / "work/agreement.json").read_text())
    trained = {mixture(r): r for r in rows(ran, "trained")}
    for label, merge in (("merge", "linear"), ("ensemble", "ensemble")):
        proxies = {mixture(r): r for r in rows(ran, "proxy") if r["merge"] == merge}
        for target in ("objective", "loss/reference", "loss/python"):
            pairs = [(proxies[key][target], row[target]) for key, row in trained.items()]
            name = target.removeprefix("loss/")
            value = body["agreement"][name][label]["all"]["spearman"][0]
            assert value == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)
            same = [(proxies[k][target], r[target]) for k, r in trained.items() if r["size"] == 2]
            value = body["agreement"][name][label]["by_size"]["2"]["spearman"][0]
            assert value == pytest.approx(spearmanr(*zip(*same, strict=True)).statistic)
    assert body["targets"]["reference"] == "domain" and body["targets"]["python"] == "partition"
    assert set(found.proxies) >= {"merge", "ensemble", "members_mean", "datamodel", "mixing_law"}
    sizes = Counter(r["size"] for r in trained.values())
    ranked = sum(count for count in sizes.values() if count >= 3)
    said = "8" if ranked == 8 else f"{ranked} of 8"
    assert body["headline"].startswith(f"Within a size, the merge ranks {said} trained mixtures")
    beaten = [
        name
        for name in found.proxies[1:]
        if name != "calibrated"
        and (other := found.summary[name]["domains"]["spearman"].value) is not None
        and other >= (found.summary["merge"]["domains"]["spearman"].value or 0.0)
    ]
    assert ("does NOT beat" in body["headline"]) == bool(beaten)


def test_the_leaderboard_ranks_by_predictions_and_says_so(
    validated: tuple[Path, Agreement],
) -> None:
    ran, _ = validated
    board = engine.leaderboard(study(ran, ASKED))
    assert board.is_calibrated
    losses = [row.predicted_objective.loss for row in board.mixtures if row.predicted_objective]
    assert losses == sorted(losses) and len(losses) == 15
    for row in board.mixtures:
        whole = row.predicted_objective
        assert whole is not None and whole.lower <= whole.loss <= whole.upper
        mean = np.mean([row.predicted[name].loss for name in board.domains])
        assert whole.loss == pytest.approx(mean)
        if row.candidate.kind == "unit":
            assert whole.loss == row.objective == whole.upper
    asked = study(ran, ASKED)
    journal = Journal(asked.open_workspace().journal)
    foretold = standing_of(asked, asked.open_workspace()).foretell(journal)
    assert foretold is not None  # what a search hears, of single units too
    assert [foretold(row.candidate) for row in board.mixtures] == pytest.approx(losses)
    table = rows(ran, "proxy")
    merged = {mixture(row) for row in table if row["merge"] == "linear"}
    assert len(merged) > 10
    for row in table:  # other tests score one mixture by its units' probabilities only
        assert (row["predicted/reference"] is not None) == (mixture(row) in merged)
    assert status(study(ran, ASKED)).next == "export"


def test_a_rerun_trains_and_changes_nothing(validated: tuple[Path, Agreement]) -> None:
    ran, _ = validated
    work = ran / "work"
    before = {path: path.stat().st_mtime_ns for path in work.glob("models/**/*")}
    text = (work / "agreement.json").read_text()
    journal = (work / "trials.jsonl").read_bytes()
    engine.validate(study(ran, ASKED), cluster=CLUSTER)
    assert {path: path.stat().st_mtime_ns for path in work.glob("models/**/*")} == before
    assert (work / "agreement.json").read_text() == text
    assert (work / "trials.jsonl").read_bytes() == journal
    assert not [path for path in garbage(study(ran, ASKED)).folders if "trained" in path.name]


def test_what_was_calibrated_is_not_used_for_another_question(
    validated: tuple[Path, Agreement],
) -> None:
    ran, _ = validated
    other = engine.leaderboard(study(ran, "validate={tokens: fixed}"))
    assert not other.is_calibrated
    one = engine.leaderboard(study(ran, ASKED, "search.objective={domain: reference}"))
    assert one.is_calibrated  # the same models and texts: another sum of the same predictions
    best = one.best
    assert best.predicted_objective is not None
    assert best.predicted_objective.loss == pytest.approx(best.predicted["reference"].loss)
    slower = engine.leaderboard(study(ran, ASKED, "train.learning_rate=1e-3"))
    assert not slower.trained and not slower.is_calibrated


def test_an_altered_agreement_is_refused_by_name(validated: tuple[Path, Agreement]) -> None:
    ran, _ = validated
    file = ran / "work/agreement.json"
    text = file.read_text()
    file.write_text(text.replace("0.9", "0.8", 1))
    try:
        with pytest.raises(WorkspaceError, match=r"agreement\.json"):
            engine.leaderboard(study(ran, ASKED))
    finally:
        file.write_text(text)


@pytest.mark.slow
def test_rounds_and_replicates_train_what_they_say(validated: tuple[Path, Agreement]) -> None:
    ran, _ = validated
    asked = study(ran, "validate={mixtures: 7, tokens: fixed, rounds: 1, replicates: 2}")
    for further, count in ((0, 8), (0, 8), (1, 9)):
        found = engine.validate(asked, cluster=CLUSTER, rounds=further)
        assert len(found.trained) == count
    assert all(len(one.losses) == 2 for one in found.trained)
    assert all(one.losses[0] != one.losses[1] for one in found.trained)
    assert found.noise_floor.keys() == found.targets.keys()
    engine.validate(study(ran, ASKED), cluster=CLUSTER)


@pytest.mark.slow
def test_a_mixture_merged_for_other_text_is_not_chosen(validated: tuple[Path, Agreement]) -> None:
    ran, _ = validated
    other = ("evaluate.tokens_per_domain=1_500", "search.space.min_size=3")
    engine.prepare(study(ran, *other), cluster=CLUSTER)
    engine.search(study(ran, *other), cluster=CLUSTER)
    # The pairs have an ensemble on the shorter text, but no merge.
    asked = study(ran, "evaluate.tokens_per_domain=1_500", ASKED)
    board = engine.leaderboard(asked)
    assert {row.size for row in board.trials if row.candidate.merge == "ensemble"} >= {2, 3}
    found = engine.validate(asked, cluster=CLUSTER)
    assert found.proxies[0] == "merge"
    assert all(one.subject.size != 2 for one in found.trained)
    engine.prepare(study(ran), cluster=CLUSTER)
    engine.search(study(ran), cluster=CLUSTER)
    engine.validate(study(ran, ASKED), cluster=CLUSTER)


def test_impossible_choices_are_named(validated: tuple[Path, Agreement]) -> None:
    ran, _ = validated
    with pytest.raises(StudyError, match=r"validate\.sizes"):
        engine.validate(study(ran, "validate={mixtures: 3, sizes: [9]}"), cluster=CLUSTER)
    models = set((ran / "work/models").iterdir())
    few = study(ran, "validate={mixtures: 3, tokens: fixed, total_tokens: 9_216, rounds: 1}")
    with pytest.raises(StudyError, match=r"validate\.rounds must follow 7 .* got 3"):
        engine.validate(few, cluster=CLUSTER)
    assert set((ran / "work/models").iterdir()) == models
