"""Scored models compared in pairs: what the kept sums over groups of windows can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import spearmanr

from ablate.errors import StudyError
from ablate.search.paired import ByDomain, Difference, difference
from ablate.search.paired import tied_with_best as tied_rows
from ablate.search.table import Trial


def group_nats(rows: Sequence[Trial], tokens: ByDomain) -> dict[str, np.ndarray]:
    """Return summed nats [rows, groups] by domain.

    Raises StudyError when a row was scored without groups, by an earlier version.
    """
    for row in rows:
        for name, counted in tokens.items():
            if len(row.scores[name].groups) != len(counted):
                raise StudyError(
                    f"paired comparisons must have sums over groups of windows, got none for "
                    f"{' + '.join(row.partitions) or 'the seed'} on '{name}'; delete trials.jsonl "
                    "to have the models scored again"
                )
    return {name: np.array([row.scores[name].groups for row in rows]) for name in tokens}


def tied(
    rows: Sequence[Trial], tokens: ByDomain, weights: Mapping[str, float], level: float
) -> tuple[Trial, ...]:
    """Return the rows that the paired test cannot tell from the best of them, in their order."""
    mask = tied_rows(group_nats(rows, tokens), tokens, weights, level)
    return tuple(row for row, kept in zip(rows, mask, strict=True) if kept)


def compared(
    one: Trial, other: Trial, tokens: ByDomain, weights: Mapping[str, float]
) -> Difference:
    """Return objective of `one` minus `other`, its paired stderr, and P(one is better)."""
    nats = group_nats([one, other], tokens)
    first = {name: values[0] for name, values in nats.items()}
    second = {name: values[1] for name, values in nats.items()}
    return difference(first, second, tokens, weights)


def rank_agreement(pairs: Sequence[tuple[int, float, float]]) -> float | None:
    """Return the Spearman correlation of two objectives within a size, averaged over the sizes.

    `pairs` are (size, one objective, the other). Sizes with fewer than three mixtures or without
    spread are left out; None when all are.
    """
    found = []
    for size in sorted({size for size, _, _ in pairs}):
        one, other = zip(*((a, b) for s, a, b in pairs if s == size), strict=True)
        if len(one) > 2 and len(set(one)) > 1 and len(set(other)) > 1:
            found.append(float(spearmanr(one, other).statistic))
    return sum(found) / len(found) if found else None


def undominated(points: Sequence[Sequence[float]]) -> np.ndarray:
    """Return bool [m]: whether no other point is as good on every value and better on one.

    Smaller is better. Equal points all stay.
    """
    values = np.array(points, dtype=float, ndmin=2)
    kept = np.ones(len(points), dtype=bool)
    if not points:
        return kept
    for place in np.lexsort(values.T[::-1]):
        if kept[place]:
            mine = values[place]
            kept &= ~((values >= mine).all(axis=1) & (values > mine).any(axis=1))
    return kept
