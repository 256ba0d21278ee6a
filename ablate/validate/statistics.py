"""Agreement of proxy values with trained losses, with bootstrap intervals over mixtures.

Intervals are percentiles of the measure over samples of the mixtures drawn with replacement (Efron
1979). They say what other mixtures of the same kind would have given, not what other seeds of the
same trainings would. The same seed draws the same samples whatever the values, so intervals of
several proxies over the same mixtures are paired. Regret and overlaps rest on a few mixtures:
their intervals are rough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ablate.validate.measures import (
    LEAST_TO_RANK,
    MEASURES,
    RESAMPLED,
    Array,
    Samples,
    checked_losses,
)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value and the interval [`lower`, `upper`] of the asked level; None where undefined."""

    value: float | None
    lower: float | None
    upper: float | None

    def to_json(self) -> list[float | None]:
        """Return [value, lower, upper]."""
        return [self.value, self.lower, self.upper]

    @classmethod
    def from_json(cls, body: Sequence[float | None]) -> Estimate:
        """Return the estimate that `to_json` wrote; raises ValueError for another length."""
        value, lower, upper = body
        return cls(value=value, lower=lower, upper=upper)


@dataclass(frozen=True, kw_only=True)
class AgreementWithin:
    """Agreement within each mixture size: measure -> estimate.

    `by_size` has the sizes of three mixtures or more, ascending. `mean` is over those sizes in
    which the measure is defined, weighted by their numbers of mixtures; `drawn` is that mean [1 +
    draws] over all mixtures, then over each sample of them.
    """

    by_size: dict[int, dict[str, Estimate]]
    mean: dict[str, Estimate]
    drawn: dict[str, Array] = field(compare=False, repr=False)


def agree(
    proxy: npt.ArrayLike,
    trained: npt.ArrayLike,
    *,
    rng_seed: int,
    draws: int = 1000,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Return every measure of `MEASURES` for proxy [n] and trained [n] losses of n mixtures.

    All are undefined under three mixtures. Raises ValueError as `checked_losses` does, and for a
    level outside (0, 1).
    """
    x, y = checked_losses(proxy, trained)
    return _estimates(_drawn(x, y, [rng_seed], draws), level)


def agree_within(
    proxy: npt.ArrayLike,
    trained: npt.ArrayLike,
    sizes: Sequence[int] | npt.NDArray[np.int64],
    *,
    rng_seed: int,
    draws: int = 1000,
    level: float = 0.95,
) -> AgreementWithin:
    """Return agreement within each of `sizes` [n], the numbers of partitions of the mixtures.

    The interval of the mean is by a bootstrap within each size apart, so no difference between
    sizes enters. A size in whose sample a measure is undefined is left out of that sample's mean.
    Raises ValueError as `agree` does, and for sizes of another length.
    """
    x, y = checked_losses(proxy, trained)
    kinds = np.asarray(sizes)
    if kinds.shape != x.shape:
        raise ValueError(f"sizes must be [mixtures], got {kinds.shape} for {x.shape} losses")
    kept = {int(size): np.flatnonzero(kinds == size) for size in np.unique(kinds)}
    kept = {size: rows for size, rows in kept.items() if len(rows) >= LEAST_TO_RANK}
    # A seed of its own: what one size gives does not hang on which others there are.
    drawn = {size: _drawn(x[rows], y[rows], [rng_seed, size], draws) for size, rows in kept.items()}
    counts = [len(rows) for rows in kept.values()]
    means = {name: _mean([each[name] for each in drawn.values()], counts) for name in MEASURES}
    return AgreementWithin(
        by_size={size: _estimates(values, level) for size, values in drawn.items()},
        mean=_estimates(means, level),
        drawn=means,
    )


def agree_over(targets: Sequence[AgreementWithin], *, level: float = 0.95) -> dict[str, Estimate]:
    """Return the mean over targets of the agreement within sizes, `agree_within`'s mean.

    All are of the same mixtures and one seed: a sample of mixtures serves all targets, whose errors
    go together. Targets in which a measure is undefined are left out of its mean.
    """
    ones = [1] * len(targets)
    joined = {name: _mean([each.drawn[name] for each in targets], ones) for name in MEASURES}
    return _estimates(joined, level)


def _drawn(proxy: Array, trained: Array, seed: list[int], draws: int) -> dict[str, Array]:
    """Return each measure [1 + draws]: of all mixtures, then of each sample of them."""
    count = len(proxy)
    if count < LEAST_TO_RANK:
        return {name: np.full(1 + draws, np.nan) for name in RESAMPLED}
    rng = np.random.default_rng(seed)
    picked = rng.integers(count, size=(draws, count)) + count * np.arange(draws)[:, None]
    copies = np.bincount(picked.ravel(), minlength=draws * count).reshape(draws, count)
    counts = np.vstack([np.ones(count), copies.astype(float)])
    samples = Samples(proxy=proxy, trained=trained, counts=counts)
    return {name: measure(samples) for name, measure in RESAMPLED.items()}


def _mean(values: list[Array], counts: list[int]) -> Array:
    """Return the mean [1 + draws], weighted by `counts`, of the defined values."""
    if not values:
        return np.full(1, np.nan)
    stacked = np.stack(values)
    # What is undefined as it stands must not come in through lucky samples.
    defined = np.isfinite(stacked) & np.isfinite(stacked[:, :1])
    weights = np.array(counts, dtype=float)[:, None] * defined
    total = weights.sum(axis=0)
    summed = (weights * np.where(defined, stacked, 0.0)).sum(axis=0)
    return np.asarray(np.divide(summed, total, out=np.full(total.shape, np.nan), where=total > 0))


def _estimates(values: dict[str, Array], level: float) -> dict[str, Estimate]:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; use 0.95")
    return {name: _estimate(each, level) for name, each in values.items()}


def _estimate(values: Array, level: float) -> Estimate:
    """Return the estimate of a value followed by its bootstrap values; undefined ones skipped."""
    if not np.isfinite(values[0]):
        return Estimate(value=None, lower=None, upper=None)
    resampled = values[1:][np.isfinite(values[1:])]
    if 2 * len(resampled) < len(values):
        return Estimate(value=float(values[0]), lower=None, upper=None)
    lower, upper = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=float(values[0]), lower=float(lower), upper=float(upper))
