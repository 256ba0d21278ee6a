"""The partitions of a study as they will be: counted in its corpus, or estimated from its files."""

from __future__ import annotations

from dataclasses import dataclass

from ablate.corpus import Corpus, Survey
from ablate.errors import StudyError
from ablate.study import Study

ERROR_OF_ESTIMATE = 4
"""Tokens estimated from bytes are within this factor: 1.5 to 5 bytes a token in all languages."""


@dataclass(frozen=True, kw_only=True)
class PartitionPlan:
    """One partition: tokens are estimates until the corpus is prepared."""

    name: str
    documents: int
    tokens: int
    units: int
    unit_tokens: tuple[int, ...]
    unused_tokens: int


def prepared_partitions(corpus: Corpus) -> tuple[PartitionPlan, ...]:
    """Return the partitions of a prepared corpus, sorted by name."""
    return tuple(
        PartitionPlan(
            name=name,
            documents=info.documents,
            tokens=info.tokens,
            units=info.units,
            unit_tokens=tuple(info.unit_tokens),
            unused_tokens=info.unused_tokens,
        )
        for name, info in sorted(corpus.partitions.items())
    )


def surveyed_partitions(study: Study, look: Survey) -> tuple[PartitionPlan, ...]:
    """Return the partitions of a survey, sorted by name; StudyError for one far below a unit."""
    size = study.corpus.unit_tokens
    found = []
    for name, estimate in sorted(look.partitions.items()):
        whole = estimate.tokens // size
        repeat = study.corpus.short_units == "repeat"
        sizes = (size,) * whole or (size if repeat else min(size, estimate.tokens),)
        if study.corpus.short_units == "error":
            _require_unit(name, estimate.tokens, size)
        found.append(
            PartitionPlan(
                name=name,
                documents=estimate.documents,
                tokens=estimate.tokens,
                units=len(sizes),
                unit_tokens=sizes,
                unused_tokens=max(estimate.tokens - sum(sizes), 0),
            )
        )
    return tuple(found)


def _require_unit(name: str, estimate: int, size: int) -> None:
    """Refuse a partition that is far too small; a small shortage is within the estimate's error."""
    if estimate * ERROR_OF_ESTIMATE < size:
        raise StudyError(
            f"partitions must have at least {size:,} training tokens, got about {estimate:,} for "
            f"'{name}'; lower corpus.unit_tokens, add text, or set corpus.short_units to allow or "
            "repeat"
        )
