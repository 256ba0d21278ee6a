"""The ensemble proxy of a pool: any mixture scored from the token likelihoods of its units.

No merge and no forward pass: what the units thought of every evaluated token was kept when they
were scored. Sources: Mixture of Data Experts (arXiv 2502.15950), MixMin (arXiv 2502.10510).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablate.evaluate.blocks import block_lengths
from ablate.evaluate.ensemble import (
    Constraints,
    Ensemble,
    build_ensemble,
    by_partition,
    group_losses,
    losses,
    optimum,
)
from ablate.evaluate.statistics import DomainScore, domain_score
from ablate.evaluate.token_nats import FOLDER, read_token_nats
from ablate.mixture import Mixture
from ablate.models.pool import ModelPool
from ablate.search.spaces import SimplexSpace, Space
from ablate.stores import fetched

TOLERANCE = 1e-6  # nats: of the best mixture on the simplex
BATCH = 1 << 10  # mixtures scored together: tokens are read once for all of them


@dataclass(frozen=True, kw_only=True)
class EvaluatedDomain:
    """One domain as it is scored: its fingerprint, tokens, window length."""

    mark: str
    tokens: int
    length: int

    @property
    def windows(self) -> np.ndarray:
        """Return the scored tokens of each window, int64 [windows]."""
        return block_lengths(self.tokens, self.length) - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsembleProxy:
    """A pool's ensemble, its columns the partitions in `names`.

    `text_bytes[domain]` are the UTF-8 bytes of the scored tokens.
    """

    names: tuple[str, ...]
    domains: Mapping[str, EvaluatedDomain]
    text_bytes: Mapping[str, int]
    values: Ensemble

    def objective(
        self, names: Sequence[str], weights: np.ndarray, objective: Mapping[str, float]
    ) -> np.ndarray:
        """Return the objective [m] of mixtures `weights` [m, names], nats per token."""
        found = losses(self.values, self._columns(names, weights))
        return np.asarray(found @ self._over_domains(objective))

    def scores(self, mixtures: Sequence[Mixture]) -> list[dict[str, DomainScore]]:
        """Return the scores of every mixture, by domain."""
        found: list[dict[str, DomainScore]] = [{} for _ in mixtures]
        shares = [dict(mixture.weights) for mixture in mixtures]
        rows = np.array([[share.get(name, 0.0) for name in self.names] for share in shares])
        for block in {domain.length - 1 for domain in self.domains.values()}:
            for first in range(0, len(mixtures), BATCH):
                summed = group_losses(self.values, rows[first : first + BATCH], block)
                for name, nats in summed.items():
                    if self.domains[name].length - 1 != block:
                        continue
                    windows = self.domains[name].windows
                    for scores, one in zip(found[first:], nats, strict=False):
                        scores[name] = domain_score(one, windows, self.text_bytes[name])
        return found

    def best(self, space: Space, objective: Mapping[str, float]) -> tuple[Mixture, float]:
        """Return the best mixture of a space and how far from the optimum it can be, in nats.

        On a simplex the problem is convex and solved to `TOLERANCE`; under size or token limits,
        and for subsets, the relaxed optimum is rounded to a legal mixture, and the second number
        is the distance of its objective from the relaxed one.
        """
        lower, upper = np.zeros(len(self.names)), np.zeros(len(self.names))
        for place, name in enumerate(self.names):
            if name in space.names:
                upper[place] = 1.0
        at_most = None
        if isinstance(space, SimplexSpace):
            bounds = dict(zip(space.names, zip(space.lower, space.upper, strict=True), strict=True))
            for place, name in enumerate(self.names):
                if name in bounds:
                    lower[place] = bounds[name][0] if name in space.required else 0.0
                    upper[place] = min(1.0, bounds[name][1])
            at_most = space.max_size if space.max_size < len(space.names) else None
        found = optimum(
            self.values,
            self._over_domains(objective),
            Constraints(lower=lower, upper=upper, at_most=at_most),
            TOLERANCE,
        )
        weights = dict(zip(self.names, found.weights, strict=True))
        vector = np.array([weights[name] for name in space.names])
        mixture = space.nearest(vector)
        legal = np.array([[dict(mixture.weights).get(name, 0.0) for name in space.names]])
        value = float(self.objective(space.names, legal, objective)[0])
        return mixture, found.gap + max(0.0, value - found.loss)

    def _columns(self, names: Sequence[str], weights: np.ndarray) -> np.ndarray:
        places = {name: place for place, name in enumerate(self.names)}
        columns = np.zeros((len(weights), len(self.names)))
        columns[:, [places[name] for name in names]] = weights
        return columns

    def _over_domains(self, objective: Mapping[str, float]) -> np.ndarray:
        return np.array([objective.get(name, 0.0) for name in self.values.domains])


def kept_likelihoods(
    root: Path, pool: ModelPool, domains: Mapping[str, EvaluatedDomain]
) -> dict[tuple[str, str], np.ndarray]:
    """Return the token nats [tokens] that are kept, by (unit, domain) fingerprint.

    A damaged file is reported and left out.
    """
    found = {}
    fetched(root / FOLDER)
    for unit in pool.units:
        for domain in domains.values():
            nats = read_token_nats(root, unit.fingerprint, domain.mark, int(domain.windows.sum()))
            if nats is not None:
                found[unit.fingerprint, domain.mark] = nats
    return found


def ensemble_proxy(
    pool: ModelPool,
    domains: Mapping[str, EvaluatedDomain],
    text_bytes: Mapping[str, int],
    kept: Mapping[tuple[str, str], np.ndarray],
) -> EnsembleProxy | None:
    """Return the pool's ensemble, None when a unit's likelihoods are missing."""
    wanted = [(unit.fingerprint, domain.mark) for unit in pool.units for domain in domains.values()]
    if not wanted or any(pair not in kept for pair in wanted):
        return None
    nats = {
        name: np.stack([kept[unit.fingerprint, domain.mark] for unit in pool.units], axis=1)
        for name, domain in domains.items()
    }
    labels = [f"{unit.partition}/{unit.index}" for unit in pool.units]
    names = tuple(pool.units_of())
    groups = np.array([names.index(unit.partition) for unit in pool.units])
    values = by_partition(build_ensemble(nats, labels), groups, names)
    return EnsembleProxy(names=names, domains=domains, text_bytes=text_bytes, values=values)
