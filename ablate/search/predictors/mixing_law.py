"""The mixing law: loss = c + κ exp(Σ_j t_j r_j) of the proportions r.

Source: Ye et al., Data Mixing Laws, arXiv 2403.16952 (eq 6 for one domain); fitted as there in
log c and log κ by L-BFGS on a Huber loss from many starts. Added here: a weak Gaussian prior on t,
so that fewer rows than partitions have one answer, and a standard error by the delta method.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from ablate.search.predictors.predictor import (
    Array,
    centre_and_spread,
    checked_rows,
    joined_columns,
    one_thread,
)

STARTS = 12
FINALISTS = 3
FIRST_STEPS, FINAL_STEPS = 40, 300
HUBER_DELTA = 0.1
"""Where the residual's weight turns from square to absolute, in standard deviations of losses."""
EXPONENT_SPREAD = 3.0
DEPTH = 10.0
"""How far below the best row c may lie, in standard deviations of losses."""
FLOOR, STEEPNESS, FIRST_EXPONENT = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class MixingLaw:
    """A fitted law: values = (log c, log κ, t_1 .. t_d) in units of `spread` above `origin`."""

    shape: tuple[int, int]
    centre: Array
    scale: Array
    values: Array
    origin: float
    spread: float
    noise: float
    uncertainty: Array

    def predict(self, weights: Array, covariates: Array | None = None) -> tuple[Array, Array]:
        """Return mean [m] and predictive standard deviation [m] of losses."""
        rows = (joined_columns(weights, covariates, self.shape) - self.centre) / self.scale
        with one_thread():
            mean, slopes = _law(self.values, rows)
            open_variance = np.einsum("mp,mp->m", slopes @ self.uncertainty, slopes)
        stderr = np.sqrt(np.maximum(open_variance, 0.0) + self.noise**2)
        return self.origin + self.spread * mean, self.spread * stderr


def mixing_law(
    weights: Array, losses: Array, rng_seed: int, *, covariates: Array | None = None
) -> MixingLaw:
    """Return the law fitted to weights [n, k], losses [n], covariates [n, c] from seeded starts.

    A covariate is one more term in the exponent. Raises ValueError as `Fit` says.
    """
    raw, losses = checked_rows(weights, losses, covariates)
    partitions = np.asarray(weights).shape[1]
    deviations = raw.std(axis=0)
    scale = np.where(np.arange(raw.shape[1]) < partitions, 1.0, deviations)
    scale = np.where(scale > 0, scale, 1.0)
    centre = raw.mean(axis=0)
    rows = (raw - centre) / scale
    _, spread = centre_and_spread(losses)
    origin = float(losses.min()) - DEPTH * spread
    with one_thread():
        values = _best_fit(rows, (losses - origin) / spread, rng_seed)
        noise, uncertainty = _errors(values, rows, (losses - origin) / spread)
    return MixingLaw(
        shape=(partitions, raw.shape[1] - partitions),
        centre=centre,
        scale=scale,
        values=values,
        origin=origin,
        spread=spread,
        noise=noise,
        uncertainty=uncertainty,
    )


def _law(values: Array, rows: Array) -> tuple[Array, Array]:
    """Return the law's values [n] and their slopes [n, 2 + d] by (log c, log κ, t)."""
    floor = np.exp(values[FLOOR])
    excess = np.exp(np.clip(values[STEEPNESS] + rows @ values[FIRST_EXPONENT:], -50.0, 50.0))
    slopes = np.column_stack([np.full(len(rows), floor), excess, excess[:, None] * rows])
    return floor + excess, slopes


def _best_fit(rows: Array, losses: Array, rng_seed: int) -> Array:
    """Return the values with the smallest penalised Huber loss over all starts."""
    rng = np.random.default_rng(rng_seed)
    level = float(losses.mean())
    starts = []
    for _ in range(STARTS):
        share = rng.uniform(0.05, 0.95)
        exponents = rng.normal(0.0, 1.0, rows.shape[1])
        starts.append(np.append(np.log([share * level, (1.0 - share) * level]), exponents))
    ranked = sorted((_descended(start, rows, losses, FIRST_STEPS) for start in starts), key=_height)
    finals = [_descended(values, rows, losses, FINAL_STEPS) for _, values in ranked[:FINALISTS]]
    return min(finals, key=_height)[1]


def _descended(start: Array, rows: Array, losses: Array, steps: int) -> tuple[float, Array]:
    found = minimize(
        _penalised,
        start,
        args=(rows, losses),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": steps},
    )
    return float(found.fun), found.x


def _height(fit: tuple[float, Array]) -> float:
    return fit[0]


def _penalised(values: Array, rows: Array, losses: Array) -> tuple[float, Array]:
    """Return Σ huber(residual) / δ² + |t|² / (2 s²) and its gradient."""
    predicted, slopes = _law(values, rows)
    residuals = (predicted - losses) / HUBER_DELTA
    size = np.sqrt(1.0 + residuals**2)
    exponents = values[FIRST_EXPONENT:] / EXPONENT_SPREAD
    gradient = (residuals / size / HUBER_DELTA) @ slopes
    gradient[FIRST_EXPONENT:] += exponents / EXPONENT_SPREAD
    # The pseudo-Huber form: its second derivative is continuous, which L-BFGS relies on.
    return float((size - 1.0).sum() + 0.5 * exponents @ exponents), gradient


def _errors(values: Array, rows: Array, losses: Array) -> tuple[float, Array]:
    """Return the residuals' standard deviation and the values' covariance [2 + d, 2 + d].

    Both allow for the number of values that the rows truly determine (the trace of the hat matrix).
    """
    predicted, slopes = _law(values, rows)
    precision = slopes.T @ slopes
    squares = float(((predicted - losses) ** 2).sum())
    noise = max(np.sqrt(squares / len(losses)), 1e-6)
    for _ in range(5):
        prior = np.full(len(values), (noise / EXPONENT_SPREAD) ** 2)
        prior[:FIRST_EXPONENT] = (noise / DEPTH) ** 2
        inverse = np.linalg.inv(precision + np.diag(prior))
        used = float(np.trace(inverse @ precision))
        noise = max(float(np.sqrt(squares / max(len(losses) - used, 0.5))), 1e-6)
    return noise, noise**2 * inverse
