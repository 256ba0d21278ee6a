"""Search by prediction: fit what is scored, propose what promises most, score it, fit again.

First every partition alone and all together, then the mixture of the largest expected improvement
(Jones, Schonlau and Welch, J. Global Optimization 13, 1998) under a predictor of `predictors/`, a
quadratic of the proportions unless `search.predictor` says otherwise, with the log of the mixture's
size as a feature: proportions alone do not say how large a subset is. Where the pool's token
likelihoods are at hand, the ensemble's objective is a feature too and its best mixture comes first.
What is predicted best is thus always confirmed by a real score. `make bench-search` counts the
evaluations that it needs.

Long searches have several proposals open at once, so that a cluster has work: each is chosen as if
those before it had scored what is predicted of them (`Process.believing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from ablate.mixture import Mixture
from ablate.search.algorithms.task import Task, is_covered
from ablate.search.predictors import PREDICTORS, Predictor, choose
from ablate.search.predictors.predictor import Array
from ablate.search.predictors.process import Process
from ablate.search.spaces import SubsetSpace, vector

ENUMERATED_BELOW = 1 << 12
POOL = 1 << 10  # random mixtures that are looked at where they cannot be enumerated
NEW, BEST = 1 << 8, 5  # mixtures near the best ones that join them before each proposal
KEPT = 1 << 12  # of them at most, those of the largest gain
DRAWS = 64  # random draws for one new mixture of the first design
FEWEST = 3  # scores before the first fit
DESIGN_SHARE = 3  # the first design takes at most one in so many trials
OPEN_SHARE, MOST_OPEN = 25, 64  # one proposal may be open for so many trials; at most so many
GROWTH = 1.05  # hyperparameters are fitted anew when there are so many times as many scores


class Surrogate:
    """Distinct mixtures: a spread first design, then what the predictor promises."""

    def __init__(self, task: Task) -> None:
        self.lookahead = open_at_once(task.trials)
        self._task = task
        self._space = task.space
        self._rng = np.random.default_rng(task.rng_seed)
        self._design = _first_design(task)
        self._proposed: set[str] = set()
        self._open: dict[str, _Rows] = {}
        self._scored = _rows(task, [])
        self._losses: list[float] = []
        self._pool: _Rows | None = None
        self._fit: Predictor | None = None
        self._fitted_on = 0

    def ask(self) -> Mixture | None:
        """Return the next mixture, None when the space is used up."""
        if is_covered(self._space, len(self._proposed)):
            return None
        starting = bool(self._design) or len(self._losses) < FEWEST
        mixture = self._next_of_design() if starting else self._promising()
        if mixture is not None:
            self._proposed.add(mixture.key())
            self._open[mixture.key()] = _rows(self._task, [mixture])
        return mixture

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Take a value, or None for a trial that failed: it is left out of the fits."""
        row = self._open.pop(mixture.key())
        if value is not None:
            self._scored = self._scored.joined(row)
            self._losses.append(float(value))

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
        return next((m for m in self._looked_at().mixtures if m.key() not in self._proposed), None)

    def _promising(self) -> Mixture | None:
        pool = self._looked_at()
        pool = pool.at([i for i, m in enumerate(pool.mixtures) if m.key() not in self._proposed])
        if not pool.mixtures:
            return None
        mean, stderr = self._predictor().predict(pool.weights, pool.covariates)
        spread = np.maximum(stderr, 1e-12)
        ahead = (min(self._losses) - mean) / spread
        gain = spread * (ahead * norm.cdf(ahead) + norm.pdf(ahead))
        order = np.argsort(-gain, kind="stable")
        self._pool = pool.at(np.sort(order[:KEPT]).tolist())
        return pool.mixtures[int(order[0])]

    def _predictor(self) -> Predictor:
        """Return the predictor given all scores, and its own predictions of what is open.

        Hyperparameters are fitted anew as scores grow. What is no process learns nothing in
        between, and nothing of what is open.
        """
        weights, losses = self._scored.weights, np.array(self._losses)
        covariates = self._scored.covariates
        if self._fit is None or len(losses) >= self._fitted_on * GROWTH:
            self._fit = self._fitted(weights, losses, covariates)
            self._fitted_on = len(losses)
        if not isinstance(self._fit, Process):
            return self._fit
        if len(losses) > len(self._fit.rows):
            self._fit = self._fit.refitted(weights, losses, covariates)
        if not self._open:
            return self._fit
        rows = list(self._open.values())
        return self._fit.believing(
            np.vstack([row.weights for row in rows]), np.vstack([row.covariates for row in rows])
        )

    def _fitted(self, weights: Array, losses: Array, covariates: Array) -> Predictor:
        name, seed = self._task.predictor, self._task.rng_seed
        if name == "auto":
            return choose(weights, losses, seed, covariates=covariates)[1]
        return PREDICTORS[name](weights, losses, seed, covariates=covariates)

    def _looked_at(self) -> _Rows:
        """Return the whole space where it is small, else random mixtures and some near the best."""
        if isinstance(self._space, SubsetSpace) and self._space.count() <= ENUMERATED_BELOW:
            if self._pool is None:
                every = [self._space.mixture(members) for members in self._space]
                self._pool = _rows(self._task, every)
            return self._pool
        if self._pool is None:
            drawn = [self._space.sample(self._rng) for _ in range(POOL)]
            self._pool = _rows(self._task, _distinct(drawn, set()))
        best = np.argsort(self._losses, kind="stable")[:BEST].tolist()
        near = []
        for number in range(NEW if best else 0):
            reach = (0.05, 0.2, 0.5)[number % 3]
            start = self._scored.mixtures[best[number % len(best)]]
            near.append(self._space.vary(start, self._rng, reach))
        known = {mixture.key() for mixture in self._pool.mixtures}
        self._pool = self._pool.joined(_rows(self._task, _distinct(near, known)))
        return self._pool


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Mixtures and what is predicted from: weights [m, names] and covariates [m, c].

    The covariates are the log of the size, and the ensemble's objective where it is at hand.
    """

    mixtures: list[Mixture]
    weights: Array
    covariates: Array

    def at(self, places: list[int]) -> _Rows:
        """Return the rows at `places`."""
        return _Rows(
            mixtures=[self.mixtures[place] for place in places],
            weights=self.weights[places],
            covariates=self.covariates[places],
        )

    def joined(self, other: _Rows) -> _Rows:
        """Return these rows, then the other ones."""
        return _Rows(
            mixtures=[*self.mixtures, *other.mixtures],
            weights=np.vstack([self.weights, other.weights]),
            covariates=np.vstack([self.covariates, other.covariates]),
        )


def open_at_once(trials: int) -> int:
    """Return how many proposals of a search of so many trials may be open."""
    return max(1, min(MOST_OPEN, trials // OPEN_SHARE))


def _rows(task: Task, mixtures: Sequence[Mixture]) -> _Rows:
    names, columns = len(task.space.names), 1 if task.ensemble is None else 2
    if not mixtures:
        return _Rows(mixtures=[], weights=np.empty((0, names)), covariates=np.empty((0, columns)))
    weights = np.stack([vector(task.space, mixture) for mixture in mixtures])
    covariates = [np.log([mixture.size for mixture in mixtures])]
    if task.ensemble is not None:
        covariates.append(task.ensemble(weights))
    return _Rows(mixtures=list(mixtures), weights=weights, covariates=np.stack(covariates, axis=1))


def _distinct(mixtures: Sequence[Mixture | None], known: set[str]) -> list[Mixture]:
    """Return the mixtures that are not `known`, each once."""
    found = {mixture.key(): mixture for mixture in mixtures if mixture is not None}
    return [mixture for key, mixture in found.items() if key not in known]


def _first_design(task: Task) -> list[Mixture]:
    """Return the ensemble's best, all together, and what lies nearest to each partition alone."""
    space, count = task.space, len(task.space.names)
    corners = [space.nearest(corner) for corner in np.eye(count)]
    everything = space.nearest(np.full(count, 1 / count))
    best = [] if task.ensemble_best is None else [task.ensemble_best]
    found = {mixture.key(): mixture for mixture in [*best, everything, *corners]}
    return list(found.values())[: max(FEWEST, task.trials // DESIGN_SHARE)]
