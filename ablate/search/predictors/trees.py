"""Gradient-boosted regression trees, bagged.

Source: RegMix (Liu et al., arXiv 2407.01492) fits boosted trees to trained mixtures. Each bag draws
rows with replacement (Breiman, Bagging Predictors, 1996); the rows a bag left out measure its
error without a second fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ablate.search.predictors.predictor import (
    Array,
    centre_and_spread,
    checked_rows,
    joined_columns,
)

if TYPE_CHECKING:  # half a second of imports, for who asks for trees
    from sklearn.ensemble import GradientBoostingRegressor

BAGS = 8
TREES = 100
LEARNING_RATE = 0.1
DEPTH = 4
LEAF_ROWS = 3
COLUMN_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Trees:
    """Fitted bags; `noise` is the left-out rows' error beyond the bags' own spread."""

    shape: tuple[int, int]
    bags: tuple[GradientBoostingRegressor, ...]
    noise: float

    def predict(self, weights: Array, covariates: Array | None = None) -> tuple[Array, Array]:
        """Return the bags' mean [m] and predictive standard deviation [m] of losses."""
        columns = joined_columns(weights, covariates, self.shape)
        votes = np.stack([bag.predict(columns) for bag in self.bags])
        return votes.mean(axis=0), np.sqrt(votes.var(axis=0) + self.noise**2)


def trees(
    weights: Array, losses: Array, rng_seed: int, *, covariates: Array | None = None
) -> Trees:
    """Return boosted trees fitted to weights [n, k], losses [n] and covariates [n, c].

    Tens of rows a partition are needed before this beats the other predictors. Raises ValueError
    as `Fit` says.
    """
    from sklearn.ensemble import GradientBoostingRegressor

    columns, losses = checked_rows(weights, losses, covariates)
    rng = np.random.default_rng(rng_seed)
    drawn = [rng.integers(len(losses), size=len(losses)) for _ in range(BAGS)]
    bags = tuple(
        GradientBoostingRegressor(
            n_estimators=TREES,
            learning_rate=LEARNING_RATE,
            max_depth=DEPTH,
            min_samples_leaf=LEAF_ROWS,
            max_features=COLUMN_SHARE,
            random_state=int(rng.integers(1 << 31)),
        ).fit(columns[rows], losses[rows])
        for rows in drawn
    )
    partitions = np.asarray(weights).shape[1]
    shape = (partitions, columns.shape[1] - partitions)
    return Trees(shape=shape, bags=bags, noise=_noise(bags, drawn, columns, losses))


def _noise(
    bags: tuple[GradientBoostingRegressor, ...],
    drawn: list[npt.NDArray[np.int64]],
    columns: Array,
    losses: Array,
) -> float:
    """Return the standard deviation of left-out errors that the bags' spread does not explain."""
    votes = np.stack([bag.predict(columns) for bag in bags])
    outside = np.stack([~np.isin(np.arange(len(losses)), rows) for rows in drawn])
    counts = outside.sum(axis=0)
    seen = counts > 0
    if not seen.any():
        return centre_and_spread(losses)[1]
    means = np.where(outside, votes, 0.0).sum(axis=0)[seen] / counts[seen]
    errors = float(((means - losses[seen]) ** 2).mean())
    return float(np.sqrt(max(errors - votes.var(axis=0).mean(), 0.25 * errors)))
