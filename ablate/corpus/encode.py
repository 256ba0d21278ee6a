"""Second pass over a source file: decontaminate, tokenize, set held-out texts aside."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ablate.corpus.documents import documents
from ablate.corpus.ngrams import Grams, find, ngram_hashes
from ablate.corpus.protection import Protected, contaminated_by
from ablate.corpus.scan import Piece, is_empty, name_of
from ablate.corpus.selection import HELDOUT, TRAIN, Fates
from ablate.corpus.token_files import token_type
from ablate.errors import CorpusError
from ablate.stores import here, kept

BATCH_BYTES = 1 << 20
HELD_TOKENS = 1 << 22
HELD_HITS = 1 << 12

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EncodeRules:
    """The tokenizer (its JSON), the end-of-text id, and the protected text (None: no check)."""

    tokenizer: str
    eos_token_id: int
    vocab_size: int
    protected: Protected | None


@dataclass(frozen=True, kw_only=True)
class EncodeItem:
    """One file, the fate of each of its documents by stream, and where to write.

    `limit`: training tokens of a stream beyond which nothing more of this file is wanted.
    """

    piece: Piece
    fates: Mapping[str, Fates]
    folder: str
    limit: int | None


@dataclass(frozen=True, kw_only=True)
class EncodedPart:
    """The training tokens of one stream in one file.

    `tokens_file` holds raw token ids; `document_tokens` and `document_bytes` are `[documents]`.
    Arrays named `.._at` say before how many tokens of the part something was seen: dropped
    documents (with their bytes in `dropped_bytes`), documents too short to check, and the places
    `hits` in `Protected.every_heldout` whose n-gram the training text has.
    """

    tokens_file: str
    heldout_file: str
    document_tokens: Offsets
    document_bytes: Offsets
    dropped_at: Offsets
    dropped_bytes: Offsets
    causes: dict[str, int]
    unchecked_at: Offsets
    hits: Offsets
    hits_at: Offsets


def encode_piece(item: EncodeItem, rules: EncodeRules) -> dict[str, EncodedPart]:
    """Return the encoded parts of a file by stream; a retry starts afresh.

    Raises CorpusError when the file has other documents than when it was scanned.
    """
    folder = here(item.folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    encoder = _FileEncoder(replace(item, folder=str(folder)), rules)
    for document in documents(item.piece.reading):
        if document.text is not None and not is_empty(document):
            encoder.add(name_of(item.piece, document), document.text)
    parts = encoder.finish()
    kept(folder)
    return parts


def one_core_tokenizer(text: str) -> Tokenizer:
    """Return a tokenizer from its JSON that uses one core: tasks are the parallelism."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    return Tokenizer.from_str(text)


@dataclass
class _Hits:
    """Where a stream's tokens first have each held-out n-gram: no more than it has is held."""

    places: list[npt.NDArray[Any]] = field(default_factory=list)
    at: list[npt.NDArray[Any]] = field(default_factory=list)
    held: int = 0
    limit: int = HELD_HITS

    def add(self, places: npt.NDArray[Any], at: int) -> None:
        """Take the distinct n-grams of a document that begins after `at` tokens."""
        self.places.append(places)
        self.at.append(np.full(len(places), at, np.int64))
        self.held += len(places)
        if self.held > self.limit:
            first, first_at = self.first()
            self.places, self.at, self.held = [first], [first_at], len(first)
            self.limit = max(HELD_HITS, 2 * len(first))

    def first(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return each n-gram once and the tokens before it, in the order of the tokens."""
        if not self.places:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        places, at = np.concatenate(self.places), np.concatenate(self.at)
        order = np.sort(np.unique(places, return_index=True)[1])
        return places[order], at[order]


@dataclass
class _Stream:
    """What is known of one stream in this file so far; arrays wait in lists until written."""

    number: int
    fates: Fates
    heldout: Grams | None
    next: int = 0
    tokens: int = 0
    waiting: list[npt.NDArray[Any]] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    document_tokens: list[int] = field(default_factory=list)
    document_bytes: list[int] = field(default_factory=list)
    dropped: list[tuple[int, int]] = field(default_factory=list)
    causes: dict[str, int] = field(default_factory=dict)
    unchecked: list[int] = field(default_factory=list)
    hits: _Hits = field(default_factory=_Hits)


@dataclass(frozen=True, slots=True)
class _Checked:
    """A training document with what the check found: why it is dropped, its hits."""

    stream: _Stream
    text: str
    size: int
    unchecked: bool
    causes: tuple[str, ...]
    hits: npt.NDArray[Any] | None


class _FileEncoder:
    """Takes the documents of a file in order; tokenizes in batches, writes in larger ones."""

    def __init__(self, item: EncodeItem, rules: EncodeRules) -> None:
        self._item = item
        self._rules = rules
        self._tokenizer = one_core_tokenizer(rules.tokenizer)
        self._dtype = token_type(rules.vocab_size)
        self._streams = {
            name: self._new_stream(number, name, fates)
            for number, (name, fates) in enumerate(item.fates.items())
        }
        self._batch: list[_Checked] = []
        self._batch_bytes = 0
        self._held_tokens = 0

    def add(self, name: str, text: str) -> None:
        stream = self._streams.get(name)
        if stream is None or stream.next >= len(stream.fates):
            raise self._changed()
        fate = stream.fates[stream.next]
        stream.next += 1
        if fate == HELDOUT:
            stream.held.append(text)
            self._batch_bytes += len(text)
        elif fate == TRAIN and (self._item.limit is None or stream.tokens < self._item.limit):
            checked = self._check(stream, text)
            self._batch.append(checked)
            self._batch_bytes += checked.size
        if self._batch_bytes >= BATCH_BYTES:
            self._encode()

    def finish(self) -> dict[str, EncodedPart]:
        self._encode()
        self._write()
        if any(stream.next != len(stream.fates) for stream in self._streams.values()):
            raise self._changed()
        return {name: self._part(stream) for name, stream in self._streams.items()}

    def _changed(self) -> CorpusError:
        return CorpusError(
            "source files must not change while they are read, got other documents in "
            f"{self._item.piece.reading.file.path}; run again"
        )

    def _new_stream(self, number: int, name: str, fates: Fates) -> _Stream:
        protected = self._rules.protected
        own = protected is not None and self._item.piece.kind == "partition"
        return _Stream(
            number=number,
            fates=fates,
            heldout=protected.heldout[name] if protected and own else None,
        )

    def _check(self, stream: _Stream, text: str) -> _Checked:
        size = len(text.encode())
        protected = self._rules.protected
        if protected is None:
            return _Checked(stream, text, size, False, (), None)
        grams = ngram_hashes(text, protected.ngram)
        if not len(grams):
            return _Checked(stream, text, size, True, (), None)
        causes = contaminated_by(grams, protected, stream.heldout)
        if causes:
            return _Checked(stream, text, size, False, causes, None)
        there, places = find(grams, protected.every_heldout)
        return _Checked(stream, text, size, False, (), np.unique(places[there]))

    def _encode(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        kept = [checked.text for checked in batch if not checked.causes]
        encodings = iter(self._tokenizer.encode_batch_fast(kept, add_special_tokens=False))
        for checked in batch:
            stream = checked.stream
            if checked.causes:
                stream.dropped.append((stream.tokens, checked.size))
                for cause in checked.causes:
                    stream.causes[cause] = stream.causes.get(cause, 0) + checked.size
            else:
                self._keep(checked, next(encodings).ids)
        if self._held_tokens >= HELD_TOKENS or any(s.held for s in self._streams.values()):
            self._write()

    def _keep(self, checked: _Checked, ids: list[int]) -> None:
        stream = checked.stream
        if checked.unchecked:
            stream.unchecked.append(stream.tokens)
        if checked.hits is not None and len(checked.hits):
            stream.hits.add(checked.hits, stream.tokens)
        ids.append(self._rules.eos_token_id)
        stream.waiting.append(np.array(ids, self._dtype))
        stream.document_tokens.append(len(ids))
        stream.document_bytes.append(checked.size)
        stream.tokens += len(ids)
        self._held_tokens += len(ids)

    def _path(self, stream: _Stream, kind: str) -> Path:
        return Path(self._item.folder) / f"{stream.number}.{kind}"

    def _write(self) -> None:
        for stream in self._streams.values():
            if stream.waiting:
                with self._path(stream, "tokens").open("ab") as out:
                    out.write(np.concatenate(stream.waiting).tobytes())
                stream.waiting.clear()
            if stream.held:
                with self._path(stream, "heldout").open("a", encoding="utf-8") as lines:
                    lines.writelines(json.dumps(text) + "\n" for text in stream.held)
                stream.held.clear()
        self._held_tokens = 0

    def _part(self, stream: _Stream) -> EncodedPart:
        hits, hits_at = stream.hits.first()
        return EncodedPart(
            tokens_file=str(self._path(stream, "tokens")),
            heldout_file=str(self._path(stream, "heldout")),
            document_tokens=np.array(stream.document_tokens, np.int64),
            document_bytes=np.array(stream.document_bytes, np.int64),
            dropped_at=np.array([at for at, _ in stream.dropped], np.int64),
            dropped_bytes=np.array([size for _, size in stream.dropped], np.int64),
            causes=stream.causes,
            unchecked_at=np.array(stream.unchecked, np.int64),
            hits=hits,
            hits_at=hits_at,
        )
