"""From a `path` of the study to the files behind it, in a fixed order."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ablate.errors import CorpusError
from ablate.source_names import (
    FORMATS,
    GLOB_MARKS,
    NOT_TEXT,
    Format,
    is_compressed,
    is_glob,
    may_be_hub_id,
    suffix_of,
)

__all__ = ["GLOB_MARKS", "SourceFile", "is_compressed", "resolve"]


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file, or a data set of the hub (`format` hub; `path` is its id, then `:config`)."""

    path: str
    format: Format


def resolve(path: str, place: str) -> list[SourceFile]:
    """Return the files of a file, folder, glob or hub id, sorted by path; at least one.

    `place` is the study key for messages. Raises CorpusError when there is nothing to read.
    """
    local = str(Path(path.removeprefix("file://")).expanduser())
    if Path(local).is_file():
        return [_file(local)]
    if Path(local).is_dir():
        return _in_folder(local, place)
    if is_glob(local):
        return _of_glob(local, place)
    if may_be_hub_id(path):
        return [SourceFile(path=path, format="hub")]
    raise CorpusError(
        f"{place} must be a file, folder, glob or hub id, got {path}; {_instead(local)}"
    )


def _instead(path: str) -> str:
    """Return what is at a path where no file and no folder is."""
    if Path(path).exists():
        return "a pipe, socket or device: write its text to a file"
    return "a broken link" if Path(path).is_symlink() else "nothing is there"


def _in_folder(folder: str, place: str) -> list[SourceFile]:
    found = [_file(path) for path in _walk(folder) if suffix_of(path) in FORMATS]
    if not found:
        raise CorpusError(
            f"{place} must hold files that end in {', '.join(FORMATS)} (compressed or not), "
            f"got none in {folder}; name other text files with a glob"
        )
    return sorted(found, key=lambda file: file.path)


def _walk(folder: str) -> Iterator[str]:
    """Yield files below a folder, through links, each real folder once, nothing hidden."""
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (f"{parent}/{name}" for name in files if not name.startswith("."))


def _of_glob(pattern: str, place: str) -> list[SourceFile]:
    found = [path for path in glob.glob(pattern, recursive=True) if not Path(path).is_dir()]  # noqa: PTH207
    if not found:
        raise CorpusError(f"{place} must match at least one file, got none for {pattern}")
    return [_file(path) for path in sorted(found)]


def _file(path: str) -> SourceFile:
    absolute = str(Path(path).absolute())
    suffix = suffix_of(absolute)
    if suffix in NOT_TEXT or (suffix == ".parquet" and is_compressed(absolute)):
        raise CorpusError(
            f"source files must be JSON lines, parquet or plain text, got {absolute}; convert it "
            "or narrow the path"
        )
    if not Path(absolute).is_file():
        raise CorpusError(f"source files must exist, got {absolute}; {_instead(absolute)}")
    if not Path(absolute).stat().st_size:
        raise CorpusError(f"source files must hold text, got the empty file {absolute}; remove it")
    return SourceFile(path=absolute, format=FORMATS.get(suffix, "text"))
