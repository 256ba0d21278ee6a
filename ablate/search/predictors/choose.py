"""Choose the predictor that foretells scored mixtures best from the others' scores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from ablate.search.predictors.gaussian import gaussian
from ablate.search.predictors.linear import linear
from ablate.search.predictors.mixing_law import mixing_law
from ablate.search.predictors.pairwise import pairwise
from ablate.search.predictors.predictor import Array, Fit, Predictor, checked_rows
from ablate.search.predictors.process import Process
from ablate.search.predictors.trees import trees

PREDICTORS: dict[str, Fit] = {
    "linear": linear,
    "pairwise": pairwise,
    "gaussian": gaussian,
    "trees": trees,
    "mixing-law": mixing_law,
}

AUTOMATIC = ("linear", "pairwise", "gaussian")
"""What `choose` compares unless told otherwise: those that a search can refit after every trial."""

TOLERATED = 1.0
"""Standard errors behind the smallest error within which the simpler predictor is chosen."""

FOLDS = 5
WITHIN = 1.645
"""Standard errors that hold nine in ten of honest normal errors."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """How well one predictor foretold left-out rows.

    `error` is the root mean square error (unit of the losses), `rank` the Spearman correlation,
    `coverage` the share of losses within 1.645 stderr of the prediction (0.9 when honest), `behind`
    how much larger its squared errors are than the best candidate's, in standard errors of that
    paired difference, `how` the way rows were left out. All are nan with one row.
    """

    name: str
    error: float
    rank: float
    coverage: float
    behind: float
    how: str
    chosen: bool = False


def choose(
    weights: Array,
    losses: Array,
    rng_seed: int,
    *,
    names: Iterable[str] | None = None,
    covariates: Array | None = None,
) -> tuple[str, Predictor, list[Candidate]]:
    """Return the chosen name, its predictor fitted to all rows, and every candidate's figures.

    The first named wins whose squared left-out errors are at most one standard error behind the
    smallest (the rule of Breiman et al., CART, 1984): name the simplest first. Errors are
    closed-form leave-one-out for Gaussian processes, and from seeded folds otherwise. `names`
    defaults to `AUTOMATIC`. Raises KeyError for an unknown name and ValueError as `Fit` says.
    """
    checked_rows(weights, losses, covariates)
    rows = _Rows(np.asarray(weights, float), np.asarray(losses, float), covariates)
    tried = [_tried(name, rows, rng_seed) for name in names or AUTOMATIC]
    behind = _behind(np.stack([one.misses for one in tried]))
    best = int(np.argmax(behind <= TOLERATED)) if len(rows.losses) > 1 else 0
    table = [
        _candidate(one, rows.losses, float(behind[number]), number == best)
        for number, one in enumerate(tried)
    ]
    return tried[best].name, tried[best].predictor, table


@dataclass(frozen=True)
class _Rows:
    weights: Array
    losses: Array
    covariates: Array | None

    def fitted(self, name: str, rng_seed: int, kept: Array) -> Predictor:
        """Return the named predictor fitted to the rows [n] that are kept (booleans)."""
        extra = None if self.covariates is None else self.covariates[kept]
        return PREDICTORS[name](self.weights[kept], self.losses[kept], rng_seed, covariates=extra)

    def predicted(self, predictor: Predictor, asked: Array) -> tuple[Array, Array]:
        """Return mean and stderr of the rows that are asked for (booleans [n])."""
        extra = None if self.covariates is None else self.covariates[asked]
        return predictor.predict(self.weights[asked], extra)


@dataclass(frozen=True)
class _Tried:
    name: str
    predictor: Predictor
    misses: Array
    stderr: Array
    how: str


def _tried(name: str, rows: _Rows, rng_seed: int) -> _Tried:
    predictor = rows.fitted(name, rng_seed, np.ones(len(rows.losses), dtype=bool))
    if len(rows.losses) == 1:
        nothing = np.full(1, np.nan)
        return _Tried(name, predictor, nothing, nothing, "one row: nothing to compare")
    if isinstance(predictor, Process):
        (mean, stderr), how = predictor.left_out(), "leave-one-out, closed form"
    else:
        (mean, stderr), how = _folded(name, rows, rng_seed), f"{FOLDS} folds"
    return _Tried(name, predictor, mean - rows.losses, stderr, how)


def _behind(misses: Array) -> Array:
    """Return by candidate [p] how far its squared misses [p, n] lie behind the best's."""
    squares = misses**2
    best = int(np.argmin(squares.mean(axis=1)))
    apart = squares - squares[best]
    count = apart.shape[1]
    error = apart.std(axis=1, ddof=min(1, count - 1)) / np.sqrt(count)
    total: Array = apart.mean(axis=1) / np.where(error > 0, error, 1.0)
    return total


def _candidate(one: _Tried, losses: Array, behind: float, chosen: bool) -> Candidate:
    nothing = bool(np.isnan(one.misses).any())
    inside = float(np.mean(np.abs(one.misses) <= WITHIN * one.stderr))
    return Candidate(
        name=one.name,
        error=float(np.sqrt(np.mean(one.misses**2))),
        rank=float("nan") if nothing else _spearman(one.misses + losses, losses),
        coverage=float("nan") if nothing else inside,
        behind=behind,
        how=one.how,
        chosen=chosen,
    )


def _folded(name: str, rows: _Rows, rng_seed: int) -> tuple[Array, Array]:
    """Return every row's prediction and stderr from the folds that it is not in."""
    count = len(rows.losses)
    fold = np.random.default_rng(rng_seed).permutation(np.arange(count) % min(FOLDS, count))
    mean, stderr = np.empty(count), np.empty(count)
    for number in range(min(FOLDS, count)):
        asked = fold == number
        predictor = rows.fitted(name, rng_seed, ~asked)
        mean[asked], stderr[asked] = rows.predicted(predictor, asked)
    return mean, stderr


def _spearman(left: Array, right: Array) -> float:
    """Return the rank correlation, nan when either side is constant."""
    ranks = rankdata(left), rankdata(right)
    if np.ptp(ranks[0]) == 0 or np.ptp(ranks[1]) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])
