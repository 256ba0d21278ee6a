"""One head for a module's tests, and a tiny study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from heads import Head, running_head

STUDY = """
name: tiny
workspace: work
corpus:
  sources: [{path: a.txt, partition: a}, {path: b.txt, partition: b}]
  unit_tokens: 120
  heldout: {documents: 0.2}
tokenizer: {train: {vocab_size: 300}}
model:
  preset: tiny
  overrides: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 1}
seed: {sources: [{path: b.txt}], tokens: 64}
train: {sequence_length: 8, batch_tokens: 16}
evaluate: {domains: {c: c.txt}, tokens_per_domain: 50}
"""


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with running_head(tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tiny study and its data."""
    for name in "ab":
        lines = [f"the line of {name} that is number {i} of all\n" for i in range(40)]
        (tmp_path / f"{name}.txt").write_text("".join(lines))
    (tmp_path / "c.txt").write_text("something else, quite different\n" * 3 + "and more\n")
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path
