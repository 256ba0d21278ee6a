"""What must hold of a parquet file before its rows are read."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from ablate.errors import CorpusError


def check_parquet(path: str, text: str, wanted: Sequence[str]) -> int:
    """Return the rows of a parquet file that has the wanted columns and a text column of strings.

    Raises CorpusError that names the file and its columns.
    """
    file = pq.ParquetFile(path)
    with file:
        schema, rows = file.schema_arrow, int(file.metadata.num_rows)
    missing = [name for name in wanted if name not in schema.names]
    if missing:
        raise CorpusError(
            f"{path} must have the columns {', '.join(missing)}, got "
            f"{', '.join(schema.names[:12]) or 'none'}; name the column in the study"
        )
    kind = schema.field(text).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise CorpusError(f"column '{text}' of {path} must hold strings, got {kind}; name another")
    return rows
