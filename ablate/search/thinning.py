"""A large board made smaller, for what is fitted to all of its mixtures at once."""

from __future__ import annotations

from dataclasses import replace
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from ablate.search.effects import LARGEST_EXACT, ROWS_PER_COEFFICIENT
from ablate.search.spaces import SubsetSpace

if TYPE_CHECKING:
    from ablate.search.leaderboard import Leaderboard

PRODUCTS = 3e7
"""Pairs times mixtures that one fit may hold: 240 MB."""
OPERATIONS = 1.5e9
"""Mixtures times coefficients squared of a quadratic fit: about ten seconds."""


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
