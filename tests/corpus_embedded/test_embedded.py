"""The embedded corpus: real text, the same on every run, in parts that differ."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ablate.corpus.embedded import DOMAINS, MANIFEST, PARTITIONS, SEED, write_embedded
from ablate.corpus.embedded.docstrings import split_sessions
from ablate.corpus.embedded.documents import pieces, within, without_licence
from ablate.corpus.embedded.places import package_folder
from ablate.errors import CorpusError, StudyError
from ablate.starter import demo_study, write_starter
from ablate.study import load_study

BUCKETS = 1 << 20  # of n-grams in of the small language model


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the files of one embedded corpus."""
    return write_embedded(tmp_path_factory.mktemp("embedded"))


def lines(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def test_every_part_is_there_and_of_a_fair_size(corpus: dict[str, Path]) -> None:
    assert set(corpus) == {*PARTITIONS, *DOMAINS, *SEED}
    assert len(PARTITIONS) >= 6 and len(DOMAINS) >= 2
    for name, (_, limit) in (PARTITIONS | DOMAINS | SEED).items():
        documents = lines(corpus[name])
        size = sum(len(document["text"].encode()) for document in documents)
        assert 0.3 * limit < size <= limit, name
        assert len(documents) >= 80, name
        assert all(set(document) == {"text", "source"} for document in documents)
        assert all(len(document["text"].strip()) >= 200 for document in documents)


def test_no_document_stands_twice(corpus: dict[str, Path]) -> None:
    texts = {n: [document["text"] for document in lines(path)] for n, path in corpus.items()}
    assert all(len(set(own)) == len(own) for own in texts.values())
    both = [text for own in texts.values() for text in own]
    assert len(both) - len(set(both)) < 0.002 * len(both)  # a function and its deprecated twin


def test_no_machine_path_is_in_the_sources(corpus: dict[str, Path]) -> None:
    for path in corpus.values():
        assert not any(document["source"].startswith("/") for document in lines(path))


def test_evaluation_text_is_not_in_training_text(corpus: dict[str, Path]) -> None:
    def grams(name: str) -> list[set[tuple[str, ...]]]:
        words = [document["text"].lower().split() for document in lines(corpus[name])]
        return [{tuple(w[i : i + 13]) for i in range(len(w) - 12)} for w in words]

    for domain in DOMAINS:
        known = set().union(*grams(domain))
        for name in (*PARTITIONS, *SEED):
            shared = [len(g & known) > 0.3 * len(g) for g in grams(name) if g]
            assert np.mean(shared) < 0.01, (domain, name)


def test_a_partition_is_most_like_itself(corpus: dict[str, Path]) -> None:
    """A 4-gram model of bytes, trained on a partition, reads its held-out part best."""
    text = {
        name: np.frombuffer(
            "\n".join(document["text"] for document in lines(corpus[name])).encode()[:400_000],
            dtype=np.uint8,
        )
        for name in PARTITIONS
    }
    models = {name: counts(own[:-40_000]) for name, own in text.items()}
    for name in PARTITIONS:
        bits = {other: cross_entropy(models[other], text[name][-40_000:]) for other in PARTITIONS}
        assert bits.pop(name) + 0.1 < min(bits.values()), name


Counts = list[tuple[np.ndarray, np.ndarray]]


def codes(data: np.ndarray, order: int) -> np.ndarray:
    """Return a number for each byte (from the fourth on) with its `order` predecessors."""
    code = np.zeros(len(data) - 3, dtype=np.int64)
    for start in range(3 - order, 4):
        code = code * 257 + data[start : len(data) - 3 + start] + 1
    return code


def counts(train: np.ndarray) -> Counts:
    """Return for each order how often n-grams and their contexts occur, by bucket."""
    return [
        (
            np.bincount(codes(train, order) % BUCKETS, minlength=BUCKETS),
            np.bincount(codes(train, order) // 257 % BUCKETS, minlength=BUCKETS),
        )
        for order in range(4)
    ]


def cross_entropy(model: Counts, test: np.ndarray) -> float:
    """Return bits per byte of `test` under a smoothed 4-gram model."""
    probability = np.full(len(test) - 3, 1 / 256)
    for order, (full, context) in enumerate(model):
        seen = codes(test, order)
        above = full[seen % BUCKETS] + 2 * probability
        probability = above / (context[seen // 257 % BUCKETS] + 2)
    return float(-np.log2(np.minimum(probability, 1)).mean())


def test_the_same_packages_give_the_same_bytes(corpus: dict[str, Path], tmp_path: Path) -> None:
    """Another process, with other hashes of texts, writes equal files."""
    program = (
        "import sys; from pathlib import Path; from ablate.corpus import embedded as e\n"
        "for n in ('cpp', 'javascript', 'minified', 'reference', 'python'):\n"
        "    texts, limit = (e.PARTITIONS | e.DOMAINS)[n]\n"
        "    Path(sys.argv[1], n).write_bytes(e.packed(n, e.within(texts(), limit)))\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        check=True,
    )
    for path in tmp_path.iterdir():
        assert path.read_bytes() == corpus[path.name].read_bytes(), path.name


def test_a_complete_corpus_is_not_written_again(corpus: dict[str, Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in corpus.values()}
    assert write_embedded(next(iter(corpus.values())).parent) == corpus
    assert {path: path.stat().st_mtime_ns for path in corpus.values()} == before


def test_a_missing_package_is_named() -> None:
    with pytest.raises(CorpusError, match="'no_such_package_here'"):
        package_folder("no_such_package_here")


def test_the_demo_study_is_a_study(corpus: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(demo_study(), encoding="utf-8")
    study = load_study(path)
    assert {Path(s.path).name for s in study.corpus.sources} == {
        corpus[name].name for name in PARTITIONS
    }
    assert {s.partition for s in study.corpus.sources} == set(PARTITIONS)
    assert set(study.evaluate.domains) == set(DOMAINS)
    assert study.search.trials >= 2 ** len(PARTITIONS) - 1
    for source in study.corpus.sources:
        assert source.max_tokens is not None and source.max_tokens > study.corpus.unit_tokens


def test_init_writes_once(corpus: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "new"
    (folder / "data").mkdir(parents=True)
    for path in [*corpus.values(), next(iter(corpus.values())).parent / MANIFEST]:
        os.link(path, folder / "data" / path.name)
    study = load_study(write_starter(folder))
    assert all(Path(source.path).is_file() for source in study.corpus.sources)
    with pytest.raises(StudyError, match="must not replace a study"):
        write_starter(folder)


def test_long_files_are_cut_at_line_ends() -> None:
    text = "".join(f"line {i} of a long file\n" for i in range(1_000))
    cut = list(pieces("f", text))
    assert all(1_000 < len(document.text) <= 4_000 for document in cut)
    assert "\n".join(document.text for document in cut) == text.rstrip("\n")
    assert list(pieces("f", "short\n")) == []


def test_near_copies_are_left_out() -> None:
    words = " ".join(f"word{i}" for i in range(100))
    cut = list(pieces("a", words)) + list(pieces("b", words + " more"))
    assert [document.source for document in within(cut, 10_000)] == ["a#0"]


def test_legal_notes_are_left_out() -> None:
    note = "// Licensed to the Foundation under one or more agreements.\n// See LICENSE.\n\n"
    assert without_licence(note + "#pragma once\n") == "\n#pragma once\n"
    assert without_licence("// What this does.\nint x;\n") == "// What this does.\nint x;\n"


def test_sessions_and_prose_share_no_line() -> None:
    docstring = "Sum.\n\n    >>> sum([1, 2])\n    3\n\nThe end."
    prose, sessions = split_sessions(docstring)
    assert "Sum." in prose and "The end." in prose and ">>>" not in prose
    assert sessions == "    >>> sum([1, 2])\n    3"
