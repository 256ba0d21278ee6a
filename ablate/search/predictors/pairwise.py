"""Linear and pairwise-interaction effects of the proportions, both with a ridge.

loss = c + Σ_j β_j w_j + Σ_i≤j β_ij w_i w_j has n(n+1)/2 + n + 1 coefficients, more than a search
has rows. As a Gaussian process with covariance a g + b g² the coefficients are integrated out, and
the two ridges (σ²/a and σ²/b) follow from the evidence (`process.py`).
"""

from __future__ import annotations

from ablate.search.predictors.predictor import Array
from ablate.search.predictors.process import LINEAR, QUADRATIC, Process, fit_process


def pairwise(
    weights: Array, losses: Array, rng_seed: int, *, covariates: Array | None = None
) -> Process:
    """Return the process fitted to weights [n, k], losses [n] and covariates [n, c]; no chance in it.

    Covariates take part in interactions too. Raises ValueError as `Fit` says.
    """
    return fit_process(weights, losses, covariates=covariates, terms=(LINEAR, QUADRATIC))
