"""The seed's kept text, as the tokenizer learns from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ablate.corpus.documents import documents
from ablate.corpus.ngrams import ngram_hashes
from ablate.corpus.protection import Protected, contaminated_by
from ablate.corpus.scan import Piece, is_empty
from ablate.corpus.selection import TRAIN, Fates
from ablate.corpus.tokenizer import StudyTokenizer, train_tokenizer

LEARNED_BYTES = 128 << 20
"""The tokenizer learns from the first so many bytes of the seed's text, in order."""


@dataclass(frozen=True, kw_only=True)
class LearnItem:
    """The seed's files with the fates of their documents, and the vocabulary to reach."""

    pieces: tuple[tuple[Piece, Fates], ...]
    vocab_size: int


def learn_tokenizer(item: LearnItem, protected: Protected | None) -> StudyTokenizer:
    """Return the tokenizer trained on the seed's text, cleaned as its training text is."""
    return train_tokenizer(_first_bytes(_kept(item, protected)), item.vocab_size)


def _kept(item: LearnItem, protected: Protected | None) -> Iterator[str]:
    for piece, fates in item.pieces:
        number = -1
        for document in documents(piece.reading):
            if document.text is None or is_empty(document):
                continue
            number += 1
            if number >= len(fates) or fates[number] != TRAIN:
                continue
            if protected is not None:
                grams = ngram_hashes(document.text, protected.ngram)
                if len(grams) and contaminated_by(grams, protected, None):
                    continue
            yield document.text


def _first_bytes(texts: Iterator[str]) -> Iterator[str]:
    left = LEARNED_BYTES
    for text in texts:
        yield text
        left -= len(text.encode())
        if left <= 0:
            return
