"""Token files: Arrow IPC, uncompressed, memory-mappable.

Column `token` is uint16 (vocabularies up to 65,536) or uint32; evaluation files have a column
`bytes` (uint32) too. All record batches but the last have `BATCH_TOKENS` rows.
"""

from __future__ import annotations

import hashlib
import os
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


def read_tokens(workspace_root: Path, file: TokenFile, start: int, stop: int) -> Tokens:
    """Return tokens `start` to `stop` of a token file: `[stop - start]`, uint16 or uint32.

    The array is read-only and memory-mapped where it lies within one record batch.
    Raises WorkspaceError when the file is missing, altered or has fewer tokens.
    """
    path = workspace_root / file.path
    pieces: list[Any] = []
    with _opened(path) as reader:
        for number in range(start // BATCH_TOKENS, -(-stop // BATCH_TOKENS)):
            if number >= reader.num_record_batches:
                break
            first = number * BATCH_TOKENS
            column = _column(reader, number, 0)
            pieces.append(column[max(start - first, 0) : stop - first])
    found = sum(len(piece) for piece in pieces)
    if found != stop - start:
        raise WorkspaceError(
            f"tokens {start}:{stop} must lie in {path}, got {found} of them; run `ablate prepare` "
            "to have it made again"
        )
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
    with _opened(path) as reader:
        batches = range(reader.num_record_batches)
        columns = [
            np.concatenate([_column(reader, number, index) for number in batches])
            for index in range(2)
        ]
    return columns[0], columns[1]


def content_digest(path: Path) -> str | None:
    """Return the digest of a token file's contents, or None when it cannot be read."""
    try:
        with _opened(path) as reader:
            hashes = [hashlib.sha256() for _ in reader.schema]
            for number in range(reader.num_record_batches):
                for index, digest in enumerate(hashes):
                    digest.update(_column(reader, number, index).astype("<u4").tobytes())
            return _combine(hashes)
    except WorkspaceError:
        return None


class _opened:
    """A memory-mapped Arrow IPC file reader; Arrow's errors become WorkspaceErrors."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Any:
        try:
            return pa.ipc.open_file(pa.memory_map(str(self._path)))
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError | pa.ArrowException):
            raise self._damaged(error) from error

    def _damaged(self, error: BaseException) -> WorkspaceError:
        return WorkspaceError(
            f"token files must be whole Arrow files: {self._path} is not ({error}); run "
            "`ablate prepare` to have it made again"
        )


def _column(reader: Any, number: int, index: int) -> npt.NDArray[Any]:
    column: npt.NDArray[Any] = reader.get_batch(number).column(index).to_numpy(zero_copy_only=True)
    return column


def _combine(hashes: list[Any]) -> str:
    if len(hashes) == 1:
        return str(hashes[0].hexdigest())
    return hashlib.sha256("".join(digest.hexdigest() for digest in hashes).encode()).hexdigest()
