"""What a predictor is, and the rows that it is fitted to."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

Array = npt.NDArray[np.float64]

UNKNOWN_SPREAD = 0.1
"""The spread of losses assumed when one row shows none, as a share of its loss."""


class Predictor(Protocol):
    """A fitted predictor: what a loss will be, and how far off that may be."""

    def predict(self, weights: Array, covariates: Array | None = None) -> tuple[Array, Array]:
        """Return mean [m] and stderr [m] in the unit of the losses, for weights [m, k].

        `stderr` is the predictive standard deviation of a newly scored mixture: what the rows leave
        open about the function, and the noise of one score. `covariates` [m, c] must be given
        exactly when the fit had them. Raises ValueError for other shapes.
        """
        ...


class Fit(Protocol):
    """What fits a predictor to scored mixtures."""

    def __call__(
        self, weights: Array, losses: Array, rng_seed: int, *, covariates: Array | None = None
    ) -> Predictor:
        """Return the predictor fitted to weights [n, k], losses [n] and covariates [n, c].

        The same rows and seed give the same predictor. Raises ValueError for rows that are not
        finite, do not fit together, or are none.
        """
        ...


def checked_rows(weights: Array, losses: Array, covariates: Array | None) -> tuple[Array, Array]:
    """Return columns [n, k + c] and losses [n] as float64; raises ValueError as `Fit` says."""
    columns = joined_columns(weights, covariates)
    losses = np.asarray(losses, dtype=np.float64)
    if losses.shape != (len(columns),) or not len(losses):
        raise ValueError(
            f"losses must be one number a row of weights, at least one, got {losses.shape} for "
            f"{len(columns)} rows"
        )
    if not np.isfinite(losses).all():
        raise ValueError(f"losses must be finite, got {losses[~np.isfinite(losses)][0]}")
    return columns, losses


def joined_columns(
    weights: Array, covariates: Array | None, expected: tuple[int, int] | None = None
) -> Array:
    """Return the weights [n, k] and covariates [n, c] side by side, [n, k + c].

    Raises ValueError when they are not finite, not of equal length, or not `expected` = (k, c).
    """
    weights = np.asarray(weights, dtype=np.float64)
    extra = np.empty((len(weights), 0)) if covariates is None else np.asarray(covariates, float)
    if weights.ndim != 2 or extra.ndim != 2 or len(extra) != len(weights):
        raise ValueError(
            f"weights [n, k] and covariates [n, c] must have as many rows, got {weights.shape} and "
            f"{extra.shape}"
        )
    if expected is not None and (weights.shape[1], extra.shape[1]) != expected:
        raise ValueError(
            f"weights and covariates must have the fitted numbers of columns {expected}, got "
            f"{(weights.shape[1], extra.shape[1])}"
        )
    columns = np.hstack([weights, extra])
    if not np.isfinite(columns).all():
        raise ValueError("weights and covariates must be finite")
    return columns


def centre_and_spread(losses: Array) -> tuple[float, float]:
    """Return the mean of losses [n] and a positive scale for their deviations from it."""
    centre = float(losses.mean())
    if len(losses) == 1:
        return centre, UNKNOWN_SPREAD * max(abs(centre), UNKNOWN_SPREAD)
    # Rounding alone spreads equal losses by a few units in the last place.
    return centre, max(float(losses.std()), 1e-9 * max(abs(centre), 1.0))


def one_thread() -> AbstractContextManager[object]:
    """Return a context in which linear algebra runs on one thread: sums in one order, one result."""
    limited: AbstractContextManager[object] = _threads().limit(limits=1)
    return limited


@cache
def _threads() -> ThreadpoolController:
    # Looking for the thread pools of all loaded libraries takes milliseconds; NumPy's and SciPy's
    # are loaded with this folder.
    return ThreadpoolController()
