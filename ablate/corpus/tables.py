"""Rows of a parquet file, within bounded memory however far its pages expand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ablate.corpus.streams import MAX_DOCUMENT_BYTES, PIECE_BYTES
from ablate.errors import CorpusError

DICTIONARY_ROWS = 1024


def parquet_rows(path: str, wanted: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the wanted columns of each row; the first wanted column is the text.

    Other columns may have any type: they are not read. A text that is not UTF-8 is None.
    Raises CorpusError that names the file, for columns that are missing or hold no plain values,
    and for a value above `MAX_DOCUMENT_BYTES`.
    """
    with pq.ParquetFile(path, buffer_size=PIECE_BYTES) as file:
        _check_columns(path, file.schema_arrow, wanted)
        number = 0
        for group in range(file.num_row_groups):
            rows = _rows_at_once(file, group, wanted)
            for batch in file.iter_batches(rows, [group], list(wanted), use_threads=False):
                columns = [batch.column(name) for name in wanted]
                for row in zip(*columns, strict=True):
                    number += 1
                    place = f"{path}, row {number}"
                    values = (_plain(value, place) for value in row)
                    yield place, dict(zip(wanted, values, strict=True))


def _check_columns(path: str, schema: pa.Schema, wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if schema.names.count(name) != 1]
    if missing:
        raise CorpusError(
            f"{path} must have once each the columns {', '.join(missing)}, got "
            f"{', '.join(schema.names[:12]) or 'none'}; name the column in the study"
        )
    text, *columns = wanted
    if not _is_string(schema.field(text).type):
        raise CorpusError(
            f"column '{text}' of {path} must hold strings, got {schema.field(text).type}; name "
            "another"
        )
    for name in columns:
        kind = schema.field(name).type
        if not (_is_string(kind) or pa.types.is_primitive(kind)):
            raise CorpusError(
                f"partition column '{name}' of {path} must hold words or numbers, got {kind}; name "
                "another"
            )


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    )


def _rows_at_once(file: pq.ParquetFile, group: int, wanted: Sequence[str]) -> int:
    """Return how many rows of a row group may be decoded together.

    A few stored bytes may stand for a large value in each of many rows, so it is one. A dictionary
    is decoded as such, once for all rows: then it is many, unless there is too much beside it.
    """
    schema = file.schema_arrow
    if not all(pa.types.is_dictionary(schema.field(name).type) for name in wanted):
        return 1
    stored = file.metadata.row_group(group)
    columns = (stored.column(place) for place in range(stored.num_columns))
    size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema in wanted)
    return DICTIONARY_ROWS if size <= MAX_DOCUMENT_BYTES else 1


def _plain(value: pa.Scalar, place: str) -> Any:
    """Return a cell as Python's own value, None for bytes that are no text."""
    if isinstance(value, pa.DictionaryScalar):
        value = value.value
    if isinstance(value, pa.StringScalar | pa.LargeStringScalar) and value.is_valid:
        size = value.as_buffer().size
        if size > MAX_DOCUMENT_BYTES:
            raise CorpusError(
                f"a document must have at most {MAX_DOCUMENT_BYTES >> 20} MiB of text, got "
                f"{size >> 20} MiB in {place}; cut it"
            )
        try:
            return value.as_py()
        except UnicodeDecodeError:
            return None
    return value.as_py()
