"""Real text of several domains, where it is at hand."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from corpora import make, study_of

from ablate.corpus import read_domain

DATA = Path(
    os.environ.get("ABLATE_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)
NAMES = ("factbook", "grade_school_math", "peps")

pytestmark = pytest.mark.skipif(
    not (DATA / "peps.train.jsonl.gz").exists(), reason=f"no real text in {DATA}"
)


def test_real_domains(tmp_path: Path) -> None:
    study = study_of(
        tmp_path,
        [
            {"path": str(DATA / f"{name}.train.jsonl.gz"), "partition": name, "max_tokens": 60_000}
            for name in NAMES
        ],
        domains={name + "-val": str(DATA / f"{name}.validation.jsonl.gz") for name in NAMES},
        corpus={"unit_tokens": 20_000, "heldout": {"documents": 0.02}},
        evaluate={
            "domains": {n + "-val": str(DATA / f"{n}.validation.jsonl.gz") for n in NAMES},
            "tokens_per_domain": 20_000,
        },
        tokenizer={"train": {"vocab_size": 2048}},
        seed={
            "sources": [{"path": str(DATA / "presidential_addresses.train.jsonl.gz")}],
            "tokens": 50_000,
        },
    )
    corpus, root = make(study), Path(study.workspace)
    for name in NAMES:
        info = corpus.partitions[name]
        assert (info.units, info.tokens, info.unused_tokens) == (3, 60_000, 0)
        assert info.dropped["contaminated"] <= 5
        assert info.dropped["duplicate"] == info.dropped["not_text"] == 0
        tokens, sizes = read_domain(root, corpus.domains[name + "-val"])
        assert len(tokens) == 20_000
        with gzip.open(DATA / f"{name}.validation.jsonl.gz", "rt", encoding="utf-8") as lines:
            documents = [json.loads(line)["text"].encode() for line in lines]
        ends = [int(end) for end in (tokens == corpus.tokenizer.eos_token_id).nonzero()[0]]
        for start, end, document in zip([-1, *ends], ends, documents, strict=False):
            assert int(sizes[start + 1 : end].sum()) == len(document)
