"""Few compressed bytes that are much text: refused within bounded memory, or read as a stream."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.security.memory import peak_of

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peak memory is read from /proc"
)
READ = """
import sys
from ablate.corpus.documents import Reading, documents
from ablate.corpus.source_files import resolve
from ablate.errors import CorpusError
asked = Reading(file=resolve(sys.argv[1], "x")[0], text="text", split="train", sample_by=sys.argv[2])
try:
    count = size = 0
    for document in documents(asked):
        count, size = count + 1, size + len(document.text or "")
    print(f"read {count} documents, {size} characters")
except CorpusError as error:
    print(f"refused: {error}")
"""
WRITERS: dict[str, Callable[[Path, str], Any]] = {"gz": gzip.open, "zst": zstandard.open}
MEGABYTE = b"a" * (1 << 20)


def bomb(
    path: Path, suffix: str, megabytes: int, start: bytes = b"", piece: bytes = MEGABYTE
) -> None:
    with WRITERS[suffix](path, "wb") as stream:
        stream.write(start)
        for _ in range(megabytes):
            stream.write(piece)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize(
    ("name", "start", "sample_by"),
    [
        ("x.txt", b"", "line"),
        ("x.txt", b"one\n\ntwo\n\n", "paragraph"),
        ("x.txt", b"one\n", "document"),
        ("x.jsonl", b'{"text": "one"}\n{"text": "', "line"),
    ],
    ids=["line", "paragraph", "document", "json"],
)
def test_a_document_without_end_is_refused(
    tmp_path: Path, suffix: str, name: str, start: bytes, sample_by: str
) -> None:
    path = tmp_path / f"{name}.{suffix}"
    bomb(path, suffix, 400, start)
    line, peak = peak_of(READ, path, sample_by)
    print(f"{path.stat().st_size:,} bytes, 400 MB of text: peak {peak:.0f} MB: {line[:90]}")
    assert line.startswith("refused: a document must have at most 256 MiB") and str(path) in line
    assert peak < 700


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "x.txt").open("wb") as stream:
        stream.truncate(40 << 30)
    line, peak = peak_of(READ, tmp_path / "x.txt", "line")
    assert line.startswith("refused") and peak < 700


def test_text_that_compresses_well_is_read_as_a_stream(tmp_path: Path) -> None:
    document = json.dumps({"text": "the same words again and again " * 30}).encode() + b"\n"
    piece = document * 1000
    path = tmp_path / "x.jsonl.zst"
    bomb(path, "zst", 40, piece=piece)
    line, peak = peak_of(READ, path, "line")
    ratio = 40 * len(piece) / path.stat().st_size
    print(
        f"{path.stat().st_size:,} bytes, {ratio:.0f} times as much text: peak {peak:.0f} MB: {line}"
    )
    assert line == f"read 40000 documents, {40_000 * 31 * 30} characters" and peak < 700
    assert ratio > 1000


@pytest.mark.slow
def test_a_json_array_is_held_only_so_far(tmp_path: Path) -> None:
    path = tmp_path / "x.json.gz"
    bomb(path, "gz", 600, b"[\n", b'{"text": "words"},\n' * (1 << 15))
    line, peak = peak_of(READ, path, "line")
    print(f"600 pieces of a JSON array: peak {peak:.0f} MB: {line[:90]}")
    assert line.startswith("refused: a JSON array") and peak < 3000


@pytest.mark.parametrize("store_schema", [False, True], ids=["strings", "dictionary"])
def test_parquet_rows_that_share_one_large_value_are_read_one_by_one(
    tmp_path: Path, store_schema: bool
) -> None:
    path, rows = tmp_path / "x.parquet", 200
    value = pa.array(["a" * (10 << 20)])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), value)
    pq.write_table(
        pa.table({"text": column}), path,
        store_schema=store_schema, compression="zstd", dictionary_pagesize_limit=1 << 30,
    )  # fmt: skip
    line, peak = peak_of(READ, path, "line")
    print(f"{path.stat().st_size:,} bytes of parquet, 2 GB of text: peak {peak:.0f} MB: {line}")
    assert line == f"read {rows} documents, {rows * (10 << 20)} characters" and peak < 700
