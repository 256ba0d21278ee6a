"""Partition effects and pair interactions, or why there are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablate.errors import StudyError
from ablate.search.leaderboard import Leaderboard
from ablate.search.thinning import thinned

if TYPE_CHECKING:
    import pandas as pd


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
