"""`prepare` reads one file in one task: what a plan makes of few files, and of large ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablate.planning.forecast import Forecast, forecast_of
from ablate.planning.preparing import (
    ENCODED_TOKENS,
    LEARNED_BYTES_PER_SECOND,
    PREPARED_TOKENS,
    SCANNED_TOKENS,
)
from ablate.planning.setting import RAY_START, TASK_START
from ablate.planning.texts import TextFile
from ablate.planning.work import Work, work_of
from ablate.resources import Cluster
from ablate.study import Study

TEXT = "some words of a text that stands for many more " * 4
BILLION = 10**9


def study(folder: Path, **sections: Any) -> Study:
    for name, rows in {"a": 30, "b": 10, "seed": 10, "reference": 4}.items():
        lines = [json.dumps({"text": TEXT, "part": f"p{row % 2}"}) for row in range(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    source = {"path": str(folder / "[ab].jsonl"), "partition_by": ["part"]}
    tree = {
        "name": "s",
        "workspace": str(folder / "work"),
        "corpus": {"sources": [source], "unit_tokens": 64, "decontaminate": None},
        "tokenizer": {"train": {"vocab_size": 400}},
        "model": {"preset": "tiny"},
        "seed": {"sources": [{"path": str(folder / "seed.jsonl")}], "tokens": 640},
        "train": {"sequence_length": 32, "batch_tokens": 64},
        "evaluate": {
            "domains": {"reference": str(folder / "reference.jsonl")},
            "tokens_per_domain": 200,
        },
    }
    return Study.model_validate({**tree, **sections})


def cluster(cpus: int) -> Cluster:
    nodes = {"cpus": cpus, "cpu_gflops": 50, "memory_gb_per_second": 50, "memory_gb": 64}
    return Cluster.model_validate({"nodes": nodes})


def files(*tokens: int) -> tuple[TextFile, ...]:
    return tuple(
        TextFile(path=f"texts/{number:02d}.jsonl", kind="partition", tokens=size, kept=size)
        for number, size in enumerate(tokens)
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Work]:
    one = study(tmp_path_factory.mktemp("texts"))
    return one, work_of(one)


def planned(small: tuple[Study, Work], cpus: int, *tokens: int) -> tuple[float, Forecast]:
    found = forecast_of(small[0], cluster(cpus), replace(small[1], texts=files(*tokens)))
    return found.stages[0].seconds or 0.0, found


def test_tokens_are_shared_out_among_the_files_by_their_size(small: tuple[Study, Work]) -> None:
    work = small[1]
    by_name = {Path(file.path).stem: file for file in work.texts}
    assert sorted(by_name) == ["a", "b", "reference", "seed"]
    a, b = by_name["a"].kept, by_name["b"].kept
    assert a + b == pytest.approx(sum(part.tokens for part in work.partitions), abs=2)
    assert a / b == pytest.approx(3, rel=0.02)
    # The seed keeps what it is trained on at most; all of its file is read.
    assert by_name["seed"].kept <= 640 < by_name["seed"].tokens + 200
    assert by_name["reference"].kept == 0 < by_name["reference"].tokens
    assert work.to_json()["texts"][0]["path"].endswith("a.jsonl")


def test_a_file_is_one_task_however_many_cpus_there_are(small: tuple[Study, Work]) -> None:
    two, _ = planned(small, 2, BILLION, BILLION, BILLION)
    three, _ = planned(small, 3, BILLION, BILLION, BILLION)
    many, found = planned(small, 1000, BILLION, BILLION, BILLION)
    one_file = BILLION / SCANNED_TOKENS + BILLION / ENCODED_TOKENS
    assert one_file == pytest.approx(BILLION / PREPARED_TOKENS)
    assert one_file < many == three < 1.05 * one_file
    assert 1.9 * one_file < two < 2.05 * one_file
    assert "3 tasks, one per file" in found.stages[0].basis


def test_one_large_file_bounds_the_time_and_is_named(small: tuple[Study, Work]) -> None:
    seconds, found = planned(small, 16, 10 * BILLION, *[BILLION // 10] * 50)
    assert seconds > 10 * BILLION / PREPARED_TOKENS
    (problem,) = found.problems
    assert "00.jsonl" in problem and "split it" in problem and "\n" not in problem
    even, fine = planned(small, 16, *[15 * BILLION // 64] * 64)
    assert even < seconds / 8 and fine.problems == ()
    # Too short to matter: nothing is said.
    assert planned(small, 16, BILLION // 10)[1].problems == ()


def test_what_is_read_but_not_kept_still_takes_its_time(small: tuple[Study, Work]) -> None:
    one = TextFile(path="novels.txt", kind="partition", tokens=BILLION, kept=1000)
    found = forecast_of(small[0], cluster(4), replace(small[1], texts=(one,))).stages[0].seconds
    assert found is not None
    assert BILLION / SCANNED_TOKENS < found < 1.1 * BILLION / SCANNED_TOKENS


def test_the_tokenizer_is_learned_by_one_task(small: tuple[Study, Work]) -> None:
    whole, work = small
    named = whole.model_copy(
        update={"tokenizer": whole.tokenizer.model_copy(update={"train": None, "path": "gpt2"})}
    )
    seed = replace(work, texts=(*files(BILLION), replace(files(0)[0], kind="seed", tokens=BILLION)))
    learned, given = (
        forecast_of(one, cluster(4), seed).stages[0].seconds or 0.0 for one in (whole, named)
    )
    assert learned - given == pytest.approx((128 << 20) / LEARNED_BYTES_PER_SECOND, rel=0.01)


def test_little_text_costs_the_start(small: tuple[Study, Work]) -> None:
    found = forecast_of(small[0], cluster(2), small[1]).stages[0].seconds
    assert found == pytest.approx(RAY_START + TASK_START, rel=0.01)
