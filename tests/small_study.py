"""A small study on real text (Python and C++ sources, the language reference), and its data."""

from __future__ import annotations

import gzip
import json
import pydoc_data.topics
import sysconfig
from pathlib import Path

import torch

STUDY = """
name: small
workspace: work
corpus:
  sources:
    - {path: data/python.jsonl.gz, partition: python, max_tokens: 25_000}
    - {path: data/headers.jsonl, partition: headers, max_tokens: 14_000}
    - {path: data/tests.jsonl, partition: sessions, max_tokens: 14_000}
  unit_tokens: 12_000
  heldout: {documents: 0.1}
tokenizer: {train: {vocab_size: 512}}
model:
  preset: tiny
  overrides: {hidden_size: 48, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 2}
seed: {sources: [{path: data/seed.jsonl}], tokens: 24_000, learning_rate: 4e-3}
train: {sequence_length: 64, batch_tokens: 1024, learning_rate: 3e-3, schedule: constant}
evaluate: {domains: {reference: data/reference.jsonl}, tokens_per_domain: 2_000}
search: {objective: {mean: all}}
"""


def pieces(text: str, size: int = 1200) -> list[str]:
    """Cut a text at line ends into documents of about `size` characters."""
    found, current = [], ""
    for line in text.splitlines(keepends=True):
        current += line
        if len(current) >= size:
            found.append(current)
            current = ""
    return [*found, current]


def write(path: Path, texts: list[str], limit: int) -> None:
    lines, total = [], 0
    for text in texts:
        if total > limit:
            break
        total += len(text)
        lines.append(json.dumps({"text": text}))
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def sources(folder: Path, pattern: str) -> list[str]:
    return [
        piece
        for file in sorted(folder.glob(pattern))
        for piece in pieces(file.read_text(encoding="utf-8", errors="ignore"))
    ]


def make_study(root: Path) -> Path:
    """Write study.yaml and its data below `root`, and return `root`."""
    data = root / "data"
    data.mkdir()
    library = Path(sysconfig.get_path("stdlib"))
    headers = Path(torch.__file__).parent / "include" / "c10"
    write(data / "python.jsonl.gz", sources(library, "email/*.py"), 140_000)
    write(data / "headers.jsonl", sources(headers, "**/*.h"), 60_000)
    write(data / "tests.jsonl", sources(library, "asyncio/*.py"), 60_000)
    write(data / "more.jsonl", sources(library, "json/*.py"), 60_000)
    write(data / "seed.jsonl", sources(library, "multiprocessing/*.py"), 120_000)
    topics = pydoc_data.topics.topics
    write(data / "reference.jsonl", [topics[name] for name in sorted(topics)], 30_000)
    (root / "study.yaml").write_text(STUDY)
    return root
