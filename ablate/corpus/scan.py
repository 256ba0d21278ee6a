"""First pass over a source file: what each document is, without keeping any text."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from ablate.corpus.documents import Document, Reading, documents
from ablate.corpus.ngrams import Grams, gather, ngram_hashes
from ablate.errors import CorpusError
from ablate.harmless import NAME_LENGTH

Kind = Literal["partition", "domain", "seed"]
Marks = npt.NDArray[np.uint64]

MAX_PARTITIONS = 4096
GATHER_EVERY = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One file read for one use. `source` counts the sources of the same kind.

    `name` is the partition's or domain's; it is empty where columns name the partition.
    """

    number: int
    kind: Kind
    source: int
    name: str
    reading: Reading


@dataclass(frozen=True, kw_only=True)
class ScanRules:
    """The held-out share and the words in an n-gram (None: no decontamination)."""

    heldout: float
    ngram: int | None


@dataclass(frozen=True, kw_only=True)
class StreamScan:
    """The documents of one stream (partition, domain or seed) in one file, in order.

    `marks[documents, 2]` are the first 128 bits of the SHA-256 of each text, `sizes[documents]`
    UTF-8 bytes; `protected` are the distinct n-grams of held-out documents (a domain's: all).
    """

    values: tuple[str, ...]
    marks: Marks
    sizes: npt.NDArray[np.int64]
    empty: int
    not_text: int
    protected: Grams


def name_of(piece: Piece, document: Document) -> str:
    """Return the stream that a document belongs to."""
    return piece.name or "-".join(document.values)


def is_empty(document: Document) -> bool:
    """Return whether nothing but white space is in a text."""
    return document.text is not None and (not document.text or document.text.isspace())


def is_heldout(marks: Marks, share: float) -> npt.NDArray[np.bool_]:
    """Return for each mark whether the document is held out: a matter of its text alone."""
    held: npt.NDArray[np.bool_] = marks[:, 0].astype(np.float64) / 2.0**64 < share
    return held


def scan_piece(piece: Piece, rules: ScanRules) -> dict[str, StreamScan]:
    """Return the scan of each stream in a file, by name. Raises CorpusError as `documents` does."""
    found: dict[str, _Scanner] = {}
    for document in documents(piece.reading):
        name = name_of(piece, document)
        if name not in found:
            if len(name) > NAME_LENGTH:
                raise CorpusError(
                    f"partition_by must make names of at most {NAME_LENGTH:,} characters, got "
                    f"{name[:60]}... in {piece.reading.file.path}; name fewer columns"
                )
            if len(found) == MAX_PARTITIONS:
                raise CorpusError(
                    f"partition_by must make at most {MAX_PARTITIONS:,} partitions, got more from "
                    f"{', '.join(piece.reading.columns)} in {piece.reading.file.path}; choose "
                    "columns with fewer values"
                )
            found[name] = _Scanner(document.values, _protects(piece.kind, rules), rules)
        found[name].add(document, piece)
    return {name: scanner.result() for name, scanner in found.items()}


def _protects(kind: Kind, rules: ScanRules) -> float:
    if rules.ngram is None or kind == "seed":
        return 0.0
    return 1.0 if kind == "domain" else rules.heldout


@dataclass
class _Scanner:
    values: tuple[str, ...]
    share: float
    rules: ScanRules
    marks: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    empty: int = 0
    not_text: int = 0
    protected: list[Grams] = field(default_factory=list)
    waiting: int = 0

    def add(self, document: Document, piece: Piece) -> None:
        if document.values != self.values:
            both = " and ".join(repr(values) for values in (self.values, document.values))
            raise CorpusError(
                f"values of partition_by must make different names, got {both} for one name in "
                f"{piece.reading.file.path}; rename a value"
            )
        if document.text is None:
            self.not_text += 1
        elif is_empty(document):
            self.empty += 1
        else:
            data = document.text.encode()
            digest = hashlib.sha256(data).digest()
            first = int.from_bytes(digest[:8], "big")
            self.marks.extend((first, int.from_bytes(digest[8:16], "big")))
            self.sizes.append(len(data))
            if first / 2**64 < self.share:
                self._protect(document.text)

    def _protect(self, text: str) -> None:
        grams = ngram_hashes(text, self.rules.ngram or 1)
        self.protected.append(grams)
        self.waiting += len(grams)
        if self.waiting > GATHER_EVERY:
            self.protected = [gather(self.protected)]
            self.waiting = 0

    def result(self) -> StreamScan:
        return StreamScan(
            values=self.values,
            marks=np.array(self.marks, np.uint64).reshape(-1, 2),
            sizes=np.array(self.sizes, np.int64),
            empty=self.empty,
            not_text=self.not_text,
            protected=gather(self.protected),
        )
