"""The mixing law's fit: as low as an independent optimiser's, and many fits at once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from ablate.search.predictors.mixing_law import (
    EXPONENT_SPREAD,
    HUBER_DELTA,
    left_out,
    mixing_law,
)
from ablate.search.predictors.predictor import Array


def world(count: int, partitions: int, seed: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    members = rng.random((count, partitions)) < 0.4
    members[np.arange(count), rng.integers(0, partitions, count)] = True
    weights = members / members.sum(axis=1, keepdims=True)
    size = np.log(members.sum(axis=1))[:, None]
    slopes = rng.normal(0, 1.5, partitions)
    losses = 2 + np.exp(0.3 + weights @ slopes - 0.2 * size[:, 0])
    return weights, losses + 0.02 * rng.standard_normal(count), size


def height(values: Array, rows: Array, losses: Array) -> float:
    """The penalised pseudo-Huber loss, written out."""
    mean = np.exp(values[0]) + np.exp(np.clip(values[1] + rows @ values[2:], -50, 50))
    residuals = (mean - losses) / HUBER_DELTA
    penalty = np.sum((values[2:] / EXPONENT_SPREAD) ** 2) / 2
    return float(np.sum(np.sqrt(1 + residuals**2) - 1) + penalty)


@pytest.mark.parametrize(("count", "partitions"), [(10, 6), (26, 8), (60, 12)])
def test_no_other_optimiser_finds_a_lower_minimum(count: int, partitions: int) -> None:
    weights, losses, size = world(count, partitions, seed=count)
    fit = mixing_law(weights, losses, 0, covariates=size)
    raw = np.hstack([weights, size])
    rows = (raw - fit.centre) / fit.scale
    scaled = (losses - fit.origin) / fit.spread
    rng = np.random.default_rng(1)
    others = [
        minimize(height, rng.normal(0, 1, len(fit.values)), args=(rows, scaled), method="BFGS").fun
        for _ in range(4)
    ]
    assert height(fit.values, rows, scaled) <= min(others) * (1 + 1e-6)


def test_left_out_losses_are_those_of_fits_without_the_row() -> None:
    weights, losses, size = world(36, 5, seed=2)
    found = left_out(weights, losses, 3, covariates=size)
    for place in (0, 17, 33, 35):
        kept = np.arange(36) != place
        one = mixing_law(weights[kept], losses[kept], 3, covariates=size[kept])
        mean, _ = one.predict(weights[place, None], size[place, None])
        assert found[place] == pytest.approx(mean[0], rel=1e-6)
    changed = losses.copy()
    changed[4] += 10
    again = left_out(weights, changed, 3, covariates=size)
    assert again[4] == pytest.approx(found[4], rel=1e-9)
    assert not np.allclose(again[5], found[5])
