"""Documents of one source file, streamed; every complaint names the file and the line."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ablate.corpus.hub import hub_rows
from ablate.corpus.source_files import SourceFile
from ablate.corpus.streams import ENDS, DocumentSizes, first_bad_line, reading, text_batches
from ablate.corpus.tables import parquet_rows
from ablate.errors import CorpusError
from ablate.harmless import is_name
from ablate.source_names import FORMATS, suffix_of
from ablate.study import SampleBy

SCALARS = (str, int, float, bool)
MAX_NAME = 200
MAX_ARRAY_CHARACTERS = 256 << 20
LINE_END_BYTES = 4  # at most, between two documents: \r\n\r\n


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One file and what is read from it: the text, and the columns that name the partition.

    `max_bytes` ends the reading of a hub data set after so many bytes of text.
    """

    file: SourceFile
    text: str
    split: str
    sample_by: SampleBy
    columns: tuple[str, ...] = ()
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A text (None when it was no string or is not valid Unicode) and its column values."""

    text: str | None
    values: tuple[str, ...]


def documents(asked: Reading) -> Iterator[Document]:
    """Yield the documents of a file in its order.

    Raises CorpusError for what cannot be read, a missing text or partition column, a partition
    value that is no plain value, and a file without documents.
    """
    count = 0
    with reading(asked.file.path):
        for place, row in _rows(asked):
            count += 1
            yield _document(asked, place, row)
    if not count:
        raise CorpusError(
            f"source files must hold at least one document, got none in {asked.file.path}; remove it"
        )


def _rows(asked: Reading) -> Iterator[tuple[str, Mapping[str, Any]]]:
    match asked.file.format:
        case "jsonl" | "json":
            return _json_rows(asked.file)
        case "parquet":
            return parquet_rows(asked.file.path, _wanted(asked))
        case "hub":
            return hub_rows(asked.file.path, asked.split, _wanted(asked), asked.max_bytes)
        case "text":
            return _text_rows(asked)


def _wanted(asked: Reading) -> tuple[str, ...]:
    return tuple(dict.fromkeys((asked.text, *asked.columns)))


def _text_rows(asked: Reading) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if asked.columns:
        raise CorpusError(
            f"partition_by must name columns of the source, got {', '.join(asked.columns)} for the "
            f"plain text {asked.file.path}, which has none; use `partition`"
        )
    for number, line in enumerate(_lines(asked.file.path, asked.sample_by), start=1):
        place = f"{asked.file.path}:{number}"
        if "\0" in line:
            raise CorpusError(
                f"plain text must have no NUL characters, got one in {place}; is it UTF-16 or no "
                "text at all? Convert the file to UTF-8"
            )
        if number == 1 and suffix_of(asked.file.path) not in FORMATS:
            _require_no_json(line, place)
        yield place, {asked.text: line}


def _require_no_json(text: str, place: str) -> None:
    """Refuse JSON lines in a file whose name does not say so: each would be one raw document."""
    first = text.partition("\n")[0].strip()
    if not (first.startswith("{") and first.endswith("}")):
        return
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return
    if row:
        raise CorpusError(
            "JSON lines must be in files that end in .jsonl (compressed or not), got a JSON object "
            f"in {place}; rename the file, or name plain text .txt"
        )


def _json_rows(file: SourceFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    lines = enumerate(_lines(file.path, "line"), start=1)
    first = True
    for number, line in lines:
        if line.isspace() or not line:
            continue
        if first and line.lstrip().startswith("["):
            yield from _array_rows(file.path, _held(file.path, [line], lines))
            return
        first = False
        place = f"{file.path}:{number}"
        row = _parsed(line, place)
        if not isinstance(row, dict):
            raise CorpusError(
                f"each line must be a JSON object, got {type(row).__name__} in {place}"
            )
        yield place, row


def _held(path: str, held: list[str], rest: Iterator[tuple[int, str]]) -> list[str]:
    """Return all lines of a JSON array; raise CorpusError when they are too many for memory."""
    size = len(held[0])
    for _, line in rest:
        held.append(line)
        size += len(line) + 1
        if size > MAX_ARRAY_CHARACTERS:
            raise CorpusError(
                f"a JSON array must have at most {MAX_ARRAY_CHARACTERS >> 20} Mi characters, which "
                f"are held in memory, got more in {path}; write one object a line (.jsonl)"
            )
    return held


def _array_rows(path: str, lines: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects of a file that is one JSON array; it is held in memory."""
    what = "a file that begins with [ must be one JSON array"
    for number, row in enumerate(_parsed("\n".join(lines), path, what)):
        place = f"{path}, entry {number}"
        if not isinstance(row, dict):
            raise CorpusError(f"entries must be JSON objects, got {type(row).__name__} in {place}")
        yield place, row


def _parsed(text: str, place: str, what: str = "each line must be one JSON value") -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}"
        got = f"{error.msg[:1].lower()}{error.msg[1:]} at {at}"
    except ValueError:
        got = "a whole number of thousands of digits"
    except RecursionError:
        got = "values nested too deeply"
    raise CorpusError(f"{what}, got {got} in {place}; mend or remove it")


def _lines(path: str, sample_by: SampleBy) -> Iterator[str]:
    """Yield lines (ends of lines are \\n, \\r\\n and \\r, nothing else), paragraphs or the whole."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first, size = True, 0
            with closing(DocumentSizes(path, ENDS[sample_by])) as sizes:
                sizes.ahead(0)
                for batch in text_batches(path, sample_by):
                    for line in batch.column("text").to_pylist():
                        yield line.removeprefix("\ufeff") if first else line
                        first = False
                    size += batch.nbytes + LINE_END_BYTES * batch.num_rows
                    sizes.ahead(size)
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"source files must be UTF-8, got byte 0x{error.object[error.start]:02x} in "
            f"{path}:{first_bad_line(path)}; convert the file"
        ) from error


def _document(asked: Reading, place: str, row: Mapping[str, Any]) -> Document:
    missing = [column for column in _wanted(asked) if column not in row]
    if missing:
        raise CorpusError(
            f"each document must have {', '.join(missing)}, got the keys "
            f"{', '.join(list(row)[:12]) or 'none'} in {place}; name the key in the study"
        )
    values = tuple(_value(row[column], column, place) for column in asked.columns)
    text = row[asked.text]
    return Document(
        text=text if isinstance(text, str) and _is_unicode(text) else None, values=values
    )


def _is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8: JSON's escapes may hold half a character."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _value(value: Any, column: str, place: str) -> str:
    """Return a partition column's value as text."""
    plain = isinstance(value, SCALARS)
    text = (str(value).lower() if isinstance(value, bool) else str(value)).strip() if plain else ""
    if not is_name(text) or len(text) > MAX_NAME:
        shown = repr(value)
        raise CorpusError(
            f"partition column '{column}' must hold a word or number of at most {MAX_NAME} "
            f"characters that can be seen, got {shown if len(shown) < 60 else shown[:57] + '...'} in {place}; fill it "
            "or remove the document"
        )
    return text
