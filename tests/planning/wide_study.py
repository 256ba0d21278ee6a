"""A study over many partitions that differ in nothing, for tests of plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ablate.study import Study

PARTITIONS = 12


def write_texts(folder: Path) -> Path:
    """Write the texts of the study, in one file; return the folder."""
    rows = [{"text": "some words " * 20, "part": f"p{i:02d}"} for i in range(PARTITIONS)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def wide_study(folder: Path, *, train: dict[str, Any] | None = None, **sections: Any) -> Study:
    """Return the study over the texts in `folder`; `train` adds to its section."""
    source = {"path": str(folder / "texts.jsonl")}
    return Study.model_validate(
        {
            "name": "s",
            "workspace": str(folder / "work"),
            "corpus": {
                "sources": [{**source, "partition_by": ["part"]}],
                "unit_tokens": 10**8,
                "short_units": "repeat",
            },
            "tokenizer": {"train": {"vocab_size": 32_000}},
            "seed": {"sources": [source], "tokens": 10**9},
            "train": {"sequence_length": 1024, "batch_tokens": 65_536, **(train or {})},
            **sections,
        }
    )
