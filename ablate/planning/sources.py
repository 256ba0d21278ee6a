"""The texts of a study: as its corpus has them, or estimated where `prepare` would make it anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ablate.corpus import Corpus, PartitionInfo, PartitionSurvey, read_corpus, survey
from ablate.corpus.inputs import inputs_of, what_changed
from ablate.corpus.pieces import pieces_of
from ablate.corpus.survey import BYTES_PER_TOKEN
from ablate.errors import WorkspaceError
from ablate.planning.partitions import (
    PartitionPlan,
    prepared_partitions,
    surveyed_partitions,
)
from ablate.planning.texts import TextFile, text_files
from ablate.progress import note
from ablate.study import Study


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Partitions, the seed's own tokens of text, and the files; `exact` is False for estimates."""

    exact: bool
    partitions: tuple[PartitionPlan, ...]
    seed_tokens: int
    texts: tuple[TextFile, ...]


def sources_of(study: Study, corpus: Corpus | None = None) -> Sources:
    """Return the texts of a study; of a `corpus` that is given as it is, without its files.

    Raises CorpusError for missing or empty sources, StudyError for a partition far below a unit.
    """
    if corpus is not None:
        return Sources(
            exact=True,
            partitions=prepared_partitions(corpus),
            seed_tokens=_seed_tokens(corpus),
            texts=(),
        )
    inputs = inputs_of(study, pieces_of(study))
    there = _prepared(study, inputs)
    found: Iterable[PartitionInfo | PartitionSurvey]
    if there is not None:
        found, seed_tokens = there.partitions.values(), _seed_tokens(there)
        parts = prepared_partitions(there)
    else:
        look = survey(study)
        found, seed_tokens = look.partitions.values(), look.seed_tokens
        parts = surveyed_partitions(study, look)
    return Sources(
        exact=there is not None,
        partitions=parts,
        seed_tokens=seed_tokens,
        texts=text_files(inputs, parts, seed_tokens, _bytes_per_token(found)),
    )


def _prepared(study: Study, inputs: dict[str, Any]) -> Corpus | None:
    """Return the study's corpus, None where `prepare` would make it, anew or for the first time."""
    workspace = study.open_workspace()
    try:
        corpus = read_corpus(workspace)
        reason = None if corpus is None else what_changed(corpus, inputs, workspace)
    except WorkspaceError as error:
        corpus, reason = None, str(error)
    if reason is None:
        return corpus
    note(f"plan: estimates, since the corpus is to be made again: {reason}")
    return None


def _seed_tokens(corpus: Corpus) -> int:
    return corpus.seed.tokens if corpus.seed else 0


def _bytes_per_token(parts: Iterable[PartitionInfo | PartitionSurvey]) -> float:
    sizes = [(part.bytes, part.tokens) for part in parts]
    tokens = sum(count for _, count in sizes)
    return sum(size for size, _ in sizes) / tokens if tokens else BYTES_PER_TOKEN
