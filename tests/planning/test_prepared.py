"""A plan of a study whose corpus is prepared already: exact while it is the study's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ablate.corpus import prepare, read_corpus
from ablate.errors import CorpusError
from ablate.planning.work import work_of
from ablate.study import Study


def here(function: Callable[..., Any], items: Sequence[Any], shared: Any, label: str) -> list[Any]:
    return [function(item, shared) for item in items]


def study(folder: Path, **corpus: Any) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "workspace": str(folder / "work"),
            "corpus": {
                "sources": [{"path": str(folder / "a.jsonl"), "partition": "a"}],
                "unit_tokens": 300,
                "heldout": {"documents": 0.2},
                "decontaminate": None,
                **corpus,
            },
            "tokenizer": {"train": {"vocab_size": 300}},
            "model": {"preset": "tiny"},
            "seed": {"sources": [{"path": str(folder / "a.jsonl")}], "tokens": 64},
            "train": {"sequence_length": 8, "batch_tokens": 16},
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [json.dumps({"text": f"document {i} has its own words"}) for i in range(60)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows) + "\n")
    one = study(tmp_path)
    prepare(one, one.open_workspace(), here)
    return tmp_path


def test_a_prepared_corpus_is_planned_exactly(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    found, corpus = work_of(study(folder)), read_corpus(study(folder).open_workspace())
    assert corpus is not None and found.exact
    assert found.partitions[0].tokens == corpus.partitions["a"].tokens
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_study_that_was_edited_is_estimated_anew(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    was = work_of(study(folder))
    now = work_of(study(folder, unit_tokens=100))
    assert not now.exact and now.partitions[0].unit_tokens[0] == 100
    assert was.units < now.units
    (line,) = capsys.readouterr().err.splitlines()
    assert "corpus changed" in line and "estimates" in line


def test_so_is_one_whose_texts_or_files_changed(folder: Path) -> None:
    with (folder / "a.jsonl").open("a") as file:
        file.write(json.dumps({"text": "one more document"}) + "\n")
    assert not work_of(study(folder)).exact
    (folder / "work" / "corpus" / "corpus.json").write_text("{")
    assert not work_of(study(folder)).exact


def test_what_is_known_of_a_corpus_needs_no_sources(folder: Path) -> None:
    """A report is made of what stands in the workspace; the texts may be elsewhere by then."""
    one = study(folder)
    corpus = read_corpus(one.open_workspace())
    (folder / "a.jsonl").unlink()
    found = work_of(one, corpus=corpus)
    assert found.exact and found.texts == ()
    with pytest.raises(CorpusError, match=r"a\.jsonl"):
        work_of(one)
