"""Plans before anything is prepared: near what is made, and refused where a run would be."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ablate.errors import UserError
from ablate.planning import work_of
from ablate.study import Study


def text_file(path: Path, documents: int) -> str:
    rng = random.Random(path.name)
    words = ["court", "ruling", "number", "theorem", "the", "of", "recipe", "butter"]
    lines = [
        json.dumps({"text": " ".join(rng.choice(words) for _ in range(200))})
        for _ in range(documents)
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def study(folder: Path, **sections: Any) -> Study:
    tree = {
        "name": "s",
        "workspace": str(folder / "work"),
        "corpus": {
            "sources": [{"path": text_file(folder / "law.jsonl", 60), "partition": "law"}],
            "unit_tokens": 4000,
        },
        "tokenizer": {"train": {"vocab_size": 400}},
        "model": {"preset": "tiny"},
        "seed": {"sources": [{"path": text_file(folder / "seed.jsonl", 100)}]},
        "train": {"sequence_length": 64, "batch_tokens": 256},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return Study.model_validate(tree)


def test_the_seeds_tokens_are_those_of_its_sources(tmp_path: Path) -> None:
    found = work_of(study(tmp_path))
    assert not found.exact
    assert 100 * 200 < found.seed_tokens < 100 * 200 * 8
    limited = work_of(study(tmp_path, seed={"tokens": 2048}))
    assert limited.seed_tokens == 2048
    assert not (tmp_path / "work").exists()


def test_a_short_partition_is_planned_as_the_policy_says(tmp_path: Path) -> None:
    huge = {"unit_tokens": 10**12}
    allowed = work_of(study(tmp_path, corpus={**huge, "short_units": "allow"})).partitions[0]
    assert allowed.units == 1 and allowed.unit_tokens[0] == allowed.tokens
    assert allowed.unused_tokens == 0
    repeated = work_of(study(tmp_path, corpus={**huge, "short_units": "repeat"})).partitions[0]
    assert repeated.unit_tokens == (10**12,) and repeated.unused_tokens == 0


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("corpus", {"unit_tokens": 10**12}, "at least 1,000,000,000,000 training tokens"),
        ("corpus", {"unit_tokens": 60}, "at least one sequence of 64 tokens, got 60"),
        ("model", {"overrides": {"hidden_size": 0}}, "must make a model"),
        ("model", {"overrides": {"max_position_embeddings": 32}}, "at least the sequence length"),
    ],
)
def test_what_a_run_would_refuse_is_refused(
    tmp_path: Path, section: str, values: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        work_of(study(tmp_path, **{section: values}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "work").exists()
