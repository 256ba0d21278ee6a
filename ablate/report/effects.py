"""Partition effects and pair interactions, or why there are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.errors import StudyError
from ablate.search.effects import LARGEST_EXACT, ROWS_PER_COEFFICIENT
from ablate.search.leaderboard import Leaderboard
from ablate.search.spaces import SubsetSpace

if TYPE_CHECKING:
    import pandas as pd

PRODUCTS = 3e7
"""Pairs times mixtures that one fit may hold: 240 MB."""
OPERATIONS = 1.5e9
"""Mixtures times coefficients squared of a quadratic fit: about ten seconds."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A table of effects in nats per token, or the reason why there is none.

    `used` of the `scored` mixtures went into it.
    """

    table: pd.DataFrame | None
    reason: str
    used: int
    scored: int


def effects_of(board: Leaderboard, level: float = 0.95) -> Estimate:
    """Return `Leaderboard.effects`; of a large board, from a part of its mixtures."""
    return _estimate(board, lambda part: part.effects(level))


def interactions_of(board: Leaderboard, level: float = 0.95) -> Estimate:
    """Return `Leaderboard.interactions`; of a large board, from a part of its mixtures."""
    return _estimate(board, lambda part: part.interactions(level))


def _estimate(board: Leaderboard, ask: Callable[[Leaderboard], Any]) -> Estimate:
    scored = len(board.mixtures)
    if not scored:
        return Estimate(table=None, reason="no mixture is scored", used=0, scored=0)
    part = thinned(board)
    try:
        table = ask(part)
    except StudyError as error:
        return Estimate(table=None, reason=str(error), used=0, scored=scored)
    if not len(table):
        return Estimate(table=None, reason="there is one partition only", used=0, scored=scored)
    return Estimate(table=table, reason="", used=len(part.mixtures), scored=scored)


def thinned(board: Leaderboard) -> Leaderboard:
    """Return the board with as many of its mixtures as a fit can hold.

    Single partitions and nearly whole sets stay; the others are taken evenly from the order of the
    table, which does not look at scores, so that the part is a fair sample within each size.
    """
    if not isinstance(board.space, SubsetSpace):
        return board
    rows, partitions = board.mixtures, len(board.space.names)
    complete = partitions <= LARGEST_EXACT and len(rows) + 1 >= 2**partitions
    room = rows_for_a_fit(partitions)
    if complete or len(rows) <= room:
        return board
    ordered = sorted(rows, key=lambda row: row.sort_key())
    ends = np.array([row.size <= 1 or row.size >= partitions - 1 for row in ordered])
    inner = np.flatnonzero(~ends)
    wanted = max(0, room - int(ends.sum()))
    ends[inner[np.unique(np.linspace(0, len(inner) - 1, wanted).astype(int))]] = True
    seeds = (row for row in board.trials if row.candidate.kind == "seed")
    return replace(board, trials=(*seeds, *compress(ordered, ends)))


def rows_for_a_fit(partitions: int) -> int:
    """Return how many mixtures a fit over `partitions` takes within its limits of memory and time.

    With `ROWS_PER_COEFFICIENT` rows per coefficient or more the fit has all pairs: then its time is
    limited too, or, where that is not enough for pairs, so few are taken that it has none.
    """
    pairs = partitions * (partitions - 1) // 2
    columns = 1 + partitions + pairs
    held = int(PRODUCTS / max(1, pairs))
    quadratic = int(ROWS_PER_COEFFICIENT * columns) + 1
    if held < quadratic:
        return held
    timely = int(OPERATIONS / columns**2)
    return min(held, timely) if timely >= quadratic else quadratic - 2
