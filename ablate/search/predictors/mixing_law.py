"""The mixing law: loss = c + κ exp(Σ_j t_j r_j) of the proportions r.

Source: Ye et al., Data Mixing Laws, arXiv 2403.16952 (eq 6 for one domain); fitted as there in
log c and log κ on a Huber loss from many starts. Other here: damped Gauss-Newton steps (Marquardt
1963) of all starts at once in place of L-BFGS, which found the same values in 50 times the time; a
weak Gaussian prior on t, so that fewer rows than partitions have one answer; and a standard error
by the delta method.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ablate.search.predictors.predictor import (
    Array,
    centre_and_spread,
    checked_rows,
    joined_columns,
    one_thread,
)

STARTS = 12
STEPS = 200
LONGEST = 3.0  # of one step in any value: exponentials beyond it overshoot
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-9, 1e6
SETTLED = 1e-10  # relative gain below which a start has arrived
FOLDS_AT_ONCE = 32
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
    units = _units(raw, losses, partitions)
    rows, scaled = units.rows(raw), units.values(losses)
    with one_thread():
        values = _best_fits(rows[None], scaled[None], rng_seed)[0]
        noise, uncertainty = _errors(values, rows, scaled)
    return MixingLaw(
        shape=(partitions, raw.shape[1] - partitions),
        centre=units.centre,
        scale=units.scale,
        values=values,
        origin=units.origin,
        spread=units.spread,
        noise=noise,
        uncertainty=uncertainty,
    )


def left_out(
    weights: Array, losses: Array, rng_seed: int, *, covariates: Array | None = None
) -> Array:
    """Return each row's loss [n] by the law that is fitted to the other rows.

    The same as n calls of `mixing_law`, fitted together. Raises ValueError as `Fit` says.
    """
    raw, losses = checked_rows(weights, losses, covariates)
    partitions, count = np.asarray(weights).shape[1], len(raw)
    others = [np.arange(count) != place for place in range(count)]
    units = [_units(raw[kept], losses[kept], partitions) for kept in others]
    found = np.empty(count)
    for start in range(0, count, FOLDS_AT_ONCE):
        places = range(start, min(start + FOLDS_AT_ONCE, count))
        rows = np.stack([units[place].rows(raw[others[place]]) for place in places])
        scaled = np.stack([units[place].values(losses[others[place]]) for place in places])
        with one_thread():
            fits = _best_fits(rows, scaled, rng_seed)
        for place, values in zip(places, fits, strict=True):
            mean, _ = _law(values, units[place].rows(raw[place, None]))
            found[place] = units[place].origin + units[place].spread * mean[0]
    return found


@dataclass(frozen=True, kw_only=True)
class _Units:
    """What rows and losses are centred by and measured in."""

    centre: Array
    scale: Array
    origin: float
    spread: float

    def rows(self, raw: Array) -> Array:
        return np.asarray((raw - self.centre) / self.scale)

    def values(self, losses: Array) -> Array:
        return np.asarray((losses - self.origin) / self.spread)


def _units(raw: Array, losses: Array, partitions: int) -> _Units:
    scale = np.where(np.arange(raw.shape[1]) < partitions, 1.0, raw.std(axis=0))
    _, spread = centre_and_spread(losses)
    return _Units(
        centre=raw.mean(axis=0),
        scale=np.where(scale > 0, scale, 1.0),
        origin=float(losses.min()) - DEPTH * spread,
        spread=spread,
    )


def _parts(values: Array, rows: Array) -> tuple[Array, Array]:
    """Return floor [...] and excess [..., n] of values [..., p] at rows [..., n, d]."""
    inside = np.einsum("...d,...nd->...n", values[..., FIRST_EXPONENT:], rows)
    excess = np.exp(np.clip(values[..., STEEPNESS, None] + inside, -50.0, 50.0))
    return np.exp(values[..., FLOOR]), excess


def _slopes(floor: Array, excess: Array, rows: Array) -> Array:
    """Return the slopes [..., n, 2 + d] of the law by (log c, log κ, t)."""
    constant = np.broadcast_to(floor[..., None, None], (*excess.shape, 1))
    return np.concatenate([constant, excess[..., None], excess[..., None] * rows], axis=-1)


def _law(values: Array, rows: Array) -> tuple[Array, Array]:
    """Return the law's values [n] and their slopes [n, 2 + d]."""
    floor, excess = _parts(values, rows)
    return floor + excess, _slopes(floor, excess, rows)


def _best_fits(rows: Array, losses: Array, rng_seed: int) -> Array:
    """Return the values [f, p] with the smallest penalised Huber loss over all starts.

    For f sets of rows [f, n, d] and losses [f, n]; every set begins at the same draws.
    """
    rng = np.random.default_rng(rng_seed)
    levels = losses.mean(axis=1)
    starts = []
    for _ in range(STARTS):
        share = rng.uniform(0.05, 0.95)
        exponents = np.tile(rng.normal(0.0, 1.0, rows.shape[2]), (len(rows), 1))
        first = np.log(np.outer(levels, [share, 1.0 - share]))
        starts.append(np.concatenate([first, exponents], axis=1))
    values, heights = _descended(np.stack(starts, axis=1), rows, losses)
    return np.asarray(values[np.arange(len(rows)), heights.argmin(axis=1)])


def _descended(values: Array, rows: Array, losses: Array) -> tuple[Array, Array]:
    """Return values [f, b, p] at minima that b starts reach, and their heights [f, b].

    A step that would climb is not taken, and the next one is damped more.
    """
    prior = np.zeros(values.shape[2])
    prior[FIRST_EXPONENT:] = EXPONENT_SPREAD**-2
    diagonal = np.arange(values.shape[2])
    damping = np.full(values.shape[:2], FIRST_DAMPING)
    rows, losses = rows[:, None], losses[:, None]
    floor, excess = _parts(values, rows)
    height = _misfit(floor, excess, losses) + _penalty(values, prior)
    for _ in range(STEPS):
        residuals = _residuals(floor, excess, losses)
        size = np.sqrt(1.0 + residuals**2)
        slopes = _slopes(floor, excess, rows) / HUBER_DELTA
        gradient = np.einsum("fbn,fbnp->fbp", residuals / size, slopes) + prior * values
        # The pseudo-Huber form's majoriser: a parabola above it that touches it here.
        weighted = (slopes / size[..., None]).swapaxes(2, 3)
        curvature = weighted @ slopes
        curvature[..., diagonal, diagonal] += prior
        steepest = curvature[..., diagonal, diagonal]
        curvature[..., diagonal, diagonal] += damping[..., None] * (steepest + LEAST_DAMPING)
        step = -np.linalg.solve(curvature, gradient[..., None])[..., 0]
        tried = values + np.clip(step, -LONGEST, LONGEST)
        new_floor, new_excess = _parts(tried, rows)
        new = _misfit(new_floor, new_excess, losses) + _penalty(tried, prior)
        lower = new < height
        arrived = ~lower | (height - new <= SETTLED * (1.0 + new))
        values = np.where(lower[..., None], tried, values)
        floor = np.where(lower, new_floor, floor)
        excess = np.where(lower[..., None], new_excess, excess)
        height = np.where(lower, new, height)
        damping = np.where(lower, damping / 5, damping * 4).clip(LEAST_DAMPING, MOST_DAMPING)
        if (arrived & (damping > FIRST_DAMPING)).all():
            break
    return values, height


def _residuals(floor: Array, excess: Array, losses: Array) -> Array:
    return np.asarray((floor[..., None] + excess - losses) / HUBER_DELTA)


def _misfit(floor: Array, excess: Array, losses: Array) -> Array:
    """Return Σ huber / δ² [f, b]."""
    residuals = _residuals(floor, excess, losses)
    return np.asarray((np.sqrt(1.0 + residuals**2) - 1.0).sum(axis=-1))


def _penalty(values: Array, prior: Array) -> Array:
    """Return |t|² / (2 s²) [f, b]."""
    return np.asarray(0.5 * (prior * values**2).sum(axis=-1))


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
