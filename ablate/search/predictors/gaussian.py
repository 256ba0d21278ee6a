"""A Gaussian process: linear effects, pair interactions and any smooth rest, each column's own
relevance.

The covariance, its priors and the fit are `process.py`'s. Proportions may enter logarithmically
(the evidence decides), as losses do when the first percent of a partition helps most.
"""

from __future__ import annotations

import numpy as np

from ablate.search.predictors.predictor import Array
from ablate.search.predictors.process import LINEAR, QUADRATIC, SMOOTH, Process, fit_process

KNEES = (np.inf, 0.1, 0.01)


def gaussian(
    weights: Array, losses: Array, rng_seed: int, *, covariates: Array | None = None
) -> Process:
    """Return the process fitted to weights [n, k], losses [n] and covariates [n, c]; no chance in it.

    Raises ValueError as `Fit` says.
    """
    return fit_process(
        weights,
        losses,
        covariates=covariates,
        terms=(LINEAR, QUADRATIC, SMOOTH),
        knees=KNEES,
        relevances=True,
    )
