"""What the path of a source says by itself: its format, a glob, or an id of the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

Format = Literal["jsonl", "json", "parquet", "text", "hub"]

COMPRESSIONS = frozenset({".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz"})
FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".jsonlines": "jsonl",
    ".jl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".rst": "text",
}
NOT_TEXT = frozenset(
    [
        ".csv",
        ".tsv",
        ".zip",
        ".tar",
        ".tgz",
        ".7z",
        ".rar",
        ".lz4",
        ".arrow",
        ".feather",
        ".avro",
        ".orc",
        ".pdf",
        ".docx",
        ".xlsx",
        ".epub",
        ".npy",
        ".npz",
        ".pkl",
        ".pt",
        ".bin",
        ".safetensors",
        ".h5",
        ".png",
        ".jpg",
        ".mp3",
        ".mp4",
        ".sqlite",
        ".db",
        ".warc",
        ".yaml",
        ".yml",
    ]
)
GLOB_MARKS = "*?["
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(:[\w.-]+)?")


def is_glob(path: str) -> bool:
    """Return whether a path has marks that match several files."""
    return any(mark in path for mark in GLOB_MARKS)


def may_be_hub_id(path: str) -> bool:
    """Return whether `name`, `owner/name` or either with `:config` may stand on the hub.

    A dot is no sign of a file (`Qwen2.5-0.5B`), the suffix of a known format is.
    """
    last = path.rsplit("/", 1)[-1].split(":")[0]
    known = FORMATS.keys() | COMPRESSIONS | NOT_TEXT
    return bool(HUB_ID.fullmatch(path)) and Path(last).suffix.lower() not in known


def suffix_of(path: str) -> str:
    """Return the last suffix in lower case, leaving that of a compression out."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_compressed(path: str) -> bool:
    """Return whether a file's name says that it is compressed."""
    return Path(path).suffix.lower() in COMPRESSIONS
