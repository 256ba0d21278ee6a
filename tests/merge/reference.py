"""The merges once more, written plainly in float64 NumPy from the papers: what tests compare with.

Every function takes one tensor's members [k, n], weights [k] and seed [n], and shares no code with
the package.
"""

from __future__ import annotations

import numpy as np


def task_arithmetic(
    members: np.ndarray, weights: np.ndarray, seed: np.ndarray, scale: float
) -> np.ndarray:
    return seed + scale * np.einsum("k,kn->n", weights, members - seed)


def trimmed(delta: np.ndarray, density: float) -> np.ndarray:
    count = max(int(density * delta.size), 1)
    order = np.argsort(-np.abs(delta), kind="stable")
    result = np.zeros_like(delta)
    result[order[:count]] = delta[order[:count]]
    return result


def ties(
    members: np.ndarray, weights: np.ndarray, seed: np.ndarray, density: float, scale: float
) -> np.ndarray:
    kept = np.stack([trimmed(member - seed, density) for member in members])
    mass = (weights[:, None] * kept).sum(0)
    sign = np.where(mass >= 0, 1.0, -1.0)
    agree = np.sign(kept) == sign
    above = (weights[:, None] * kept * agree).sum(0)
    below = (weights[:, None] * agree).sum(0)
    return seed + scale * above / np.where(below == 0, 1.0, below)


def dare(
    members: np.ndarray,
    weights: np.ndarray,
    seed: np.ndarray,
    masks: np.ndarray,
    density: float,
    elect: bool,
) -> np.ndarray:
    kept = weights[:, None] * masks * (members - seed) / density
    if elect:
        sign = np.where(kept.sum(0) >= 0, 1.0, -1.0)
        kept = kept * (np.sign(kept) == sign)
    return seed + kept.sum(0)


def fisher(members: np.ndarray, weights: np.ndarray, information: np.ndarray) -> np.ndarray:
    factor = weights[:, None] * information
    return (factor * members).sum(0) / factor.sum(0)


def regmean(
    members: np.ndarray, weights: np.ndarray, grams: np.ndarray, alpha: float, ridge: float
) -> np.ndarray:
    """`members` are [k, d_in, d_out], `grams` [k, d_in, d_in]."""
    count = len(members)
    left, right = 0.0, 0.0
    for member, weight, gram in zip(members, weights, grams, strict=True):
        damped = alpha * gram + (1 - alpha) * np.diag(np.diag(gram))
        damped = damped + ridge * np.diag(gram).mean() * np.eye(len(gram))
        left = left + count * weight * damped
        right = right + count * weight * damped @ member
    return np.linalg.solve(left, right)
