"""Every format and compression; every bad input gives one line that says where and what to do."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpora import make, named, study_of, texts, write_lines

from ablate.corpus import survey
from ablate.corpus.documents import Document, Reading, documents
from ablate.corpus.source_files import resolve
from ablate.errors import CorpusError

ODD = ["a\u2028b\x0cc\x85d", "line\nbreak\r\nand \u0000 nul", "naïve 😀", "日本語 " * 50]
OPENERS: dict[str, Callable[..., Any]] = {
    "": open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": zstandard.open,
    ".gzip": gzip.open,
    ".zstd": zstandard.open,
}


def read(path: str | Path, text: str = "text", **more: Any) -> list[Document]:
    return [
        document
        for file in resolve(str(path), "corpus.sources.0.path")
        for document in documents(
            Reading(file=file, text=text, split="train", **{"sample_by": "line", **more})
        )
    ]


def texts_of(path: str | Path, **more: Any) -> list[str | None]:
    return [document.text for document in read(path, **more)]


@pytest.mark.parametrize("suffix", OPENERS)
def test_json_lines_in_every_compression(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"we ird[1]*#?::é.jsonl{suffix}"
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in ODD)
    with OPENERS[suffix](path, "wt", encoding="utf-8", newline="\n") as stream:
        stream.write("\ufeff" + lines + "\n  \n" + '{"text": 3, "more": [{}]}\n{"text": "\\ud800"}')
    assert texts_of(path) == [*ODD, None, None]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    if suffix:
        with pytest.raises(CorpusError, match=r"must be whole.*fetch or write it again"):
            texts_of(path)
        path.write_bytes(b"this is not compressed, I am afraid\n")
        with pytest.raises(CorpusError, match="we ird"):
            texts_of(path)


def test_json_arrays_and_json_lines_in_json_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": text} for text in ODD], indent=2))
    assert texts_of(path) == ODD
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ODD))
    assert texts_of(path) == ODD


@pytest.mark.parametrize("name", ["a.jl", "a.jsonlines.zstd", "a.ndjson"])
def test_other_names_of_json_lines(tmp_path: Path, name: str) -> None:
    opened = zstandard.open if name.endswith("zstd") else open
    with opened(tmp_path / name, "wt", encoding="utf-8") as stream:
        stream.write('{"body": "one"}\n{"body": "two"}\n')
    assert texts_of(tmp_path / name, text="body") == ["one", "two"]


@pytest.mark.parametrize("sample_by", ["line", "paragraph", "document"])
@pytest.mark.parametrize("name", ["a.jsonl.1", "part-00000", "part-00000.gz"])
def test_json_lines_by_another_name_are_refused(tmp_path: Path, name: str, sample_by: str) -> None:
    opened = gzip.open if name.endswith("gz") else open
    with opened(tmp_path / name, "wt", encoding="utf-8") as stream:
        stream.write('{"text": "one"}\n{"text": "two"}\n')
    with pytest.raises(CorpusError, match=rf"end in .jsonl .*got .*{name}:1; rename") as caught:
        texts_of(tmp_path / name, sample_by=sample_by)
    assert "\n" not in str(caught.value)
    (tmp_path / "part-1").write_text("{} is no document\n{}\n")
    assert texts_of(tmp_path / "part-1") == ["{} is no document", "{}"]


def test_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("one\r\ntwo \u2028 still\n\n\nthree\n".encode())
    assert texts_of(path) == ["one", "two \u2028 still", "", "", "three"]
    assert texts_of(path, sample_by="paragraph") == ["one\ntwo \u2028 still", "\nthree\n"]
    assert texts_of(path, sample_by="document") == ["one\ntwo \u2028 still\n\n\nthree\n"]
    with gzip.open(tmp_path / "b.md.gz", "wt") as stream:
        stream.write("one\ntwo\n")
    assert texts_of(tmp_path / "b.md.gz") == ["one", "two"]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"body": [*ODD, None], "year": [1, 2, 3, 4, 5], "other": [[1]] * 5})
    pq.write_table(table, path, row_group_size=2)
    found = read(path, text="body", columns=("year",))
    assert [document.text for document in found] == [*ODD, None]
    assert [document.values for document in found] == [(str(n),) for n in range(1, 6)]
    encoded = pa.table({"body": pa.array(ODD).dictionary_encode()})
    pq.write_table(encoded, path)
    assert texts_of(path, text="body") == ODD


def test_other_columns_of_parquet_may_be_anything(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    extension = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16)))
    table = pa.table(
        {
            "text": ["words"],
            "metadata": pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string())),
            "id": extension,
            "text.more": pa.array([{"text": [b"x"]}]),
        }
    )
    features = {"info": {"features": {"text": {"dtype": "string", "_type": "Unheard"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), path)
    assert texts_of(path) == ["words"]


def test_parquet_text_that_is_not_utf_8_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    binary = pa.array([b"good", b"\xe9t\xe9"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, binary.buffers())
    pq.write_table(pa.table({"text": text}), path)
    assert texts_of(path) == ["good", None]


@pytest.mark.parametrize("encode", [pa.array, lambda texts: pa.array(texts).dictionary_encode()])
def test_a_parquet_value_above_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encode: Any
) -> None:
    monkeypatch.setattr("ablate.corpus.tables.MAX_DOCUMENT_BYTES", 4 << 20)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": encode(["small", "a" * (5 << 20)])}), path)
    with pytest.raises(CorpusError, match=r"at most 4 MiB of text, got 5 MiB in .*, row 2; cut it"):
        read(path)


def test_files_come_in_order_of_their_names(tmp_path: Path) -> None:
    real = tmp_path / "real"
    for name in ("b/2.jsonl", "b/10.txt", "a.jsonl", ".hidden.jsonl", "notes.pdf"):
        write_lines(real / name, ["x"])
    (tmp_path / "link").symlink_to(real)
    (real / "loop").symlink_to(real)

    def found(path: str) -> list[str]:
        return [str(Path(f.path).relative_to(tmp_path)) for f in resolve(path, "x")]

    assert found(str(tmp_path / "link")) == ["link/a.jsonl", "link/b/10.txt", "link/b/2.jsonl"]
    assert found(f"{tmp_path}/link/b/*") == ["link/b/10.txt", "link/b/2.jsonl"]
    assert found(f"{tmp_path}/real/b/**/*.jsonl") == ["real/b/2.jsonl"]
    assert found(f"file://{tmp_path}/real/a.jsonl") == ["real/a.jsonl"]


def lines(*rows: Any) -> bytes:
    return b"".join(
        row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows
    )


GOOD = {"text": "x", "field": "law"}
BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.jsonl", b"", r"got the empty file .*a\.jsonl; remove"),
    "empty inside": ("a.jsonl.gz", gzip.compress(b""), r"at least one document.*a\.jsonl\.gz"),
    "only blank": ("a.jsonl", b"\n \n", r"at least one document.*a\.jsonl"),
    "bad line": ("a.jsonl", lines(GOOD, b'{"text": "x"\n'), r"a\.jsonl:2; mend"),
    "deep": ("a.jsonl", lines(GOOD, b"[" * 5, b'{"a":' * 99999 + b"\n"), r"a\.jsonl:2; mend"),
    "array among lines": ("a.jsonl", lines(GOOD, [GOOD], GOOD), r"JSON object, got list in .*a\.jsonl:2"),
    "not an object": ("a.jsonl", lines(GOOD, 3), r"JSON object, got int in .*a\.jsonl:2"),
    "array of text": ("a.json", b'["a", "b"]', r"objects, got str in .*a\.json, entry 0"),
    "wrong encoding": ("a.jsonl", lines(GOOD, b'{"text": "\xe9t\xe9"}\n'), r"UTF-8, got byte 0xe9 in .*a\.jsonl:2"),
    "utf-16": ("a.jsonl", '{"text": "x"}\n'.encode("utf-16"), r"UTF-8.*a\.jsonl:1"),
    "no text key": ("a.jsonl", lines({"body": "x", "field": 1}), r"must have text, got the keys body, field in .*:1"),
    "no column": ("a.jsonl", lines(GOOD, {"text": "x"}), r"must have field, got the keys text in .*:2"),
    "null column": ("a.jsonl", lines({"text": "x", "field": None}), r"'field' must hold .* got None in .*:1"),
    "list column": ("a.jsonl", lines({"text": "x", "field": ["a"]}), r"'field' must hold .* got \['a'\] in .*:1"),
    "blank column": ("a.jsonl", lines({"text": "x", "field": " "}), r"'field' must hold .* in .*:1"),
    "text by columns": ("a.txt", b"x\n", r"got field for the plain text .*a\.txt"),
    "table": ("a.csv", b"x\n", r"must be JSON lines, parquet or plain text, got .*a\.csv"),
    "no parquet": ("a.parquet", b"x\n", r"must be whole.*a\.parquet"),
    "zipped parquet": ("a.parquet.gz", b"x\n", r"plain text, got .*a\.parquet\.gz"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_give_one_line(tmp_path: Path, case: str) -> None:
    name, data, expected = BAD_FILES[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorpusError, match=expected) as caught:
        read(tmp_path / name, columns=("field",))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_plain_text_with_nul_characters_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\n" + "wide".encode("utf-16-le") + b"\n")
    with pytest.raises(CorpusError, match=r"no NUL characters, got one in .*a\.txt:2"):
        read(tmp_path / "a.txt")


def test_bad_parquet_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [1, 2]}), path)
    with pytest.raises(CorpusError, match=r"'text' of .*a\.parquet must hold strings, got int64"):
        read(path)
    with pytest.raises(CorpusError, match=r"columns body, field, got text"):
        read(path, text="body", columns=("field",))
    pq.write_table(pa.table({"text": ["a"], "field": [[1]]}), path)
    with pytest.raises(CorpusError, match=r"'field' of .* must hold words or numbers, got list"):
        read(path, columns=("field",))
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, ["text", "text"]), path)
    with pytest.raises(CorpusError, match=r"once each the columns text, got text, text"):
        read(path)
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    with pytest.raises(CorpusError, match="at least one document"):
        read(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("missing.jsonl", "corpus.sources.0.path must be a file, folder, glob or hub id"),
        ("./missing", "nothing is there"),
        ("a/b/c/d", "nothing is there"),
        ("{folder}/*.jsonl", "must match at least one file"),
        ("{folder}", "must hold files that end in .jsonl"),
        ("{folder}/link.jsonl", "a broken link"),
        ("{folder}/link*", "a broken link"),
    ],
)
def test_bad_paths(tmp_path: Path, path: str, expected: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.pdf").write_text("x")
    if "link" in path:
        (folder / "link.jsonl").symlink_to(folder / "gone")
    with pytest.raises(CorpusError, match=expected):
        read(path.format(folder=folder))


def test_a_hub_id_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CorpusError, match=r"got nobody/nothing-here: no such file, and the hub"):
        read("nobody/nothing-here")


@pytest.mark.parametrize(
    ("first", "second", "domain", "expected"),
    [
        ({"partition": "a"}, {"partition_by": "one"}, "d", "one name, got 'a'"),
        ({"partition": "b"}, {"partition_by": ["one", "two"]}, "d", "make different names, got"),
        ({"partition": "b"}, {"partition_by": "one"}, "a", "evaluation domain must not share"),
        ({"partition": "A"}, {"partition_by": "one"}, "d", "upper and lower case, got 'A' and 'a'"),
    ],
)
def test_names_that_clash(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], domain: str, expected: str
) -> None:
    own = write_lines(tmp_path / "own.jsonl", texts("own", 10))
    other = [
        {"text": text, "one": "a" if number % 2 else "a-b", "two": "b-c" if number % 2 else "c"}
        for number, text in enumerate(texts("other", 10))
    ]
    if second.get("partition_by") != ["one", "two"]:
        other = other[1::2]
    path = write_lines(tmp_path / "other.jsonl", other)
    sources = [{"path": str(own), **first}, {"path": str(path), **second}]
    with pytest.raises(CorpusError, match=expected):
        make(study_of(tmp_path, sources, domains={domain: str(own)}))


def test_partitions_and_domains_without_text(tmp_path: Path) -> None:
    good = write_lines(tmp_path / "good.jsonl", texts("good", 60))
    blank = write_lines(tmp_path / "blank.jsonl", [" ", {"text": None}])
    for policy in ("error", "allow", "repeat"):
        sources = [named(good, "good"), named(blank, "blank")]
        with pytest.raises(CorpusError, match=r"none for blank \(1 without a text, 1 empty\)"):
            make(study_of(tmp_path, sources, corpus={"short_units": policy}))
    with pytest.raises(CorpusError, match="domains must hold text, got none in d"):
        make(study_of(tmp_path, [named(good, "good")], domains={"d": str(blank)}))
    with pytest.raises(CorpusError, match=r"seed.sources must hold text"):
        study = study_of(tmp_path, [named(good, "good")], seed={"sources": [{"path": str(blank)}]})
        make(study)
    with pytest.raises(CorpusError, match=r"held-out document, got none for good \(0 held out"):
        make(study_of(tmp_path, [named(good, "good")], corpus={"heldout": {"documents": 1e-9}}))


def test_tokenizers_that_do_not_do(tmp_path: Path) -> None:
    good = write_lines(tmp_path / "good.jsonl", texts("good", 60))
    (tmp_path / "folder").mkdir()
    for path in ("folder", "nowhere/at/all"):
        with pytest.raises(CorpusError, match=r"tokenizer\.path must be a folder or hub id"):
            make(study_of(tmp_path, [named(good, "g")], tokenizer={"path": str(tmp_path / path)}))


def test_survey_is_near_what_is_prepared(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "law.jsonl", texts("law", 200))
    study = study_of(tmp_path, [named(path, "law")])
    found = survey(study)
    assert not (tmp_path / "workspace").exists()
    made = make(study).partitions["law"]
    assert found.partitions["law"].documents == pytest.approx(made.documents, rel=0.1)
    seed = make(study).seed
    assert seed is not None and 0.5 < found.seed_tokens / seed.tokens < 2
    assert found.partitions["law"].bytes == pytest.approx(made.bytes, rel=0.1)
    with pytest.raises(CorpusError, match="nothing is there"):
        survey(study_of(tmp_path, [named(tmp_path / "none.jsonl", "law")]))
