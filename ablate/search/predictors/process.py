"""Gaussian-process regression: one covariance, its evidence with gradient, its posterior.

Notation
    z [n, d]     columns: warped proportions and covariates, centred and scaled over the fitted rows
    ρ_j          relevance of column j;  g = Σ_j ρ_j z_j z'_j / d;  r² = Σ_j ρ_j (z_j − z'_j)² / (d ℓ²)
    k(z, z')     1 + a g + b g² + m exp(−r² / 2)  (+ σ² for the same score)
    y [n]        losses, centred and scaled

a is the variance of linear effects, b that of squares and pair interactions, m that of any other
smooth shape of range ℓ, σ² that of a score's noise. All are fitted by the evidence p(y | z) times
weak log-normal priors, so five rows are as well defined as five hundred (Rasmussen and Williams,
Gaussian Processes for Machine Learning, 2006: eq 2.30 evidence, eq 5.9 gradient, eqs 2.25-2.26
posterior, eqs 5.10-5.12 left-out predictions).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

from ablate.search.predictors.predictor import (
    Array,
    centre_and_spread,
    checked_rows,
    joined_columns,
    one_thread,
)

# Positions of the logarithms in the hyperparameter vector; relevances log ρ_j follow them.
LINEAR, QUADRATIC, SMOOTH, RANGE, NOISE = range(5)
FIRST_RELEVANCE = 5
PRIOR_MEAN = np.array([0.0, -2.0, -1.0, 0.7, -7.0])
PRIOR_SPREAD = np.array([2.0, 2.0, 2.0, 1.0, 3.0])
RELEVANCE_SPREAD = 1.0
LOWER = np.array([-12.0, -14.0, -14.0, -1.5, -16.0])
UPPER = np.array([8.0, 8.0, 8.0, 4.0, 1.0])
RELEVANCE_BOUND = 6.0
JITTER = 1e-8
EVIDENCE_ROWS = 200
"""Rows that decide the hyperparameters; all rows decide the prediction. The evidence costs n³."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """How weights and covariates become centred, scaled columns.

    A proportion w enters as log(1 + w / knee): linear far below the knee, logarithmic above it, so
    the first percent of a partition may matter more than the last. `knee` = inf keeps it linear.
    """

    shape: tuple[int, int]
    knee: float
    centre: Array
    scale: Array

    def of(self, weights: Array, covariates: Array | None) -> Array:
        """Return z [n, d]; raises ValueError for other numbers of columns than the fit's."""
        raw = joined_columns(weights, covariates, self.shape)
        return (_warped(raw, self.shape[0], self.knee) - self.centre) / self.scale


@dataclass(frozen=True, kw_only=True)
class Process:
    """A fitted process. `objective` is −log evidence − log prior (nats): smaller explains better.

    `widening` multiplies standard errors for what fitting the relevances hides.
    """

    columns: Columns
    hyper: Array
    rows: Array
    factor: Array
    dual: Array
    centre: float
    spread: float
    objective: float
    widening: float = 1.0

    def predict(self, weights: Array, covariates: Array | None = None) -> tuple[Array, Array]:
        """Return posterior mean [m] and predictive standard deviation [m] of losses."""
        with one_thread():
            z = self.columns.of(weights, covariates)
            cross = covariance(z, self.rows, self.hyper)
            mean = cross @ self.dual
            reduced = solve_triangular(
                self.factor, cross.T, lower=True, overwrite_b=True, check_finite=False
            )
            known = np.einsum("nm,nm->m", reduced, reduced)
        noise = np.exp(self.hyper[NOISE])
        variance = np.maximum(variances(z, self.hyper) - known, 0.0) + noise
        return self.centre + self.spread * mean, self.widening * self.spread * np.sqrt(variance)

    def believing(self, weights: Array, covariates: Array | None = None) -> Process:
        """Return the process after more scores [m] that are what it predicts of them.

        Its predictions stay; their standard errors shrink around the new rows. So a batch is chosen
        one by one before any of its scores is known (kriging believer: Ginsbourger, Le Riche and
        Carraro, 2010).
        """
        with one_thread():
            z = self.columns.of(weights, covariates)
            scaled = self.factor @ (self.factor.T @ self.dual)
            believed = covariance(z, self.rows, self.hyper) @ self.dual
            return _conditioned(self, np.vstack([self.rows, z]), np.append(scaled, believed))

    def refitted(self, weights: Array, losses: Array, covariates: Array | None = None) -> Process:
        """Return the process of other rows, with the hyperparameters and scales of this one."""
        raw, losses = checked_rows(weights, losses, covariates)
        with one_thread():
            rows = self.columns.of(raw[:, : self.columns.shape[0]], raw[:, self.columns.shape[0] :])
            return _conditioned(self, rows, (losses - self.centre) / self.spread)

    def left_out(self) -> tuple[Array, Array]:
        """Return each row's loss [n] predicted from the other rows, and its stderr [n].

        The hyperparameters stay those of all rows, which flatters slightly.
        """
        variance = 1.0 / np.diag(_inverse(self.factor))
        mean = self.factor @ (self.factor.T @ self.dual) - self.dual * variance
        return self.centre + self.spread * mean, self.widening * self.spread * np.sqrt(variance)


def fit_process(
    weights: Array,
    losses: Array,
    *,
    covariates: Array | None,
    terms: tuple[int, ...],
    knees: tuple[float, ...] = (np.inf,),
    relevances: bool = False,
) -> Process:
    """Return the process with the given terms (positions of a, b, m) and the best of the knees.

    With `relevances` the columns' own ρ_j are fitted as well, starting from the best without.
    Raises ValueError as `Fit` says.
    """
    raw, losses = checked_rows(weights, losses, covariates)
    partitions = np.asarray(weights).shape[1]
    free = np.zeros(FIRST_RELEVANCE + raw.shape[1], dtype=bool)
    free[[*terms, NOISE]] = True
    free[RANGE] = SMOOTH in terms
    with one_thread():
        columns = [_columns(raw, partitions, knee) for knee in knees]
        start, fits = _start(terms, raw.shape[1]), []
        for each in columns:
            fits.append(_fitted(each, raw, losses, start, free))
            start = fits[-1].hyper
        best = min(fits, key=lambda fit: fit.objective)
        if relevances:
            free[FIRST_RELEVANCE:] = True
            best = _fitted(best.columns, raw, losses, best.hyper, free)
            # As in a regression's n − d: one parameter a column is fitted to the same rows.
            count = len(losses)
            left = max(count - raw.shape[1], count / 4)
            best = replace(best, widening=float(np.sqrt(count / left)))
    return best


def covariance(left: Array, right: Array, hyper: Array) -> Array:
    """Return k(left, right) [n, m] without noise."""
    inner, squares = _products(left, right, hyper)
    a, b, m = np.exp(hyper[:RANGE])
    total: Array = 1.0 + inner * (a + b * inner)
    if m > 0:
        total += m * np.exp(-0.5 * squares)
    return total


def variances(rows: Array, hyper: Array) -> Array:
    """Return k(z, z) [n] of each row, without noise."""
    a, b, m = np.exp(hyper[:RANGE])
    inner = (rows * rows) @ np.exp(hyper[FIRST_RELEVANCE:]) / rows.shape[1]
    total: Array = 1.0 + inner * (a + b * inner) + m
    return total


def evidence(hyper: Array, rows: Array, losses: Array) -> tuple[float, Array]:
    """Return −log p(losses | rows) − log prior (nats, up to a constant) and its gradient."""
    inner, squares = _products(rows, rows, hyper)
    a, b, m = np.exp(hyper[:RANGE])
    noise = np.exp(hyper[NOISE])
    smooth = m * np.exp(-0.5 * squares)
    total = 1.0 + inner * (a + b * inner) + smooth
    total[np.diag_indices_from(total)] += noise + JITTER
    factor = cholesky(total, lower=True, overwrite_a=True, check_finite=False)
    inverse = _inverse(factor)
    dual = inverse @ losses
    pull = 0.5 * (inverse - np.outer(dual, dual))
    on_inner = pull * (a + 2.0 * b * inner)
    on_smooth = pull * smooth
    gradient = np.empty_like(hyper)
    gradient[LINEAR] = a * np.vdot(pull, inner)
    gradient[QUADRATIC] = b * np.vdot(pull, inner * inner)
    gradient[SMOOTH] = on_smooth.sum()
    gradient[RANGE] = np.vdot(on_smooth, squares)
    gradient[NOISE] = noise * np.trace(pull)
    gradient[FIRST_RELEVANCE:] = _relevance_gradient(rows, on_inner, on_smooth, hyper)
    away, prior = _prior(hyper)
    value = 0.5 * losses @ dual + np.log(np.diag(factor)).sum() + away
    return float(value), gradient + prior


def _relevance_gradient(rows: Array, on_inner: Array, on_smooth: Array, hyper: Array) -> Array:
    """Return the gradient by log ρ; Σ_ab W_ab (z_a − z_b)² needs no n x n x d array."""
    relevance = np.exp(hyper[FIRST_RELEVANCE:]) / rows.shape[1]
    through_inner = np.einsum("nd,nd->d", rows, on_inner @ rows)
    apart = on_smooth.sum(axis=1) @ (rows * rows) - np.einsum("nd,nd->d", rows, on_smooth @ rows)
    total: Array = relevance * (through_inner - apart * np.exp(-2.0 * hyper[RANGE]))
    return total


def _products(left: Array, right: Array, hyper: Array) -> tuple[Array, Array]:
    """Return g [n, m] and r² [n, m]."""
    relevance = np.exp(hyper[FIRST_RELEVANCE:]) / left.shape[1]
    scaled = left * relevance
    inner = scaled @ right.T
    if np.isneginf(hyper[SMOOTH]):
        return inner, np.zeros_like(inner)
    norms = np.einsum("nd,nd->n", scaled, left)[:, None] + (right * right) @ relevance
    squares = np.maximum(norms - 2.0 * inner, 0.0) * np.exp(-2.0 * hyper[RANGE])
    return inner, squares


def _prior(hyper: Array) -> tuple[float, Array]:
    mean = np.concatenate([PRIOR_MEAN, np.zeros(len(hyper) - FIRST_RELEVANCE)])
    spread = np.full(len(hyper), RELEVANCE_SPREAD)
    spread[:FIRST_RELEVANCE] = PRIOR_SPREAD
    away = np.where(np.isneginf(hyper), 0.0, (hyper - mean) / spread)
    return float(0.5 * away @ away), away / spread


def _fitted(columns: Columns, raw: Array, losses: Array, start: Array, free: Array) -> Process:
    rows = (_warped(raw, columns.shape[0], columns.knee) - columns.centre) / columns.scale
    centre, spread = centre_and_spread(losses)
    scaled = (losses - centre) / spread
    kept = _spread_over_losses(losses)
    hyper, objective = _most_probable(rows[kept], scaled[kept], start, free)
    bare = Process(
        columns=columns,
        hyper=hyper,
        rows=rows[:0],
        factor=np.empty((0, 0)),
        dual=scaled[:0],
        centre=centre,
        spread=spread,
        objective=objective,
    )
    return _conditioned(bare, rows, scaled)


def _conditioned(process: Process, rows: Array, scaled: Array) -> Process:
    """Return a process given rows [n, d] and scaled losses [n] in place of its own."""
    total = covariance(rows, rows, process.hyper)
    total[np.diag_indices_from(total)] += np.exp(process.hyper[NOISE]) + JITTER
    factor = cholesky(total, lower=True)
    return replace(process, rows=rows, factor=factor, dual=cho_solve((factor, True), scaled))


def _most_probable(rows: Array, losses: Array, start: Array, free: Array) -> tuple[Array, float]:
    """Return the hyperparameters of the best evidence x prior, `free` ones moved, and its value."""
    width = rows.shape[1]
    lower = np.concatenate([LOWER, np.full(width, -RELEVANCE_BOUND)])[free]
    upper = np.concatenate([UPPER, np.full(width, RELEVANCE_BOUND)])[free]

    def objective(values: Array) -> tuple[float, Array]:
        hyper = start.copy()
        hyper[free] = values
        value, gradient = evidence(hyper, rows, losses)
        return value, gradient[free]

    found = minimize(
        objective,
        start[free],
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(lower, upper, strict=True)),
        options={"maxiter": 50, "ftol": 1e-5},
    )
    hyper = start.copy()
    hyper[free] = found.x
    return hyper, float(found.fun)


def _spread_over_losses(losses: Array) -> npt.NDArray[np.int64]:
    """Return at most `EVIDENCE_ROWS` row numbers, evenly over the ranks of the losses."""
    count = min(len(losses), EVIDENCE_ROWS)
    ranks = np.linspace(0, len(losses) - 1, count).round().astype(np.int64)
    order: npt.NDArray[np.int64] = np.sort(np.argsort(losses, kind="stable")[ranks])
    return order


def _start(terms: tuple[int, ...], width: int) -> Array:
    start = np.concatenate([PRIOR_MEAN, np.zeros(width)])
    start[[term for term in (LINEAR, QUADRATIC, SMOOTH) if term not in terms]] = -np.inf
    return start


def _columns(raw: Array, partitions: int, knee: float) -> Columns:
    """Return the columns' centre and scale: one scale for all proportions, each covariate its own.

    A partition that varies little is believed to matter little; a covariate has no common unit.
    """
    warped = _warped(raw, partitions, knee)
    deviations = warped.std(axis=0)
    shared = np.sqrt(np.mean(deviations[:partitions] ** 2)) if partitions else 0.0
    scale = np.concatenate([np.full(partitions, shared), deviations[partitions:]])
    return Columns(
        shape=(partitions, raw.shape[1] - partitions),
        knee=knee,
        centre=warped.mean(axis=0),
        scale=np.where(scale > 0, scale, 1.0),
    )


def _warped(raw: Array, partitions: int, knee: float) -> Array:
    if np.isinf(knee):
        return raw
    return np.hstack([np.log1p(raw[:, :partitions] / knee), raw[:, partitions:]])


def _inverse(factor: Array) -> Array:
    """Return (L Lᵀ)⁻¹ [n, n] of a lower factor whose upper half is zero."""
    lower, _ = dpotri(factor, lower=1)
    inverse: Array = lower + lower.T
    inverse[np.diag_indices_from(inverse)] *= 0.5
    return inverse


__all__ = ["LINEAR", "QUADRATIC", "SMOOTH", "Columns", "Process", "evidence", "fit_process"]
