"""The study's sources as pieces of work: one per file and use, in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.corpus.documents import Reading
from ablate.corpus.scan import Kind, Piece
from ablate.corpus.source_files import SourceFile, resolve
from ablate.study import Source, Study, Texts

SEED = "@seed"
HUB_BYTES_PER_TOKEN = 16
"""With a limit on tokens, so many bytes of text per token are read of a hub data set, no more."""


def pieces_of(study: Study) -> list[Piece]:
    """Return every file of the study's partitions, domains and seed, numbered from 0.

    Raises CorpusError for a path with nothing behind it.
    """
    found: list[Piece] = []
    for number, source in enumerate(study.corpus.sources):
        files = resolve(source.path, f"corpus.sources.{number}.path")
        limit = source.max_tokens if source.partition else None
        name, columns = source.partition or "", tuple(source.partition_by or ())
        _append(found, "partition", number, name, _readings(source, files, columns, limit))
    for number, (name, texts) in enumerate(study.evaluate.domains.items()):
        files = resolve(texts.path, f"evaluate.domains.{name}")
        limit = study.evaluate.tokens_per_domain
        _append(found, "domain", number, name, _readings(texts, files, (), limit))
    for number, seed in enumerate(study.seed.sources):
        files = resolve(seed.path, f"seed.sources.{number}.path")
        limits = [limit for limit in (seed.max_tokens, study.seed.tokens) if limit is not None]
        limit = min(limits, default=None)
        _append(found, "seed", number, SEED, _readings(seed, files, (), limit))
    return found


def limits_of(study: Study) -> dict[tuple[Kind, int], int | None]:
    """Return the most training tokens of a stream from each source, by kind and number."""
    limits: dict[tuple[Kind, int], int | None] = {}
    for number, source in enumerate(study.corpus.sources):
        limits["partition", number] = source.max_tokens
    for number, seed in enumerate(study.seed.sources):
        given = [limit for limit in (seed.max_tokens, study.seed.tokens) if limit is not None]
        limits["seed", number] = min(given, default=None)
    return limits


def _readings(
    texts: Texts | Source, files: Sequence[SourceFile], columns: tuple[str, ...], limit: int | None
) -> list[Reading]:
    return [
        Reading(
            file=file,
            text=texts.text,
            split=texts.split,
            sample_by=texts.sample_by,
            columns=columns,
            max_bytes=None if limit is None else limit * HUB_BYTES_PER_TOKEN,
        )
        for file in files
    ]


def _append(
    found: list[Piece], kind: Kind, source: int, name: str, readings: Sequence[Reading]
) -> None:
    for reading in readings:
        found.append(Piece(number=len(found), kind=kind, source=source, name=name, reading=reading))
