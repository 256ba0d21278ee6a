"""A cheap look at the sources, before anything is prepared. Reads only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablate.corpus.documents import documents
from ablate.corpus.pieces import limits_of, pieces_of
from ablate.corpus.scan import Piece, name_of
from ablate.corpus.source_files import is_compressed
from ablate.study import Study

LARGE_VOCABULARY = 50_000
BYTES_PER_TOKEN = 4.2
"""Bytes of text per token at that size, and a third of a byte less per halving: measured on code
and documentation (3.0 at 4,096 entries); a guess for other text."""
BYTES_PER_DOUBLING = 1 / 3
COMPRESSION = 3.0
"""Bytes of text per byte of a compressed file: usual for gzip, a guess."""
LOOK_BYTES = 256 << 20
LEAST_LOOK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class PartitionSurvey:
    """Estimated documents, bytes of text and tokens of a partition."""

    documents: int
    bytes: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Files behind the study, and estimates by partition; small sources are counted exactly.

    `seed_tokens` is the estimate for all of the seed's own text.
    """

    files: int
    partitions: dict[str, PartitionSurvey]
    seed_tokens: int


def survey(study: Study) -> Survey:
    """Return estimates from the beginning of each file, scaled by the file's size.

    Raises CorpusError for missing or empty sources and for bad lines in what was read.
    """
    pieces = pieces_of(study)
    wanted = [piece for piece in pieces if piece.kind == "partition"]
    budget = _budget(wanted)
    limits = limits_of(study)
    counts: dict[str, float] = {}
    sizes: dict[str, float] = {}
    most: dict[str, int | None] = {}
    for piece in wanted:
        for name, (count, size) in _look(piece, budget).items():
            counts[name] = counts.get(name, 0.0) + count
            sizes[name] = sizes.get(name, 0.0) + size
            most[name] = limits["partition", piece.source]
    per_token = _bytes_per_token(study)
    kept = 1 - study.corpus.heldout.documents
    return Survey(
        files=len(pieces),
        partitions={
            name: _estimate(counts[name] * kept, sizes[name] * kept, per_token, most[name])
            for name in counts
        },
        seed_tokens=_seed_tokens(study, pieces, per_token),
    )


def _budget(pieces: Sequence[Piece]) -> int:
    return max(LOOK_BYTES // max(len(pieces), 1), LEAST_LOOK_BYTES)


def _seed_tokens(study: Study, pieces: Sequence[Piece], per_token: float) -> int:
    wanted = [piece for piece in pieces if piece.kind == "seed"]
    limits = limits_of(study)
    found: dict[int, float] = {}
    for piece in wanted:
        for count, size in _look(piece, _budget(wanted)).values():
            found[piece.source] = found.get(piece.source, 0.0) + size / per_token + count
    tokens = 0.0
    for source, there in found.items():
        limit = limits["seed", source]
        tokens += there if limit is None else min(there, limit)
    most = study.seed.tokens
    return round(tokens if most is None else min(tokens, most))


def _bytes_per_token(study: Study) -> float:
    trained = study.tokenizer.train
    size = trained.vocab_size if trained else LARGE_VOCABULARY
    halvings = math.log2(LARGE_VOCABULARY / min(size, LARGE_VOCABULARY))
    return BYTES_PER_TOKEN - BYTES_PER_DOUBLING * halvings


def _estimate(
    documents: float, size: float, per_token: float, limit: int | None
) -> PartitionSurvey:
    tokens = size / per_token + documents
    share = 1.0 if limit is None else min(1.0, limit / max(tokens, 1.0))
    return PartitionSurvey(
        documents=round(documents * share),
        bytes=round(size * share),
        tokens=round(tokens * share),
    )


def _look(piece: Piece, budget: int) -> dict[str, tuple[float, float]]:
    """Return documents and bytes by partition, from at most `budget` bytes of text."""
    seen: dict[str, list[int]] = {}
    read = 0
    complete = True
    for document in documents(piece.reading):
        if read >= budget:
            complete = False
            break
        size = len(document.text.encode()) if document.text else 0
        count = seen.setdefault(name_of(piece, document), [0, 0])
        count[0] += 1
        count[1] += size
        read += size
    scale = 1.0 if complete else max(_text_bytes(piece) / max(read, 1), 1.0)
    return {name: (count * scale, size * scale) for name, (count, size) in seen.items()}


def _text_bytes(piece: Piece) -> float:
    file = piece.reading.file
    if file.format == "hub":
        return float(piece.reading.max_bytes or 0)
    size = Path(file.path).stat().st_size
    packed = is_compressed(file.path) or file.format == "parquet"
    return size * (COMPRESSION if packed else 1.0)
