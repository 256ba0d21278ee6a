"""Small corpora with known properties, and ways to run tasks."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ablate.corpus import Corpus, prepare
from ablate.study import Study


def serial(
    function: Callable[[Any, Any], Any], items: Sequence[Any], shared: Any, label: str
) -> list[Any]:
    return [function(item, shared) for item in items]


def backwards(
    function: Callable[[Any, Any], Any], items: Sequence[Any], shared: Any, label: str
) -> list[Any]:
    """Last item first, and everything through pickle, as between processes."""
    shared = pickle.dumps(shared)
    results = [
        pickle.loads(pickle.dumps(function(pickle.loads(pickle.dumps(item)), pickle.loads(shared))))
        for item in reversed(items)
    ]
    return results[::-1]


def words(topic: str, seed: int, count: int) -> str:
    """Return words of a topic's own small vocabulary: no long n-gram stands in two documents."""
    rng = random.Random(f"{topic}-{seed}")
    return " ".join(f"{topic}{rng.randrange(400)}" for _ in range(count))


def texts(topic: str, count: int, length: int = 40, start: int = 0) -> list[str]:
    return [words(topic, start + number, length) for number in range(count)]


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": row} if isinstance(row, str) else row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def study_of(
    folder: Path,
    sources: Sequence[dict[str, Any]] = (),
    *,
    domains: dict[str, Any] | None = None,
    corpus: dict[str, Any] | None = None,
    **more: Any,
) -> Study:
    """Return a study with a trained tokenizer and a seed of its own under `folder`."""
    seed = folder / "seed.jsonl"
    if not seed.exists():
        write_lines(seed, texts("seed", 60))
    settings = {"unit_tokens": 500, "heldout": {"documents": 0.2}, **(corpus or {})}
    tree = {
        "name": "test",
        "workspace": str(folder / "workspace"),
        "corpus": {"sources": list(sources), **settings},
        "tokenizer": {"train": {"vocab_size": 400}},
        "model": {"preset": "tiny"},
        "seed": {"sources": [{"path": str(seed)}]},
        "evaluate": {"domains": domains or {}, **more.pop("evaluate", {})},
        **more,
    }
    return Study.model_validate(tree)


def make(study: Study, run: Any = serial) -> Corpus:
    return prepare(study, study.open_workspace(), run)


def named(path: Path, name: str, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "partition": name, **more}
