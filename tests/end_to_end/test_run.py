"""The whole job, checked from outside: other code, float64, and the files that it leaves."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import ablate
from ablate import engine
from ablate.exporting import export_mixture, named_mixture
from ablate.resources import Cluster
from ablate.status import garbage, status
from ablate.study import Study, load_study
from ablate.workspace import read_json

CLUSTER = Cluster(cpus=2)
UNITS = {"python": 2, "headers": 1, "sessions": 1}


def study(folder: Path, *overrides: str) -> Study:
    return load_study(folder / "study.yaml", overrides)


def rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "work" / "trials.parquet").to_pylist()


def stamp(folder: Path) -> dict[str, int]:
    """Return the time of every file that a rerun may not touch."""
    kept = [*folder.glob("work/models/*/*"), folder / "work/trials.jsonl"]
    return {str(path): path.stat().st_mtime_ns for path in kept}


def unit_weights(folder: Path, partition: str) -> list[dict[str, torch.Tensor]]:
    pool = read_json(folder / "work" / "pool.json")
    assert pool is not None
    units = [unit for unit in pool["units"] if unit["partition"] == partition]
    return [load_file(folder / "work" / unit["folder"] / "model.safetensors") for unit in units]


def test_the_table_has_every_model_and_every_subset(ran: Path) -> None:
    table = rows(ran)
    kinds = [row["kind"] for row in table]
    assert kinds.count("seed") == 1 and kinds.count("unit") == sum(UNITS.values())
    found = {tuple(r["partitions"]) for r in table if r["kind"] == "proxy"}
    every = {s for n in (1, 2, 3) for s in combinations(sorted(UNITS), n)}
    assert found == every - {("headers",), ("sessions",)}  # one unit: that unit's row
    assert all(row["error"] is None and math.isfinite(row["objective"]) for row in table)
    assert kinds == sorted(kinds, key=["seed", "unit", "proxy", "trained"].index)
    for row in table:
        if row["kind"] == "proxy":
            total = sum(UNITS[name] for name in row["partitions"])
            assert row["weights"] == pytest.approx([UNITS[n] / total for n in row["partitions"]])
            domains = [name for name in row if name.startswith("loss/")]
            assert row["objective"] == pytest.approx(np.mean([row[name] for name in domains]))


def test_the_best_is_the_smallest_of_all_subsets(ran: Path) -> None:
    board = engine.leaderboard(study(ran))
    table = [
        row
        for row in rows(ran)
        if row["merge"] == "linear" or (row["kind"] == "unit" and UNITS[row["partitions"][0]] == 1)
    ]
    best = min(table, key=lambda row: row["objective"])
    assert list(board.best.partitions) == best["partitions"]
    assert board.best.objective == best["objective"]
    for size, row in board.best_of_size.items():
        assert row.objective == min(r["objective"] for r in table if r["size"] == size)


def test_a_units_model_is_the_best_unit_on_its_own_text(ran: Path) -> None:
    units = [row for row in rows(ran) if row["kind"] == "unit"]
    for name in UNITS:
        best = min(units, key=lambda row: row[f"loss/{name}"])
        assert best["partitions"] == [name]


def test_an_exported_mixture_is_the_float64_average_of_its_units(ran: Path, tmp_path: Path) -> None:
    out = export_mixture(study(ran), "python, headers", tmp_path / "merged", "checkpoint")
    members = unit_weights(ran, "python") + unit_weights(ran, "headers")
    merged = load_file(out / "model.safetensors")
    for name, tensor in merged.items():
        exact = torch.stack([m[name].double() for m in members]).mean(0)
        torch.testing.assert_close(tensor.double(), exact, rtol=2e-7, atol=1e-9)
    again = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.eos_token_id is not None
    assert tokenizer("def f():")["input_ids"] == tokenizer.encode(
        "def f():", add_special_tokens=False
    )
    assert again.num_parameters() > 0


def test_losses_equal_an_independent_hugging_face_computation(ran: Path, tmp_path: Path) -> None:
    out = export_mixture(study(ran), "python, sessions", tmp_path / "merged", "checkpoint")
    model = AutoModelForCausalLM.from_pretrained(out).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    stream: list[int] = []
    for line in (ran / "data" / "reference.jsonl").read_text().splitlines():
        text = json.loads(line)["text"]
        stream += tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    stream = stream[:2000]
    nats = tokens = 0.0
    with torch.no_grad():
        for start in range(0, len(stream), 64):
            window = torch.tensor([stream[start : start + 64]])
            loss = model(input_ids=window, labels=window).loss
            nats += float(loss) * (window.shape[1] - 1)
            tokens += window.shape[1] - 1
    row = next(
        r for r in rows(ran) if r["merge"] == "linear" and r["partitions"] == ["python", "sessions"]
    )
    assert row["loss/reference"] == pytest.approx(nats / tokens, rel=1e-5)


def test_the_evaluated_bytes_are_the_texts_own(ran: Path) -> None:
    path = ran / "work/corpus/reference/evaluation.arrow"
    with pyarrow.memory_map(str(path)) as source:
        table = pyarrow.ipc.open_file(source).read_all()
    assert table.num_rows == 2000


def test_a_rerun_does_nothing(ran: Path) -> None:
    before = stamp(ran)
    board = engine.run(study(ran), cluster=CLUSTER)
    assert stamp(ran) == before
    assert board.best.objective is not None


def test_another_objective_needs_no_new_scores(ran: Path) -> None:
    before = stamp(ran)
    board = engine.search(study(ran, "search.objective={domain: headers}"), cluster=CLUSTER)
    assert stamp(ran) == before
    assert "headers" in board.best.partitions
    engine.search(study(ran), cluster=CLUSTER)


def test_score_answers_one_explicit_mixture(ran: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.json"
    weights.write_text(json.dumps({"python": 0.2, "headers": 0.8}))
    mixture = named_mixture(study(ran), str(weights))
    pool = engine.train(study(ran), cluster=CLUSTER)
    row = ablate.score(pool, mixture, cluster=CLUSTER)
    assert dict(row.candidate.mixture.weights) == pytest.approx({"headers": 0.8, "python": 0.2})
    assert row.candidate.coefficients == (
        (("headers", 0), pytest.approx(0.8)),
        (("python", 0), pytest.approx(0.1)),
        (("python", 1), pytest.approx(0.1)),
    )
    assert row.objective is not None and math.isfinite(row.objective)


def test_a_new_partition_trains_itself_only_and_keeps_the_scores(ran: Path) -> None:
    before = stamp(ran)
    lines = (ran / "work/trials.jsonl").read_text().splitlines()
    more = study(
        ran,
        "corpus.sources=[{path: data/python.jsonl.gz, partition: python, max_tokens: 25000},"
        "{path: data/headers.jsonl, partition: headers, max_tokens: 14000},"
        "{path: data/tests.jsonl, partition: sessions, max_tokens: 14000},"
        "{path: data/more.jsonl, partition: more, max_tokens: 14000}]",
    )
    board = engine.run(more, cluster=CLUSTER)
    assert len(board.mixtures) == 15
    after = stamp(ran)
    models = {path for path in after if "/models/" in path}
    new = models - set(before)
    assert new and all("unit-more-0-" in path for path in new)
    assert all(after[path] == time for path, time in before.items() if "/models/" in path)
    assert (ran / "work/trials.jsonl").read_text().splitlines()[: len(lines)] == lines
    engine.run(study(ran), cluster=CLUSTER)
    unused = garbage(study(ran)).folders
    assert any("unit-more-0-" in path.name for path in unused)
    assert not any("unit-python" in path.name for path in unused)


@pytest.mark.faults
def test_a_damaged_journal_loses_only_the_damaged_lines(ran: Path) -> None:
    path = ran / "work/trials.jsonl"
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    path.write_text("".join([lines[0].replace("nats", "nuts"), *lines[1:], '{"cut']))
    reference = {r["trial"]: r["objective"] for r in rows(ran)}
    engine.search(study(ran), cluster=CLUSTER)
    assert {r["trial"]: r["objective"] for r in rows(ran)} == reference


@pytest.mark.faults
def test_an_altered_unit_model_is_noticed_and_trained_again(
    ran: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pool = read_json(ran / "work/pool.json")
    assert pool is not None
    unit = next(u for u in pool["units"] if u["partition"] == "headers")
    file = ran / "work" / unit["folder"] / "model.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-4] + b"\x00\x00\x80\x3f")
    engine.train(study(ran), cluster=CLUSTER)
    assert file.read_bytes() == good


def test_status_says_what_is_done(ran: Path) -> None:
    now = status(study(ran))
    assert (now.prepared, now.seed_trained, now.units, now.units_trained) == (True, True, 4, 4)
    assert now.mixtures_scored == 7 and now.next == "validate"
