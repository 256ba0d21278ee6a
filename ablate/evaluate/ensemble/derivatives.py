"""Closed-form derivatives of an objective with respect to the mixture's weights.

f(lambda) = sum_d c_d loss_d(lambda);  df/dlambda_u = -sum_d c_d mean_t r_u(t) / s(t) with
s(t) = sum_u lambda_u r_u(t);  d2f = sum_d c_d mean_t (r_u / s)(r_v / s), positive semidefinite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ablate.evaluate.ensemble.scoring import (
    FLOOR,
    blank_padding,
    checked_weights,
    exact_logs,
    one_thread,
)
from ablate.evaluate.ensemble.values import ROWS, Ensemble

COLUMNS = 128  # columns at once: their float64 ratios stay in the cache
RUN = 8  # mixture ratios above FLOOR multiplied before a logarithm; FLOOR ** 8 is a float64


@dataclass(frozen=True, kw_only=True, eq=False)
class Local:
    """An objective at one mixture: `value` in nats, `gradient` [units], `hessian` [units, units].

    All float64; one pass over the ratios.
    """

    value: float
    gradient: np.ndarray
    hessian: np.ndarray


def gradient(ensemble: Ensemble, weights: np.ndarray, objective: np.ndarray) -> np.ndarray:
    """Return d objective / d lambda, nats per unit of weight, float64 [units].

    `weights` [units] is one mixture, `objective` [domains] weights domains. At a mixture on the
    simplex <gradient, weights> = -sum(objective). An entry is -inf where adding the unit gains
    more than float64 holds. Raises ValueError for weights or an objective that are none.
    """
    return local(ensemble, weights, objective, hessian=False).gradient


def local(
    ensemble: Ensemble, weights: np.ndarray, objective: np.ndarray, *, hessian: bool = True
) -> Local:
    """Return value, gradient and Hessian (zeros when not asked for) of an objective at `weights`.

    Raises ValueError for weights or an objective that are none.
    """
    weights = checked_weights(ensemble, np.asarray(weights)[None])[0]
    with one_thread(), np.errstate(over="ignore", invalid="ignore"):  # slopes may be infinite
        return _local(ensemble, weights, checked_objective(ensemble, objective), hessian)


def _local(ensemble: Ensemble, weights: np.ndarray, objective: np.ndarray, hessian: bool) -> Local:
    units = len(weights)
    value, slope, curve = 0.0, np.zeros(units), np.zeros((units, units))
    for domain in np.flatnonzero(objective).tolist():
        share = objective[domain] / ensemble.tokens[domain]
        value += objective[domain] * ensemble.best_losses[domain]
        columns = ensemble.columns_of(domain)
        for first in range(columns.start, columns.stop, COLUMNS):
            last = min(first + COLUMNS, columns.stop)
            logs, relative = _relative(ensemble, first, last, weights)
            value -= share * logs
            slope -= share * relative.sum(axis=1)
            curve += share * (relative @ relative.T) if hessian else 0
    return Local(value=float(value), gradient=slope, hessian=curve)


def checked_objective(ensemble: Ensemble, objective: np.ndarray) -> np.ndarray:
    """Return `objective` as float64 [domains]; raises ValueError where it weights no domains."""
    objective = np.asarray(objective, dtype=np.float64)
    sound = objective.shape == (len(ensemble.domains),) and np.isfinite(objective).all()
    if not sound or (objective < 0).any() or not objective.any():
        raise ValueError(
            f"an objective must weight {len(ensemble.domains)} domains with finite numbers of at "
            f"least 0 that are not all 0, got {objective.tolist()}"
        )
    return objective


def _relative(
    ensemble: Ensemble, first: int, last: int, weights: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return sum_t log s(t) and r_u(t) / s(t) [units, places] of one domain's columns.

    Places after the domain's last token count as nothing.
    """
    width = last - first
    ratios = ensemble.ratios[:, :, first:last].reshape(len(weights), -1).astype(np.float64)
    mixed = weights @ ratios
    blank_padding(ensemble, first, mixed.reshape(ROWS, width), 1)
    blank_padding(ensemble, first, np.moveaxis(ratios.reshape(-1, ROWS, width), 0, -1), 0)
    extra = 0.0
    low = np.flatnonzero(mixed < FLOOR)
    if low.size:
        rows, columns = np.divmod(low, width)
        columns += first
        logs = exact_logs(ensemble, rows, columns, np.tile(weights, (low.size, 1)))
        extra = float(logs.sum())
        mixed[low] = 1
        ratios[:, low] = np.exp(ensemble.log_ratios(rows, columns).T - logs)
    products = np.multiply.reduce(mixed.reshape(ROWS // RUN, RUN, width), axis=1)
    ratios *= 1 / mixed
    return float(np.log(products).sum()) + extra, ratios
