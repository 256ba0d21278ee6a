"""Which mixtures cannot be told from the best one, for boards of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from ablate.search.comparisons import group_nats
from ablate.search.paired import contrasts, paired_scores

if TYPE_CHECKING:
    from ablate.search.leaderboard import Leaderboard

EXACT_UP_TO = 2_000
"""Mixtures up to which the leaderboard's own test is asked: its bootstrap grows with the square."""
CHUNK = 1_000


@dataclass(frozen=True, kw_only=True)
class Leaders:
    """Keys of the mixtures that cannot be told from the best, the best among them.

    By the paired test; on a calibrated board, those whose interval reaches the best one's predicted
    loss. `exact` is False where only a bound was computed: then the set may hold some too
    many, and the best mixture is in it with at least the same probability.
    """

    keys: frozenset[str]
    exact: bool

    @property
    def others(self) -> int:
        """Return their number, the best itself not counted."""
        return max(0, len(self.keys) - 1)


def leaders_of(board: Leaderboard, level: float = 0.95) -> Leaders | None:
    """Return the leaders; None when nothing is scored or the sums that a test needs were not kept.

    Beyond `EXACT_UP_TO` mixtures each is held against the best with the level divided by their
    number (Bonferroni), which no mixture of `Leaderboard.tied_with_best` fails.
    """
    rows = board.mixtures
    if board.is_calibrated:
        keys = (row.candidate.key for row in board.within_reach())
        return Leaders(keys=frozenset(keys), exact=True)
    if not rows or not board.is_grouped:
        return None
    if len(rows) <= EXACT_UP_TO:
        keys = (row.candidate.key for row in board.tied_with_best(level))
        return Leaders(keys=frozenset(keys), exact=True)
    kept = {rows[0].candidate.key}
    for start in range(1, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        chances = _chances(board, start, start + len(chunk))
        fair = chances >= (1 - level) / (len(rows) - 1)
        kept |= {row.candidate.key for row, stays in zip(chunk, fair, strict=True) if stays}
    return Leaders(keys=frozenset(kept), exact=False)


def _chances(board: Leaderboard, start: int, stop: int) -> np.ndarray:
    """Return the one-sided p-value [stop - start] of each mixture being no worse than the best."""
    rows = [board.mixtures[0], *board.mixtures[start:stop]]
    tokens = {name: board.group_tokens[name] for name, weight in board.weights.items() if weight}
    scores = paired_scores(group_nats(rows, tokens), tokens, board.weights)
    against = np.hstack([np.full((len(rows) - 1, 1), -1.0), np.eye(len(rows) - 1)])
    found = contrasts(scores, against)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(found.mean == 0, 0.0, found.mean / found.stderr)
    return np.asarray(special.stdtr(np.minimum(found.freedom, 1e9), -ratio))
