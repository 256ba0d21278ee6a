"""Losses of many subsets: each is the sum of two halves that are made once.

A subset's mixture ratio is a sum over its members below and above a split; all sums of a half
come from one small matrix product, and a subset then costs one addition a token instead of one
multiplication for every member.
"""

from __future__ import annotations

import numpy as np

from ablate.evaluate.ensemble.scoring import log_products, losses
from ablate.evaluate.ensemble.values import ROWS, Ensemble

LOW = 8  # units in the lower half: up to 256 sums, an inner loop long enough for the machine
TILE = 1 << 18
MOST = 16  # units; beyond it the upper half is no longer small


def every_subset(count: int) -> np.ndarray:
    """Return all non-empty subsets of `count` units, bool [2^count - 1, count].

    Row i - 1 holds the units whose bits are set in i. Raises ValueError beyond 20 units.
    """
    if not 1 <= count <= 20:
        raise ValueError(f"1 to 20 units can be enumerated, got {count}")
    return (np.arange(1, 1 << count)[:, None] >> np.arange(count) & 1).astype(bool)


def subset_losses(
    ensemble: Ensemble, masks: np.ndarray, shares: np.ndarray | None = None
) -> np.ndarray:
    """Return nats per token of subsets, float64 [m, domains], for `masks` bool [m, units].

    Members count in proportion to `shares` [units], all above 0; evenly without it. As accurate as
    `losses`, which answers above 16 units. Memory is bounded whatever m is, but for the answer.

    Raises ValueError for an empty subset, a wrong shape or a share that is not above 0.
    """
    masks = np.asarray(masks, dtype=bool)
    count = len(ensemble.units)
    shares = np.ones(count) if shares is None else np.asarray(shares, dtype=np.float64)
    if masks.ndim != 2 or masks.shape[1] != count or not masks.any(axis=1).all():
        raise ValueError(f"masks must have shape [m, {count}] and a member each")
    if shares.shape != (count,) or not ((shares > 0) & np.isfinite(shares)).all():
        raise ValueError(f"shares must be {count} finite numbers above 0, got {shares.tolist()}")
    shares = shares / shares.sum()
    totals = masks @ shares
    if count > MOST or len(masks) < 1 << LOW:
        return losses(ensemble, masks * shares / totals[:, None])
    return _by_halves(ensemble, masks, shares) + np.log(totals)[:, None]


def _by_halves(ensemble: Ensemble, masks: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return -mean_t log sum_{u in subset} share_u p_u(t), float64 [m, domains]."""
    low, low_index = np.unique(masks[:, :LOW], axis=0, return_inverse=True)
    high, high_index = np.unique(masks[:, LOW:], axis=0, return_inverse=True)
    groups = [np.flatnonzero(high_index.ravel() == place) for place in range(len(high))]
    picks = [low_index.ravel()[group] for group in groups]
    columns = ensemble.ratios.shape[2]
    step = max(1, TILE // (ROWS * len(low)))
    sums = (low * shares[:LOW]).astype(np.float32).T, (high * shares[LOW:]).astype(np.float32).T
    found = np.empty((len(masks), len(ensemble.domains)))
    weights = masks * shares
    for domain in range(len(ensemble.domains)):
        logs = np.zeros(len(masks))
        span = ensemble.columns_of(domain)
        for first in range(span.start, span.stop, step):
            part = slice(first, min(first + step, span.stop))
            ratios = ensemble.ratios[:, :, part].reshape(len(shares), -1).T
            lower, upper = ratios[:, :LOW] @ sums[0], ratios[:, LOW:] @ sums[1]
            for place, (group, pick) in enumerate(zip(groups, picks, strict=True)):
                whole = pick.size == len(low) and (pick == np.arange(pick.size)).all()
                mixed = (lower if whole else lower[:, pick]) + upper[:, place, None]
                logs[group] += log_products(ensemble, first, mixed, weights[group]).sum(axis=0)
        found[:, domain] = ensemble.best_losses[domain] - logs / ensemble.tokens[domain]
    return found
