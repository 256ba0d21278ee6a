"""Losses of many subsets of the units, for exhaustive rankings.

Sums of two halves (one addition a token and subset instead of a product over the units) measured
no better than the batched matrix product of `losses`: products and logarithms, which both need,
outweigh it.
"""

from __future__ import annotations

import numpy as np

from ablate.evaluate.ensemble.scoring import losses
from ablate.evaluate.ensemble.values import Ensemble

SLAB = 1 << 12  # subsets whose weights are held at once
MOST = 20  # units whose subsets can be listed


def every_subset(count: int) -> np.ndarray:
    """Return all non-empty subsets of `count` units, bool [2^count - 1, count].

    Row i - 1 holds the units whose bits are set in i. Raises ValueError beyond 20 units.
    """
    if not 1 <= count <= MOST:
        raise ValueError(f"1 to {MOST} units can be enumerated, got {count}")
    members: np.ndarray = np.arange(1, 1 << count)[:, None] >> np.arange(count) & 1
    return members.astype(bool)


def subset_losses(
    ensemble: Ensemble, masks: np.ndarray, shares: np.ndarray | None = None
) -> np.ndarray:
    """Return nats per token of subsets, float64 [m, domains], for `masks` bool [m, units].

    Members count in proportion to `shares` [units], all above 0; evenly without it. As accurate
    as `losses`. Memory does not grow with m, but for the answer.

    Raises ValueError for an empty subset, a wrong shape or a share that is not above 0.
    """
    masks = np.asarray(masks, dtype=bool)
    count = len(ensemble.units)
    shares = np.ones(count) if shares is None else np.asarray(shares, dtype=np.float64)
    if masks.ndim != 2 or masks.shape[1] != count or not masks.any(axis=1).all():
        raise ValueError(f"masks must have shape [m, {count}] and a member each, got {masks.shape}")
    if shares.shape != (count,) or not ((shares > 0) & np.isfinite(shares)).all():
        raise ValueError(f"shares must be {count} finite numbers above 0, got {shares.tolist()}")
    found = np.empty((len(masks), len(ensemble.domains)))
    for first in range(0, len(masks), SLAB):
        weights = masks[first : first + SLAB] * shares
        weights /= weights.sum(axis=1, keepdims=True)
        found[first : first + SLAB] = losses(ensemble, weights)
    return found
