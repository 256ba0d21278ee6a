"""How well proxy values agree with trained losses: one measure, one function.

    x[n], y[n]   proxy and trained loss of n mixtures, nats per token: smaller is better in both
    c[b, n]      b samples of the mixtures: how many copies of each a sample holds

A bootstrap sample is a multiset of mixtures, so every measure is computed from the counts and from
the order matrices of all n, for b samples at once. Copies of a mixture are tied, as they would be
if the sample were written out. A measure is NaN for a sample in which it is undefined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LEAST_TO_RANK = 3
LEAST_IN_QUARTER = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Samples `counts` [b, n] of n mixtures with `proxy` [n] and `trained` [n] losses, nats."""

    proxy: Array
    trained: Array
    counts: Array


Measure = Callable[[Samples], Array]


def pearson(samples: Samples) -> Array:
    """Return Pearson's correlation [b]; NaN where either side does not vary."""
    return _correlation(samples.proxy[None], samples.trained[None], samples, samples.counts)


def spearman(samples: Samples) -> Array:
    """Return Spearman's rank correlation [b], ties at their mean rank; NaN as `pearson`."""
    return _rank_correlation(samples, samples.counts)


def kendall(samples: Samples) -> Array:
    """Return Kendall's tau-b [b] (Kendall 1945); NaN where one side ties every pair."""
    untied = _pairs(np.abs(_signs(samples.proxy)), samples.counts)
    return _ratio(_concordance(samples), np.sqrt(untied * _differing(samples)))


def decision_accuracy(samples: Samples) -> Array:
    """Return the share [b] of pairs that the proxy orders as training does.

    Pairs tied in the trained loss are left out; a pair tied in the proxy counts one half.
    """
    return 0.5 + 0.5 * _ratio(_concordance(samples), _differing(samples))


def top_overlap(samples: Samples) -> Array:
    """Return the share [b] of the best quarter by trained loss that is in the proxy's.

    A quarter is n // 4 mixtures, one at least. Mixtures tied at its border share the places left,
    and a mixture overlaps by the lesser of its two shares: equal values overlap wholly, a constant
    proxy as much as chance.
    """
    shared = np.minimum(
        _share_in_quarter(samples.proxy, samples.counts),
        _share_in_quarter(samples.trained, samples.counts),
    )
    return _summed(samples.counts, shared) / _quarter(samples.counts)


def best_quarter(samples: Samples) -> Array:
    """Return Spearman's correlation [b] among the best quarter by trained loss.

    NaN where the quarter, n // 4, has fewer than four mixtures.
    """
    inside = samples.counts * _share_in_quarter(samples.trained, samples.counts)
    found = _rank_correlation(samples, inside)
    return np.where(_quarter(samples.counts) < LEAST_IN_QUARTER, np.nan, found)


def regret(samples: Samples) -> Array:
    """Return the trained loss [b] of the proxy's choice minus the least one, nats per token.

    Mixtures tied for the choice count by their mean.
    """
    present = samples.counts > 0
    least = np.where(present, samples.proxy, np.inf).min(axis=1, keepdims=True)
    chosen = samples.counts * (samples.proxy == least)
    # Gaps before means: the choice of the very best is then an exact zero.
    gaps = samples.trained - np.where(present, samples.trained, np.inf).min(axis=1, keepdims=True)
    return np.asarray(_summed(chosen, gaps) / np.einsum("bn->b", chosen))


def regret_share(samples: Samples) -> Array:
    """Return the regret [b] in percent of the spread (greatest minus least) of trained losses."""
    present = samples.counts > 0
    greatest = np.where(present, samples.trained, -np.inf).max(axis=1)
    least = np.where(present, samples.trained, np.inf).min(axis=1)
    return 100 * _ratio(regret(samples), greatest - least)


RESAMPLED: dict[str, Measure] = {
    "pearson": pearson,
    "spearman": spearman,
    "kendall": kendall,
    "decision_accuracy": decision_accuracy,
    "top_overlap": top_overlap,
    "best_quarter": best_quarter,
    "regret": regret,
    "regret_share": regret_share,
}
"""Name of a measure -> the measure of many samples at once."""


def _of_all(measure: Measure, proxy: npt.ArrayLike, trained: npt.ArrayLike) -> float:
    x, y = checked_losses(proxy, trained)
    if len(x) < LEAST_TO_RANK:
        return float("nan")
    return float(measure(Samples(proxy=x, trained=y, counts=np.ones((1, len(x)))))[0])


MEASURES: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = {
    name: partial(_of_all, measure) for name, measure in RESAMPLED.items()
}
"""Name of a measure -> function of proxy [n] and trained [n]; NaN where it is undefined.

Fewer than three mixtures define none. Raises ValueError as `checked_losses` does.
"""


def checked_losses(proxy: npt.ArrayLike, trained: npt.ArrayLike) -> tuple[Array, Array]:
    """Return both as arrays [n]; raises ValueError for unlike shapes or values not finite."""
    x, y = np.asarray(proxy, dtype=float), np.asarray(trained, dtype=float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"proxy and trained must both be [mixtures], got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(
            "losses must be finite, got NaN or infinity among them; leave those mixtures out"
        )
    return x, y


def _signs(values: Array) -> Array:
    """Return [n, n]: 1 where the column's value is above the row's, -1 below, 0 tied."""
    return np.sign(values[None, :] - values[:, None])


def _pairs(matrix: Array, counts: Array) -> Array:
    """Return the sum [b] of `matrix` over all pairs within each sample."""
    return _summed(counts @ matrix, counts) / 2


def _summed(left: Array, right: Array) -> Array:
    """Return the sum [b] of products over mixtures."""
    found: Array = np.einsum("bn,bn->b", left, right)
    return found


def _concordance(samples: Samples) -> Array:
    """Return concordant minus discordant pairs [b]."""
    return _pairs(_signs(samples.proxy) * _signs(samples.trained), samples.counts)


def _differing(samples: Samples) -> Array:
    return _pairs(np.abs(_signs(samples.trained)), samples.counts)


def _rank_correlation(samples: Samples, weights: Array) -> Array:
    ranks = [weights @ (_signs(each) + 1) for each in (samples.proxy, samples.trained)]
    return _correlation(ranks[0], ranks[1], samples, weights)


def _correlation(left: Array, right: Array, samples: Samples, weights: Array) -> Array:
    """Return the weighted correlation [b] of `left` and `right` [b or 1, n]."""
    a, b = _centred(left, weights), _centred(right, weights)
    products = np.einsum("bn,bn,bn->b", weights, a, b)
    squares = np.einsum("bn,bn,bn->b", weights, a, a) * np.einsum("bn,bn,bn->b", weights, b, b)
    varies = _varies(samples.proxy, weights) & _varies(samples.trained, weights)
    return np.clip(_ratio(products, np.where(varies, np.sqrt(squares), 0.0)), -1, 1)


def _centred(values: Array, weights: Array) -> Array:
    full = np.broadcast_to(values, weights.shape)
    means = _summed(weights, full) / np.einsum("bn->b", weights)
    return np.asarray(full - means[:, None])


def _varies(values: Array, weights: Array) -> npt.NDArray[np.bool_]:
    """Return [b] whether a sample holds two values; exact, unlike a variance above zero."""
    return np.asarray(_pairs(np.abs(_signs(values)), weights) > 0)


def _quarter(counts: Array) -> Array:
    return np.asarray(np.maximum(np.einsum("bn->b", counts) // 4, 1))


def _share_in_quarter(values: Array, counts: Array) -> Array:
    """Return [b, n] the share of a mixture's copies that is in the best quarter of the sample."""
    signs = _signs(values)
    better = counts @ (signs > 0)
    tied = counts @ (signs == 0)
    return np.asarray(np.clip((_quarter(counts)[:, None] - better) / np.maximum(tied, 1), 0, 1))


def _ratio(above: Array, below: Array) -> Array:
    return np.asarray(np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0))
