"""Ridge regression on the proportions, the ridge chosen by the evidence.

Loss = c + Σ_j β_j w_j, β ~ N(0, a) and noise σ²; the ridge is σ²/a (MacKay, Bayesian
Interpolation, 1992, as a Gaussian process with a linear covariance).
"""

from __future__ import annotations

from ablate.search.predictors.predictor import Array
from ablate.search.predictors.process import LINEAR, Process, fit_process


def linear(
    weights: Array, losses: Array, rng_seed: int, *, covariates: Array | None = None
) -> Process:
    """Return the regression fitted to weights [n, k], losses [n], covariates [n, c]; no chance in it.

    Raises ValueError as `Fit` says.
    """
    return fit_process(weights, losses, covariates=covariates, terms=(LINEAR,))
