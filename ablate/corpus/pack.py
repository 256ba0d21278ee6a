"""Last pass: the token files, put together from the parts of all files in order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ablate.corpus.documents import documents
from ablate.corpus.encode import one_core_tokenizer
from ablate.corpus.ngrams import Grams, ngram_hashes, overlap
from ablate.corpus.scan import Piece, is_empty
from ablate.corpus.selection import TRAIN, Fates
from ablate.corpus.token_files import BATCH_TOKENS, TokenWriter, token_type
from ablate.stores import mirror

BATCH_DOCUMENTS = 64
BATCH_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class TrainPack:
    """Raw token files, how many tokens to take of each, the units to cut, where to write."""

    parts: tuple[tuple[str, int], ...]
    unit_tokens: tuple[int, ...]
    path: str


@dataclass(frozen=True, kw_only=True)
class PackedTrain:
    """The digest of the file and of each unit (repeated to its size when the file is shorter)."""

    digest: str
    unit_digests: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EvaluationPack:
    """Texts to evaluate: of source files with fates, or set aside in `heldout_files`.

    Documents of which more than `max_overlap` of the n-grams stand in `covered` are left out.
    """

    pieces: tuple[tuple[Piece, Fates], ...]
    heldout_files: tuple[str, ...]
    covered: Grams
    path: str


@dataclass(frozen=True, kw_only=True)
class EvaluationRules:
    """The tokenizer, the most tokens per domain, and the rule of overlap."""

    tokenizer: str
    eos_token_id: int
    vocab_size: int
    limit: int
    ngram: int
    max_overlap: float


@dataclass(frozen=True, kw_only=True)
class PackedEvaluation:
    """Counts of the evaluated text, and of all that was kept and left out in held-out files."""

    documents: int
    tokens: int
    bytes: int
    digest: str
    kept: int
    dropped: int


def pack_train(item: TrainPack, vocab_size: int) -> PackedTrain:
    """Write one train file and return its digests."""
    dtype = token_type(vocab_size)
    cutter = _UnitCutter(item.unit_tokens)
    with TokenWriter(_made(item.path), dtype) as writer:
        for piece in _taken(item.parts, dtype):
            writer.write(piece)
            cutter.add(piece)
    while writer.tokens and cutter.unfinished():
        for piece in _taken(item.parts, dtype):
            cutter.add(piece)
    mirror.kept(Path(item.path))
    return PackedTrain(digest=writer.digest(), unit_digests=cutter.digests())


def _made(path: str) -> Path:
    """Return where a file is written on this node; its folder is there."""
    found = mirror.here(path)
    found.parent.mkdir(parents=True, exist_ok=True)
    return found


def _taken(parts: Sequence[tuple[str, int]], dtype: Any) -> Iterator[npt.NDArray[Any]]:
    size = np.dtype(dtype).itemsize
    for path, take in parts:
        left = take
        if not left:
            continue
        with mirror.fetched(path).open("rb") as stream:
            while left:
                piece = np.frombuffer(stream.read(min(left, BATCH_TOKENS) * size), dtype)
                if not len(piece):
                    raise EOFError(f"{path} is {left} tokens short")
                left -= len(piece)
                yield piece


class _UnitCutter:
    """Hashes a stream of tokens unit by unit."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._left = list(sizes)
        self._hashes = [hashlib.sha256() for _ in sizes]
        self._unit = 0

    def add(self, tokens: npt.NDArray[Any]) -> None:
        while len(tokens) and self._unit < len(self._left):
            taken = tokens[: self._left[self._unit]]
            self._hashes[self._unit].update(taken.astype("<u4").tobytes())
            self._left[self._unit] -= len(taken)
            self._unit += not self._left[self._unit]
            tokens = tokens[len(taken) :]

    def unfinished(self) -> bool:
        return any(self._left)

    def digests(self) -> tuple[str, ...]:
        return tuple(digest.hexdigest() for digest in self._hashes)


def pack_evaluation(item: EvaluationPack, rules: EvaluationRules) -> PackedEvaluation:
    """Write one evaluation file: the first `limit` tokens of the kept documents."""
    tokenizer = one_core_tokenizer(rules.tokenizer)
    counts = {"kept": 0, "dropped": 0, "documents": 0, "bytes": 0}
    kept = _kept(item, rules, counts)
    with TokenWriter(_made(item.path), token_type(rules.vocab_size), with_bytes=True) as writer:
        for tokens, token_bytes in _encoded(tokenizer, kept, rules.eos_token_id):
            room = rules.limit - writer.tokens
            writer.write(tokens[:room], token_bytes[:room])
            counts["documents"] += 1
            counts["bytes"] += int(token_bytes[:room].sum())
            if len(tokens) >= room:
                break
    for _ in kept if item.heldout_files else ():
        pass  # to the end: all held-out documents are counted, evaluated or not
    mirror.kept(Path(item.path))
    return PackedEvaluation(tokens=writer.tokens, digest=writer.digest(), **counts)


def _kept(item: EvaluationPack, rules: EvaluationRules, counts: dict[str, int]) -> Iterator[str]:
    for text in _texts(item):
        if len(item.covered) and (
            overlap(ngram_hashes(text, rules.ngram), item.covered) > rules.max_overlap
        ):
            counts["dropped"] += 1
            continue
        counts["kept"] += 1
        yield text


def _texts(item: EvaluationPack) -> Iterator[str]:
    for piece, fates in item.pieces:
        number = 0
        for document in documents(piece.reading):
            if document.text is None or is_empty(document):
                continue
            if number < len(fates) and fates[number] == TRAIN:
                yield document.text
            number += 1
    for path in item.heldout_files:
        file = mirror.fetched(path)
        if file.exists():
            with file.open(encoding="utf-8") as lines:
                yield from (json.loads(line) for line in lines)


def _encoded(
    tokenizer: Tokenizer, texts: Iterator[str], eos: int
) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]]:
    """Yield token ids and bytes of each document, the end-of-text with 0 bytes at its end."""
    for batch in _batches(texts):
        for text, found in zip(
            batch, tokenizer.encode_batch(batch, add_special_tokens=False), strict=True
        ):
            token_bytes = bytes_per_token(text, found.offsets)
            yield (
                np.array([*found.ids, eos], np.uint32),
                np.append(token_bytes, np.uint32(0)),
            )


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH_DOCUMENTS or sum(map(len, batch)) > BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def bytes_per_token(text: str, offsets: Sequence[tuple[int, int]]) -> npt.NDArray[np.uint32]:
    """Return the UTF-8 bytes of each token, `[tokens]`, from its character offsets in the text.

    The sum is exactly the text's. Characters that no token claims count for the token after them;
    of several tokens within one character the first has all its bytes.
    """
    if not offsets:
        return np.empty(0, np.uint32)
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    sizes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    ends = starts[np.maximum.accumulate([end for _, end in offsets])]
    ends[-1] = starts[-1]
    return np.diff(ends, prepend=0).astype(np.uint32)
