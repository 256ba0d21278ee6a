"""Search by prediction: fit what is scored, propose what promises most, score it, fit again.

First every partition alone and all together, then the mixture of the largest expected improvement
(Jones, Schonlau and Welch, J. Global Optimization 13, 1998) under a quadratic of the proportions
(`predictors/pairwise.py`), with the log of the mixture's size as a feature: proportions alone do
not say how large a subset is. Where the pool's token likelihoods are at hand, the ensemble's
objective is a feature too and its best mixture comes first. What is predicted best is thus always
confirmed by a real score. `make bench-search` counts the evaluations that it needs.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from ablate.mixture import Mixture
from ablate.search.algorithms.task import Task, is_covered
from ablate.search.predictors import PREDICTORS
from ablate.search.spaces import SubsetSpace, vector

ENUMERATED_BELOW = 1 << 12
POOL = 1 << 11  # mixtures that are looked at where they cannot be enumerated
DRAWS = 64  # random draws for one new mixture of the first design
FEWEST = 3  # scores before the first fit
DESIGN_SHARE = 3  # the first design takes at most one in so many trials


class Surrogate:
    """Distinct mixtures: a spread first design, then what the predictor promises."""

    lookahead = 1

    def __init__(self, task: Task) -> None:
        self._task = task
        self._space = task.space
        self._rng = np.random.default_rng(task.rng_seed)
        self._design = _first_design(task)
        self._known: dict[str, tuple[Mixture, float | None]] = {}
        self._proposed: set[str] = set()

    def ask(self) -> Mixture | None:
        """Return the next mixture, None when the space is used up."""
        if is_covered(self._space, len(self._proposed)):
            return None
        scored = [item for item in self._known.values() if item[1] is not None]
        starting = bool(self._design) or len(scored) < FEWEST
        mixture = self._next_of_design() if starting else self._promising(scored)
        if mixture is not None:
            self._proposed.add(mixture.key())
        return mixture

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Take a value, or None for a trial that failed: it is left out of the fits."""
        self._known[mixture.key()] = (mixture, value)

    def _next_of_design(self) -> Mixture | None:
        """Return the next mixture of the first design, then random ones."""
        while self._design:
            mixture = self._design.pop(0)
            if mixture.key() not in self._proposed:
                return mixture
        for _ in range(DRAWS):
            drawn = self._space.sample(self._rng)
            if drawn is not None and drawn.key() not in self._proposed:
                return drawn
        return next((m for m in self._candidates([]) if m.key() not in self._proposed), None)

    def _promising(self, scored: list[tuple[Mixture, float | None]]) -> Mixture | None:
        ranked = sorted(scored, key=lambda item: (item[1], item[0].key()))
        candidates = [
            mixture
            for mixture in self._candidates([mixture for mixture, _ in ranked[:5]])
            if mixture.key() not in self._proposed
        ]
        if not candidates:
            return None
        weights, covariates = self._features([mixture for mixture, _ in scored])
        losses = np.array([value for _, value in scored], dtype=np.float64)
        fit = PREDICTORS["pairwise"]
        predictor = fit(weights, losses, self._task.rng_seed, covariates=covariates)
        mean, stderr = predictor.predict(*self._features(candidates))
        spread = np.maximum(stderr, 1e-12)
        ahead = (losses.min() - mean) / spread
        gain = spread * (ahead * norm.cdf(ahead) + norm.pdf(ahead))
        return candidates[int(np.argmax(gain))]

    def _features(self, mixtures: list[Mixture]) -> tuple[np.ndarray, np.ndarray]:
        """Return weights [m, names], and the log of the size and the ensemble's objective [m, c]."""
        weights = np.stack([vector(self._space, mixture) for mixture in mixtures])
        columns = [np.log([mixture.size for mixture in mixtures])]
        if self._task.ensemble is not None:
            columns.append(self._task.ensemble(weights))
        return weights, np.stack(columns, axis=1)

    def _candidates(self, near: list[Mixture]) -> list[Mixture]:
        """Return the whole space where it is small, else random mixtures and some near the best."""
        if isinstance(self._space, SubsetSpace) and self._space.count() <= ENUMERATED_BELOW:
            return [self._space.mixture(members) for members in self._space]
        drawn = [self._space.sample(self._rng) for _ in range(POOL // 2)]
        reaches = (0.05, 0.2, 0.5)
        for number in range(POOL // 2 if near else 0):
            reach = reaches[number % len(reaches)]
            drawn.append(self._space.vary(near[number % len(near)], self._rng, reach))
        return list({mixture.key(): mixture for mixture in drawn if mixture is not None}.values())


def _first_design(task: Task) -> list[Mixture]:
    """Return the ensemble's best, all together, and what lies nearest to each partition alone."""
    space, count = task.space, len(task.space.names)
    corners = [space.nearest(corner) for corner in np.eye(count)]
    everything = space.nearest(np.full(count, 1 / count))
    best = [] if task.ensemble_best is None else [task.ensemble_best]
    found = {mixture.key(): mixture for mixture in [*best, everything, *corners]}
    return list(found.values())[: max(FEWEST, task.trials // DESIGN_SHARE)]
