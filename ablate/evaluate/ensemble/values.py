"""The units' probabilities of every evaluation token, laid out so that mixtures score fast.

Notation: u a unit (a column of what is given), t a token, p_u(t) its probability under u,
best(t) = -log max_u p_u(t), ratio r_u(t) = p_u(t) exp(best(t)), in [0, 1] and 1 for one unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

ROWS = 64  # tokens whose mixture ratios are multiplied before one logarithm is taken
NEAR = 80.0  # nats: a ratio below exp(-80) nears the end of float32 and is kept as `far`


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble:
    """What every unit thinks of every token.

    `tokens` [domains] are counts; domain d owns the columns `starts[d]` to `starts[d + 1]` of
    `ratios`, float32 [units, ROWS, columns]: token t lies in row t // c, column t % c of its c
    columns, and places after the last token hold 1. `best` float64 [all tokens] are the nats of
    the best unit, domain after domain, and `best_losses` [domains] their means. Ratios too small for float32 are 0 there, and their nats
    above the best are `far` at the sorted flat places `far_places`.
    """

    units: tuple[str, ...]
    domains: tuple[str, ...]
    tokens: np.ndarray
    starts: np.ndarray
    ratios: np.ndarray
    best: np.ndarray
    best_losses: np.ndarray
    far_places: np.ndarray
    far: np.ndarray

    def tokens_of(self, domain: int) -> slice:
        """Return where a domain's tokens lie in `best`."""
        first = int(self.tokens[:domain].sum())
        return slice(first, first + int(self.tokens[domain]))

    def columns_of(self, domain: int) -> slice:
        """Return which columns of `ratios` hold a domain's tokens."""
        return slice(int(self.starts[domain]), int(self.starts[domain + 1]))

    def log_ratios(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return log r_u at the given places, float64 [places, units], far ones included."""
        values: np.ndarray = self.ratios[:, rows, columns].astype(np.float64)
        zero = values == 0
        values[zero] = 1
        logs = np.log(values)
        if zero.any():
            units, found = np.nonzero(zero)
            places = (units * ROWS + rows[found]) * self.ratios.shape[2] + columns[found]
            logs[zero] = -self.far[np.searchsorted(self.far_places, places)]
        return np.ascontiguousarray(logs.T)

    def nats(self, domain: int) -> np.ndarray:
        """Return the negative log-likelihoods of a domain's tokens, float64 [tokens, units]."""
        width = self.starts[domain + 1] - self.starts[domain]
        rows, columns = np.divmod(np.arange(self.tokens[domain]), width)
        logs = self.log_ratios(rows, columns + self.starts[domain])
        nats: np.ndarray = self.best[self.tokens_of(domain), None] - logs
        return nats


def build_ensemble(nats: Mapping[str, np.ndarray], units: Sequence[str]) -> Ensemble:
    """Return the ensemble of nats[domain] [tokens, units], whose columns are `units` in order.

    nats are negative log-likelihoods of single tokens, finite and at least 0. Raises ValueError
    where they are not, where a shape does not fit, or where nothing is given.
    """
    _require_sound(nats, units)
    tokens = np.array([values.shape[0] for values in nats.values()], dtype=np.int64)
    widths = -(-tokens // ROWS)
    starts = np.concatenate([[0], np.cumsum(widths)])
    ratios = np.ones((len(units), ROWS, starts[-1]), dtype=np.float32)
    best, far_places, far = [], [], []
    for values, first, width in zip(nats.values(), starts, widths, strict=False):
        exact = values.astype(np.float64)
        best.append(exact.min(axis=1))
        above = exact.T - best[-1]
        rows, columns = np.divmod(np.arange(len(exact)), width)
        ratios[:, rows, columns + first] = np.where(above > NEAR, 0, np.exp(-above))
        unit, token = np.nonzero(above > NEAR)
        far_places.append((unit * ROWS + rows[token]) * starts[-1] + columns[token] + first)
        far.append(above[unit, token])
    places = np.concatenate(far_places)
    order = np.argsort(places)
    return Ensemble(
        units=tuple(units),
        domains=tuple(nats),
        tokens=tokens,
        starts=starts,
        ratios=ratios,
        best=np.concatenate(best),
        best_losses=np.array([part.mean() for part in best]),
        far_places=places[order],
        far=np.concatenate(far)[order],
    )


def _require_sound(nats: Mapping[str, np.ndarray], units: Sequence[str]) -> None:
    if not nats or not units or len(set(units)) != len(units):
        raise ValueError(
            f"an ensemble must have a domain and distinct units, got domains {list(nats)} and "
            f"units {list(units)}"
        )
    for name, values in nats.items():
        if values.ndim != 2 or values.shape[1] != len(units) or not values.shape[0]:
            raise ValueError(
                f"nats must have shape [tokens, {len(units)}] on domain '{name}', got "
                f"{values.shape}"
            )
        if not np.isfinite(values).all() or values.min() < 0:
            raise ValueError(f"nats must be finite and at least 0 on domain '{name}'")


def by_partition(ensemble: Ensemble, groups: np.ndarray, names: Sequence[str]) -> Ensemble:
    """Return the ensemble whose columns are partitions: each the mean probability of its units.

    `groups` int [units] gives each unit's place in `names`. A partition's weight is split evenly
    over its units by micro and by macro weighting alike, so that this loses nothing. Raises
    ValueError when a partition has no unit or a unit no partition.
    """
    groups = np.asarray(groups)
    counts = np.bincount(groups, minlength=len(names))
    if groups.shape != (len(ensemble.units),) or counts.size != len(names) or not counts.all():
        raise ValueError(
            f"groups must give each of {len(ensemble.units)} units one of {len(names)} "
            f"partitions and leave none empty, got {groups.tolist()}"
        )
    nats = {}
    for place, domain in enumerate(ensemble.domains):
        values = ensemble.nats(place)
        best = ensemble.best[ensemble.tokens_of(place)]
        means = np.empty((len(best), len(names)))
        for group, count in enumerate(counts):
            logs = -values[:, groups == group]
            means[:, group] = np.log(count) - np.logaddexp.reduce(logs, axis=1)
        nats[domain] = np.maximum(means, best[:, None])  # rounding may pass the best unit's
    return build_ensemble(nats, names)


def restricted(ensemble: Ensemble, kept: np.ndarray) -> Ensemble:
    """Return the ensemble of the units where the bool [units] `kept` holds, at least one."""
    size = ROWS * ensemble.ratios.shape[2]
    owner, place = np.divmod(ensemble.far_places, size)
    mine = kept[owner]
    renumbered = np.cumsum(kept) - 1
    return replace(
        ensemble,
        units=tuple(name for name, keep in zip(ensemble.units, kept, strict=True) if keep),
        ratios=ensemble.ratios[kept],
        far_places=renumbered[owner[mine]] * size + place[mine],
        far=ensemble.far[mine],
    )
