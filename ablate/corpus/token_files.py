"""Token files: Arrow IPC, uncompressed, memory-mappable.

Column `token` is uint16 (vocabularies up to 65,536) or uint32; evaluation files have a column
`bytes` (uint32) too. All record batches but the last have `BATCH_TOKENS` rows.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ablate.corpus.values import DomainInfo, TokenFile
from ablate.errors import WorkspaceError
from ablate.stores import fetched

BATCH_TOKENS = 1 << 20
MAGIC = b"ARROW1\0\0"
COLUMNS = tuple(
    [("token", kind), *more]
    for kind in ("uint16", "uint32")
    for more in ([], [("bytes", "uint32")])
)

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Counts = npt.NDArray[np.uint32]


def token_type(vocab_size: int) -> Any:
    """Return the numpy type that holds the token ids of a vocabulary."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


class TokenWriter:
    """Writes a token file piece by piece; `digest()` is known once it is closed."""

    def __init__(self, path: Path, dtype: Any, *, with_bytes: bool = False) -> None:
        self._path = path
        self._dtype = dtype
        fields = [("token", pa.from_numpy_dtype(dtype))]
        fields += [("bytes", pa.uint32())] if with_bytes else []
        self._schema = pa.schema(fields)
        self._waiting: list[list[npt.NDArray[Any]]] = [[] for _ in fields]
        self._hashes = [hashlib.sha256() for _ in fields]
        self._rows = 0
        self.tokens = 0

    def __enter__(self) -> Self:
        self._stream = self._path.open("wb")
        self._writer = pa.ipc.new_file(self._stream, self._schema)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._flush(whole_only=False)
                self._writer.close()
                self._stream.flush()
                os.fsync(self._stream.fileno())
        finally:
            self._stream.close()

    def write(self, tokens: npt.NDArray[Any], token_bytes: npt.NDArray[Any] | None = None) -> None:
        """Append token ids (and the bytes of each, in an evaluation file)."""
        columns = [tokens] if token_bytes is None else [tokens, token_bytes]
        for column, waiting, digest in zip(columns, self._waiting, self._hashes, strict=True):
            waiting.append(column)
            digest.update(np.ascontiguousarray(column, dtype="<u4").tobytes())
        self._rows += len(tokens)
        self.tokens += len(tokens)
        if self._rows >= BATCH_TOKENS:
            self._flush(whole_only=True)

    def digest(self) -> str:
        """Return the SHA-256 of all that was written, column by column."""
        return _combine(self._hashes)

    def _flush(self, *, whole_only: bool) -> None:
        columns = [np.concatenate(waiting) for waiting in self._waiting if waiting]
        start = 0
        while start + BATCH_TOKENS <= self._rows or (not whole_only and start < self._rows):
            stop = min(start + BATCH_TOKENS, self._rows)
            arrays = [
                pa.array(column[start:stop].astype(field.type.to_pandas_dtype(), copy=False))
                for column, field in zip(columns, self._schema, strict=True)
            ]
            self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
            start = stop
        self._waiting = [[column[start:]] for column in columns] or self._waiting
        self._rows -= start


def token_parts(workspace_root: Path, file: TokenFile, start: int, stop: int) -> list[Tokens]:
    """Return tokens `start` to `stop` of a token file in parts, each of one record batch.

    The arrays, uint16 or uint32, are read-only and memory-mapped: nothing is copied.
    Raises WorkspaceError when the file is missing, altered or has fewer tokens.
    """
    path = workspace_root / file.path
    pieces: list[Tokens] = []
    for number, columns in enumerate(_batches(path)):
        first = number * BATCH_TOKENS
        if first >= stop:
            break
        if first + BATCH_TOKENS > start:
            pieces.append(columns[0][max(start - first, 0) : stop - first])
    found = sum(len(piece) for piece in pieces)
    if found != stop - start:
        raise WorkspaceError(
            f"tokens {start}:{stop} must lie in {path}, got {found} of them; run `ablate prepare` "
            "to have it made again"
        )
    return pieces


def read_tokens(workspace_root: Path, file: TokenFile, start: int, stop: int) -> Tokens:
    """Return tokens `start` to `stop` of a token file: `[stop - start]`, uint16 or uint32.

    The array is read-only and memory-mapped where it lies within one record batch. Raises what
    `token_parts` raises.
    """
    pieces: list[Any] = token_parts(workspace_root, file, start, stop)
    if not pieces:
        return np.empty(0, np.uint16)
    joined: Tokens = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return joined


def read_domain(workspace_root: Path, info: DomainInfo) -> tuple[Tokens, Counts]:
    """Return the evaluated tokens of a domain and the UTF-8 bytes of each, both `[tokens]`.

    Bytes sum exactly to those of the documents; end-of-text counts 0.
    Raises WorkspaceError when the file does not match its digest.
    """
    path = fetched(workspace_root / info.tokens_file.path)
    if content_digest(path) != info.tokens_file.digest:
        raise WorkspaceError(
            f"{path} must match its digest in corpus.json, got other contents; run "
            "`ablate prepare` to have it made again"
        )
    batches = list(_batches(path))
    if not batches or len(batches[0]) != 2:
        raise _damaged(path, "it has no tokens with their bytes")
    tokens, counts = (np.concatenate(column) for column in zip(*batches, strict=True))
    return tokens, counts


def content_digest(path: Path) -> str | None:
    """Return the digest of a token file's contents, or None when it cannot be read."""
    hashes: list[Any] = []
    try:
        for columns in _batches(path):
            hashes = hashes or [hashlib.sha256() for _ in columns]
            for column, digest in zip(columns, hashes, strict=True):
                digest.update(column.astype("<u4").tobytes())
    except WorkspaceError:
        return None
    return _combine(hashes or [hashlib.sha256()])


def _batches(path: Path) -> Iterator[list[npt.NDArray[Any]]]:
    """Yield the columns of each record batch, views of the mapped file.

    The stream inside the file is read, message by message, and its footer is not: what that says
    need not be what stands there. Every buffer must lie in the file as it is, so that nothing that
    the file claims takes memory. Raises WorkspaceError for any other file.
    """
    try:
        with pa.memory_map(str(path)) as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise pa.ArrowInvalid("it does not begin as one")
            messages = pa.ipc.MessageReader.open_stream(stream)
            schema = pa.ipc.read_schema(messages.read_next_message())
            if [(field.name, str(field.type)) for field in schema] not in COLUMNS:
                raise pa.ArrowInvalid("it has other columns")
            for message in messages:
                if message.type != "record batch" or is_compressed(message.metadata.to_pybytes()):
                    raise pa.ArrowInvalid("it holds more than plain record batches")
                batch = pa.ipc.read_record_batch(message, schema)
                batch.validate()
                yield [column.to_numpy(zero_copy_only=True) for column in batch.columns]
    except (OSError, ValueError, EOFError, StopIteration, pa.ArrowException) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> WorkspaceError:
    return WorkspaceError(
        f"token files must be whole Arrow files: {path} is not ({reason}); run `ablate prepare` "
        "to have it made again"
    )


def is_compressed(metadata: bytes) -> bool:
    """Return whether a record batch's message says that its buffers are compressed.

    `metadata` is the flatbuffer Message of Arrow's format (Message.fbs, Schema version 5): its
    header is the third field, a RecordBatch, whose fourth field is `compression`. What does not
    read as that counts as compressed.
    """
    try:
        message = _table(metadata, 0)
        header = _field(metadata, message, 2)
        return header is None or _field(metadata, _table(metadata, header), 3) is not None
    except struct.error:
        return True


def _table(data: bytes, at: int) -> int:
    """Return where the table lies to which the offset at `at` points."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, number: int) -> int | None:
    """Return where a field of a table lies, None when it is absent."""
    places = table - int(struct.unpack_from("<i", data, table)[0])
    (size,) = struct.unpack_from("<H", data, places)
    place = 4 + 2 * number
    offset = struct.unpack_from("<H", data, places + place)[0] if place < size else 0
    return table + offset if offset else None


def _combine(hashes: list[Any]) -> str:
    if len(hashes) == 1:
        return str(hashes[0].hexdigest())
    return hashlib.sha256("".join(digest.hexdigest() for digest in hashes).encode()).hexdigest()
