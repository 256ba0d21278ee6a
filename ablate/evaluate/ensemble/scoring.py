"""Losses of mixtures: one matrix product, and one logarithm for ROWS tokens.

The logarithm is the cost, so ratios are multiplied first: RUN of them in float32, which is
checked, and the ROWS / RUN products in float64, which is checked again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from ablate.evaluate.ensemble.values import ROWS, Ensemble

RUN = 4  # ratios multiplied in float32
FLOOR = 1e-30  # a smaller product of a run is taken apart
SAFE = 8  # runs whose product is always a float64: FLOOR ** SAFE = 1e-240
LEAST = 1e-290  # a smaller product of all runs is taken apart
TILE = 1 << 19  # elements of a product of weights and ratios at once: they stay in the cache
BATCH = 256  # mixtures at once
REPAIRED = 1 << 14  # tokens taken apart at once, to bound the memory


def losses(ensemble: Ensemble, weights: np.ndarray) -> np.ndarray:
    """Return nats per token of mixtures, float64 [m, domains], for `weights` [m, units].

    -mean_t log sum_u lambda_u p_u(t), within 2e-7 nats of exact arithmetic on the ratios. Rows
    are meant to sum to one, but any non-negative row with a positive entry is answered. One
    thread.

    Raises ValueError for negative or infinite weights and rows that are all zero.
    """
    weights = checked_weights(ensemble, weights)
    found = np.empty((len(weights), len(ensemble.domains)))
    with one_thread():
        for first in range(0, len(weights), BATCH):
            found[first : first + BATCH] = _batch_losses(ensemble, weights[first : first + BATCH])
    return found


def one_thread() -> AbstractContextManager[None]:
    """Return a context in which matrix products use one thread: others own the other cores."""
    limit: AbstractContextManager[None] = _blas().limit(limits=1)
    return limit


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def _batch_losses(ensemble: Ensemble, weights: np.ndarray) -> np.ndarray:
    small = weights.astype(np.float32).T
    columns, mixtures = ensemble.ratios.shape[2], len(weights)
    step = columns if mixtures == 1 else max(1, TILE // (ROWS * mixtures))
    mixed = np.empty((min(step, columns) * ROWS, mixtures), dtype=np.float32)
    logs = np.empty((columns, mixtures))
    for first in range(0, columns, step):
        ratios = ensemble.ratios[:, :, first : first + step].reshape(len(small), -1)
        product = np.matmul(ratios.T, small, out=mixed[: ratios.shape[1]])
        logs[first : first + step] = log_products(ensemble, first, product, weights)
    return mean_nats(ensemble, logs)


def checked_weights(ensemble: Ensemble, weights: np.ndarray) -> np.ndarray:
    """Return `weights` as float64 [m, units]; raises ValueError where they are no mixtures."""
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[1] != len(ensemble.units):
        raise ValueError(
            f"weights must have shape [mixtures, {len(ensemble.units)}], got {weights.shape}"
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any(axis=1).all():
        raise ValueError("weights must be finite, at least 0 and not all 0 in any mixture")
    return weights


def log_products(
    ensemble: Ensemble, first: int, mixed: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the log of the product over rows of `mixed`, float64 [columns, m].

    `mixed` float32 [ROWS * columns, m] are sum_u lambda_u r_u(t) from column `first` on; it is
    overwritten. `weights` [m, units] are used where a product leaves the range of float32.
    """
    columns = len(mixed) // ROWS
    mixed = mixed.reshape(ROWS, columns, -1)
    blank_padding(ensemble, first, mixed, 1)
    runs = np.multiply.reduce(mixed.reshape(RUN, -1), axis=0).reshape(ROWS // RUN, columns, -1)
    if runs.min() >= FLOOR:
        return _log_of_product(runs)
    rows, places, mixtures = np.nonzero(runs < FLOOR)
    runs[rows, places, mixtures] = 1
    logs = _log_of_product(runs)
    piece = REPAIRED // RUN
    for start in range(0, rows.size, piece):
        row, place, mixture = (part[start : start + piece] for part in (rows, places, mixtures))
        every = (row + np.arange(RUN)[:, None] * (ROWS // RUN)).ravel()
        exact = exact_logs(
            ensemble, every, np.tile(place, RUN) + first, weights[np.tile(mixture, RUN)]
        )
        np.add.at(logs, (place, mixture), exact.reshape(RUN, -1).sum(axis=0))
    return logs


def _log_of_product(runs: np.ndarray) -> np.ndarray:
    """Return the log of the product of `runs` [ROWS / RUN, ...] over its rows, float64."""
    product: np.ndarray = np.multiply.reduce(runs, axis=0, dtype=np.float64)
    if product.min() < LEAST:
        pieces = runs.reshape(-1, SAFE, *runs.shape[1:])
        parts = np.multiply.reduce(pieces, axis=1, dtype=np.float64)
        np.add.reduce(np.log(parts), axis=0, out=product)
    else:
        np.log(product, out=product)
    return product


def exact_logs(
    ensemble: Ensemble, rows: np.ndarray, columns: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return log sum_u lambda_u r_u at places, float64 [places], for `weights` [places, units].

    Padding has ratio 1 but counts as nothing: its log is 0.
    """
    with np.errstate(divide="ignore"):
        logs: np.ndarray = np.logaddexp.reduce(
            ensemble.log_ratios(rows, columns) + np.log(weights), axis=1
        )
    return np.where(is_padding(ensemble, rows, columns), 0.0, logs)


def is_padding(ensemble: Ensemble, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return whether places lie after their domain's last token."""
    domain = np.searchsorted(ensemble.starts, columns, side="right") - 1
    first, width = ensemble.starts[domain], np.diff(ensemble.starts)[domain]
    outside: np.ndarray = rows * width + columns - first >= ensemble.tokens[domain]
    return outside


def blank_padding(ensemble: Ensemble, first: int, places: np.ndarray, value: float) -> None:
    """Set what stands after the last token of a domain, which says nothing, to `value`.

    `places` [ROWS, columns, ...] are those of `ratios` from column `first` on.
    """
    stop = first + places.shape[1]
    for domain in range(*np.searchsorted(ensemble.starts, [first + 1, stop]) - [1, 0]):
        columns, count = ensemble.columns_of(domain), int(ensemble.tokens[domain])
        width = columns.stop - columns.start
        if count == ROWS * width:
            continue
        row, column = divmod(count, width)
        end = columns.stop - first
        places[row, max(0, columns.start + column - first) : end] = value
        places[row + 1 :, max(0, columns.start - first) : end] = value


def mean_nats(ensemble: Ensemble, logs: np.ndarray) -> np.ndarray:
    """Return nats per token, float64 [m, domains], for log products [columns, m]."""
    gained = np.add.reduceat(logs, ensemble.starts[:-1], axis=0) / ensemble.tokens[:, None]
    means: np.ndarray = ensemble.best_losses[:, None] - gained
    return means.T


def group_tokens(ensemble: Ensemble, block: int) -> dict[str, np.ndarray]:
    """Return the tokens of each block of `block` tokens, the last one shorter, int64 [blocks]."""
    return {
        name: np.minimum(block, count - np.arange(0, count, block))
        for name, count in zip(ensemble.domains, ensemble.tokens.tolist(), strict=True)
    }


def group_losses(ensemble: Ensemble, weights: np.ndarray, block: int) -> dict[str, np.ndarray]:
    """Return summed nats of blocks of `block` neighbouring tokens, float64 [m, blocks] by domain.

    With `block` = scored tokens of a window these are the windows of an evaluation; differences
    between two rows give the paired standard error of two mixtures. `weights` as for `losses`.
    """
    weights = checked_weights(ensemble, weights)
    if block < 1:
        raise ValueError(f"block must be at least 1 token, got {block}")
    found = {}
    for domain, name in enumerate(ensemble.domains):
        starts = np.arange(0, int(ensemble.tokens[domain]), block)
        best = np.add.reduceat(ensemble.best[ensemble.tokens_of(domain)], starts)
        with one_thread():
            logs = _token_logs(ensemble, domain, weights)
            found[name] = np.stack([best - np.add.reduceat(row, starts) for row in logs])
    return found


def _token_logs(ensemble: Ensemble, domain: int, weights: np.ndarray) -> Iterator[np.ndarray]:
    """Yield log sum_u lambda_u r_u of every token of a domain, float64 [tokens], by mixture."""
    ratios = ensemble.ratios[:, :, ensemble.columns_of(domain)]
    count, width = int(ensemble.tokens[domain]), ratios.shape[2]
    exact = ratios.reshape(len(ratios), -1)[:, :count].astype(np.float64)
    for mixture in weights:
        mixed = mixture @ exact
        low = np.flatnonzero(mixed < FLOOR)
        mixed[low] = 1
        logs = np.log(mixed)
        if low.size:
            rows, columns = np.divmod(low, width)
            columns += int(ensemble.starts[domain])
            logs[low] = exact_logs(ensemble, rows, columns, np.tile(mixture, (low.size, 1)))
        yield logs
