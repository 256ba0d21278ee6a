"""What must hold of every prepared corpus."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpora import backwards, make, named, serial, study_of, texts, write_lines

from ablate.corpus import Corpus, read_corpus, read_domain, read_tokens
from ablate.errors import CorpusError, WorkspaceError
from ablate.study import to_yaml


def two_partitions(folder: Path) -> list[dict[str, object]]:
    write_lines(folder / "law" / "b.jsonl", texts("law", 40))
    write_lines(folder / "law" / "a.jsonl", texts("law", 40, start=40))
    write_lines(folder / "math.jsonl", texts("math", 60))
    return [named(folder / "law", "law"), named(folder / "math.jsonl", "math")]


def contents(corpus: Corpus) -> dict[str, object]:
    found: dict[str, object] = {
        name: (info.train.digest, info.unit_digests) for name, info in corpus.partitions.items()
    }
    found |= {f"domain {name}": info.tokens_file.digest for name, info in corpus.domains.items()}
    return found | {"seed": corpus.seed and corpus.seed.digest, "tokenizer": corpus.tokenizer}


def test_any_order_of_tasks_in_any_process_gives_the_same_bytes(tmp_path: Path) -> None:
    sources = two_partitions(tmp_path)
    domain = write_lines(tmp_path / "news.jsonl", texts("news", 20))
    study = study_of(tmp_path, sources, domains={"news": str(domain)})
    one = make(study)
    other = study.model_copy(update={"workspace": str(tmp_path / "other")})
    two = make(other, backwards)
    assert contents(one) == contents(two)
    assert one.fingerprint == two.fingerprint
    for info in one.domains.values():
        path = info.tokens_file.path
        assert (tmp_path / "workspace" / path).read_bytes() == (
            tmp_path / "other" / path
        ).read_bytes()
    (tmp_path / "study.yaml").write_text(
        to_yaml(study.model_copy(update={"workspace": str(tmp_path / "third")}))
    )
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from corpora import make\n"
        "from ablate.study import load_study; print(make(load_study(sys.argv[1])).fingerprint)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "study.yaml"), str(Path(__file__).parent)],
        env={**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split()[-1] == one.fingerprint


def test_a_new_partition_changes_nothing_else(tmp_path: Path) -> None:
    sources = two_partitions(tmp_path)
    before = contents(make(study_of(tmp_path, sources)))
    art = write_lines(tmp_path / "art.jsonl", texts("art", 60))
    after = contents(make(study_of(tmp_path, [named(art, "art"), *sources])))
    assert {name: after[name] for name in before} == before
    assert "art" in after


def test_held_out_documents_stay_when_data_is_added(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "law.jsonl", texts("law", 60))
    study = study_of(tmp_path, [named(path, "law")], corpus={"heldout": {"documents": 0.3}})
    root = Path(study.workspace)
    first = read_domain(root, make(study).domains["law"])[0].tolist()
    write_lines(path, texts("law", 120))
    second = read_domain(root, make(study).domains["law"])[0].tolist()
    assert second[: len(first)] == first
    held = [
        text
        for text in texts("law", 60)
        if int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 2**64 < 0.3
    ]
    corpus = make(
        study_of(
            tmp_path,
            [named(write_lines(path, texts("law", 60)), "law")],
            corpus={"heldout": {"documents": 0.3}},
        )
    )
    assert corpus.partitions["law"].heldout_documents == len(held)
    assert corpus.domains["law"].bytes == sum(len(text) for text in held)


def test_units_are_the_file_in_order(tmp_path: Path) -> None:
    study = study_of(tmp_path, two_partitions(tmp_path))
    corpus, root = make(study), Path(study.workspace)
    for info in corpus.partitions.values():
        whole = read_tokens(root, info.train, 0, info.train.tokens)
        assert len(whole) == info.tokens == info.units * 500 + info.unused_tokens
        assert info.unused_tokens < 500
        for index, digest in enumerate(info.unit_digests):
            unit = read_tokens(root, info.train, index * 500, (index + 1) * 500)
            assert np.array_equal(unit, whole[index * 500 : (index + 1) * 500])
            assert hashlib.sha256(unit.astype("<u4").tobytes()).hexdigest() == digest
        eos = corpus.tokenizer.eos_token_id
        assert int((whole == eos).sum()) == info.documents
        assert whole[-1] == eos


def test_tokens_are_those_of_the_exported_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    odd = ["naïve café 😀 日本語\u2028x", "plain words", "tabs\tand\r\nlines\n\n  end "]
    path = write_lines(tmp_path / "odd.jsonl", odd)
    study = study_of(tmp_path, [], domains={"odd": str(path)}, units={"brought": ["somewhere"]})
    corpus, root = make(study), Path(study.workspace)
    tokenizer = AutoTokenizer.from_pretrained(root / "corpus" / "@tokenizer")
    tokens, sizes = read_domain(root, corpus.domains["odd"])
    expected: list[int] = []
    for text in odd:
        expected += [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert tokens.tolist() == expected
    assert sizes.sum() == corpus.domains["odd"].bytes == sum(len(t.encode()) for t in odd)
    assert not sizes[tokens == tokenizer.eos_token_id].any()
    assert corpus.partitions == {}


def test_evaluated_tokens_are_the_first_of_the_stream(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "news.jsonl", texts("news", 30))
    whole = study_of(tmp_path, [], domains={"n": str(path)}, units={"b": ["x"]})
    corpus = make(whole)
    tokens, sizes = read_domain(Path(whole.workspace), corpus.domains["n"])
    some = study_of(
        tmp_path, [], domains={"n": str(path)}, units={"b": ["x"]},
        evaluate={"domains": {"n": str(path)}, "tokens_per_domain": 333},
    )  # fmt: skip
    info = make(some).domains["n"]
    first, first_sizes = read_domain(Path(some.workspace), info)
    assert info.tokens == len(first) == 333
    assert np.array_equal(first, tokens[:333])
    assert np.array_equal(first_sizes, sizes[:333])
    assert info.bytes == sizes[:333].sum()
    assert info.documents == int((tokens[:332] == corpus.tokenizer.eos_token_id).sum()) + 1


def test_max_tokens_keeps_the_first_of_the_partition(tmp_path: Path) -> None:
    sources = two_partitions(tmp_path)
    study = study_of(tmp_path, sources)
    root = Path(study.workspace)
    law = make(study).partitions["law"]
    whole = read_tokens(root, law.train, 0, law.tokens)
    for limit in (777, law.tokens - 100):
        short = make(study_of(tmp_path, [{**sources[0], "max_tokens": limit}, sources[1]]))
        info = short.partitions["law"]
        assert info.tokens == limit
        assert np.array_equal(read_tokens(root, info.train, 0, limit), whole[:limit])
        assert info.documents == int((whole[: limit - 1] == short.tokenizer.eos_token_id).sum()) + 1
        assert info.heldout_documents == law.heldout_documents


def test_seed_tokens_limit_what_is_stored(tmp_path: Path) -> None:
    study = study_of(tmp_path, two_partitions(tmp_path))
    whole = make(study)
    assert whole.seed is not None
    more = {"sources": [{"path": str(tmp_path / "seed.jsonl")}], "tokens": 321}
    short = make(study_of(tmp_path, two_partitions(tmp_path), seed=more))
    assert short.seed is not None
    assert short.seed.tokens == 321
    assert short.tokenizer == whole.tokenizer
    longer = {"sources": [{"path": str(tmp_path / "seed.jsonl")}], "tokens": 10**9}
    again = make(study_of(tmp_path, two_partitions(tmp_path), seed=longer))
    assert again.seed == whole.seed


def test_short_partitions(tmp_path: Path) -> None:
    sources = two_partitions(tmp_path)
    with pytest.raises(CorpusError, match=r"at least 1,000,000.*law .*math .*unit_tokens"):
        make(study_of(tmp_path, sources, corpus={"unit_tokens": 10**6}))
    allow = make(
        study_of(tmp_path, sources, corpus={"unit_tokens": 10**6, "short_units": "allow"})
    ).partitions["law"]
    assert allow.unit_tokens == (allow.tokens,)
    assert allow.unused_tokens == 0
    size = allow.tokens * 2 + 5
    study = study_of(tmp_path, sources, corpus={"unit_tokens": size, "short_units": "repeat"})
    info = make(study).partitions["law"]
    assert (info.units, info.unit_tokens, info.unused_tokens) == (1, (size,), 0)
    tokens = read_tokens(Path(study.workspace), info.train, 0, info.tokens)
    repeated = np.tile(tokens, 3)[:size].astype("<u4").tobytes()
    assert info.unit_digests == (hashlib.sha256(repeated).hexdigest(),)


def test_a_preparation_that_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    study = study_of(tmp_path, two_partitions(tmp_path))

    def stops(function: object, items: object, shared: object, label: str) -> list[object]:
        if label == "pack":
            (tmp_path / "workspace" / "corpus" / ".tmp-killed").mkdir()
            raise KeyboardInterrupt
        return serial(function, items, shared, label)  # type: ignore[arg-type]

    with pytest.raises(KeyboardInterrupt):
        make(study, stops)
    assert read_corpus(study.open_workspace()) is None
    make(study)
    assert not list(Path(study.workspace).rglob(".tmp-*"))


def test_a_rerun_does_nothing(tmp_path: Path) -> None:
    study = study_of(tmp_path, two_partitions(tmp_path))
    corpus = make(study)
    times = {path: path.stat().st_mtime_ns for path in Path(study.workspace).rglob("*")}

    def never(*_: object) -> list[object]:
        raise RuntimeError("a rerun must not start tasks")

    assert make(study, never) == corpus == read_corpus(study.open_workspace())
    assert {path: path.stat().st_mtime_ns for path in Path(study.workspace).rglob("*")} == times
    assert not list(Path(study.workspace).rglob(".tmp-*"))


def test_altered_files_are_noticed_and_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_of(tmp_path, two_partitions(tmp_path))
    corpus = make(study)
    for name in ("law/train.arrow", "math/heldout.arrow", "@tokenizer/tokenizer.json"):
        path = Path(study.workspace) / "corpus" / name
        good = path.read_bytes()
        damaged = bytearray(good)
        damaged[len(good) // 2] ^= 1
        path.write_bytes(bytes(damaged))
        again = make(study)
        assert f"{name} does not match its digest" in capsys.readouterr().err
        assert contents(again) == contents(corpus)
        assert path.read_bytes() == good
    for name in ("@seed/train.arrow", "corpus.json"):
        path = Path(study.workspace) / "corpus" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert contents(make(study)) == contents(corpus)


def test_reading_an_altered_file_is_refused(tmp_path: Path) -> None:
    study = study_of(tmp_path, two_partitions(tmp_path))
    corpus, root = make(study), Path(study.workspace)
    law = corpus.partitions["law"].train
    with pytest.raises(WorkspaceError, match="must lie in"):
        read_tokens(root, law, 0, law.tokens + 1)
    path = root / corpus.domains["law"].tokens_file.path
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(WorkspaceError, match="digest"):
        read_domain(root, corpus.domains["law"])
    with pytest.raises(WorkspaceError, match="whole Arrow"):
        read_tokens(root, replace(law, path="corpus/none.arrow"), 0, 1)


def test_times_and_paths_are_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    corpus = make(study_of(tmp_path, two_partitions(tmp_path)))
    elsewhere = tmp_path / "elsewhere"
    other = make(study_of(elsewhere, two_partitions(elsewhere)))
    assert corpus.fingerprint == other.fingerprint
    os.utime(tmp_path / "math.jsonl", ns=(1, 1))
    assert make(study_of(tmp_path, two_partitions(tmp_path)), serial).fingerprint == (
        corpus.fingerprint
    )


def test_partitions_by_columns(tmp_path: Path) -> None:
    rows = [
        {"text": text, "field": field, "year": 2000 + number % 2}
        for field in ("law", "math")
        for number, text in enumerate(texts(field, 60))
    ]
    path = write_lines(tmp_path / "all.jsonl", rows)
    corpus = make(study_of(tmp_path, [{"path": str(path), "partition_by": ["field", "year"]}]))
    assert sorted(corpus.partitions) == ["law-2000", "law-2001", "math-2000", "math-2001"]
    total = sum(i.documents + i.heldout_documents for i in corpus.partitions.values())
    assert total == 120


def test_each_partition_knows_the_source_of_its_documents(tmp_path: Path) -> None:
    def source(name: str, *fields: str) -> str:
        rows = [{"text": text, "field": field} for field in fields for text in texts(field, 40)]
        return str(write_lines(tmp_path / f"{name}.jsonl", rows))

    sources = [
        {"path": source("named", "chat"), "partition": "chat"},
        {"path": source("first", "law", "math"), "partition_by": ["field"]},
        {"path": source("second", "med"), "partition_by": ["field"]},
    ]
    found = make(study_of(tmp_path, sources)).partitions
    assert {name: info.sources for name, info in found.items()} == {
        "chat": (0,), "law": (1,), "math": (1,), "med": (2,)
    }  # fmt: skip
