"""From encoded parts to what a partition holds: limits, units, losses. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ablate.corpus.encode import EncodedPart
from ablate.errors import CorpusError
from ablate.study import CorpusSettings

MOST = 0.5
"""A partition that loses more than this share of its bytes to decontamination is refused."""
NOTED = 0.1
"""One that loses more than this is mentioned."""


@dataclass(frozen=True, kw_only=True)
class TrainCut:
    """The training text of one stream after its limit: `(part, tokens taken)` in order."""

    parts: tuple[tuple[EncodedPart, int], ...]
    tokens: int
    documents: int
    bytes: int
    contaminated: int
    contaminated_bytes: int
    unchecked: int
    causes: dict[str, int]

    @property
    def lost(self) -> float:
        """Return the share of the bytes that decontamination dropped."""
        return self.contaminated_bytes / max(self.bytes + self.contaminated_bytes, 1)

    def hits(self) -> npt.NDArray[np.int64]:
        """Return the distinct places of protected n-grams that stand in the text taken."""
        found = [part.hits[part.hits_at < take] for part, take in self.parts]
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def cut(parts: Sequence[tuple[EncodedPart, int]], limits: Mapping[int, int | None]) -> TrainCut:
    """Return what remains of parts in file order, each with the number of its source.

    A document counts when it begins before the limit; limits are in tokens per source.
    """
    left = dict(limits)
    taken: list[tuple[EncodedPart, int]] = []
    for part, source in parts:
        there = int(part.document_tokens.sum())
        room = left.get(source)
        take = there if room is None else min(there, room)
        if room is not None:
            left[source] = room - take
        taken.append((part, take))
    return _counted(taken)


def shorten(found: TrainCut, limit: int | None) -> TrainCut:
    """Return the first `limit` tokens of a cut over all its sources."""
    if limit is None or found.tokens <= limit:
        return found
    taken = []
    for part, take in found.parts:
        taken.append((part, min(take, limit)))
        limit -= taken[-1][1]
    return _counted(taken)


def _counted(taken: list[tuple[EncodedPart, int]]) -> TrainCut:
    causes: dict[str, int] = {}
    documents = size = dropped = dropped_bytes = unchecked = 0
    for part, take in taken:
        starts = np.cumsum(part.document_tokens) - part.document_tokens
        documents += int((starts < take).sum())
        size += int(part.document_bytes[starts < take].sum())
        whole = take == int(part.document_tokens.sum())
        lost = part.dropped_at <= take if whole else part.dropped_at < take
        dropped += int(lost.sum())
        dropped_bytes += int(part.dropped_bytes[lost].sum())
        unchecked += int((part.unchecked_at < take).sum())
        for cause, amount in part.causes.items():
            causes[cause] = causes.get(cause, 0) + amount
    return TrainCut(
        parts=tuple(taken),
        tokens=sum(take for _, take in taken),
        documents=documents,
        bytes=size,
        contaminated=dropped,
        contaminated_bytes=dropped_bytes,
        unchecked=unchecked,
        causes=causes,
    )


def unit_sizes(tokens: Mapping[str, int], settings: CorpusSettings) -> dict[str, tuple[int, ...]]:
    """Return the tokens of each unit by partition.

    Raises CorpusError that lists all partitions below one unit, unless they are allowed; and those
    with fewer than two tokens in any case.
    """
    size = settings.unit_tokens
    least = size if settings.short_units == "error" else 2
    short = {name: count for name, count in tokens.items() if count < least}
    if short:
        shown = ", ".join(f"{name} {count:,}" for name, count in sorted(short.items())[:20])
        more = f" and {len(short) - 20} more" if len(short) > 20 else ""
        remedy = (
            "lower corpus.unit_tokens, add text, or set corpus.short_units to allow or repeat"
            if settings.short_units == "error"
            else "add text to them, or leave them out"
        )
        raise CorpusError(
            f"partitions must have at least {least:,} training tokens, got {shown}{more}; {remedy}"
        )
    return {name: _sizes(count, settings) for name, count in tokens.items()}


def _sizes(tokens: int, settings: CorpusSettings) -> tuple[int, ...]:
    size = settings.unit_tokens
    if tokens >= size:
        return (size,) * (tokens // size)
    return (size,) if settings.short_units == "repeat" else (tokens,)
