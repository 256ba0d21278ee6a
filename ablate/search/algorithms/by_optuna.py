"""Searches whose proposals come from an Optuna sampler, through ask and tell.

A mixture is coded as one number u in [0, 1] per partition; -log(u), normalised, are proportions,
and the nearest legal mixture is proposed. TPE over subsets has inclusion flags instead. A proposal
that decodes to a mixture already proposed is not scored again: the sampler is told its value.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import optuna

from ablate.mixture import Mixture
from ablate.search.algorithms.task import Task, Value, is_covered
from ablate.search.spaces import Space, SubsetSpace

TRIES = 12
SMALLEST = 1e-9
NEW_SAMPLES = 256
TPE_OPEN = 4  # proposals that TPE may have open at once


class ByOptuna:
    """Distinct legal mixtures from a sampler; random ones when it keeps repeating itself."""

    def __init__(
        self, task: Task, sampler: optuna.samplers.BaseSampler, lookahead: int, flags: bool = False
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.lookahead = lookahead
        self._space = task.space
        self._goals = task.goals
        self._rng = np.random.default_rng(task.rng_seed)
        self._study = optuna.create_study(sampler=sampler, directions=["minimize"] * task.goals)
        self._coding = _flags(task.space) if flags else _proportions(task.space)
        self._waiting: dict[str, list[optuna.trial.Trial]] = {}
        self._values: dict[str, tuple[float, ...] | None] = {}

    def ask(self) -> Mixture | None:
        """Return a legal mixture not yet proposed, None when there is none."""
        if is_covered(self._space, len(self._values.keys() | self._waiting.keys())):
            return None
        for _ in range(TRIES):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the sampler's own fall-backs
                trial = self._study.ask(self._coding[0])
            mixture = self._coding[1](trial.params)
            key = "" if mixture is None else mixture.key()
            if mixture is None:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            elif key in self._values:
                self._finish(trial, self._values[key])
            elif key in self._waiting:
                self._waiting[key].append(trial)
            else:
                self._waiting[key] = [trial]
                return mixture
        return self._unseen()

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Take a value, or None for a trial that failed."""
        goals: tuple[float, ...] | None = None if value is None else (float(value),)
        if self._goals > 1 and isinstance(value, Value):
            goals = value.goals
        self._values[mixture.key()] = goals
        for trial in self._waiting.pop(mixture.key(), []):
            self._finish(trial, goals)

    def _finish(self, trial: optuna.trial.Trial, goals: tuple[float, ...] | None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if goals is None:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                self._study.tell(trial, list(goals))

    def _unseen(self) -> Mixture | None:
        """Return a random legal mixture not yet proposed, by enumeration when they are rare."""
        known = self._values.keys() | self._waiting.keys()
        for _ in range(NEW_SAMPLES):
            mixture = self._space.sample(self._rng)
            if mixture is not None and mixture.key() not in known:
                self._waiting[mixture.key()] = []
                return mixture
        if isinstance(self._space, SubsetSpace):
            for mixture in map(self._space.mixture, self._space):
                if mixture.key() not in known:
                    self._waiting[mixture.key()] = []
                    return mixture
        return None


Coding = tuple[
    dict[str, optuna.distributions.BaseDistribution], Callable[[dict[str, float]], Mixture | None]
]


def _proportions(space: Space) -> Coding:
    names = space.names

    def decode(params: dict[str, float]) -> Mixture:
        raw = np.array([params[name] for name in names])
        shares = -np.log(np.clip(raw, SMALLEST, 1.0 - SMALLEST))
        return space.nearest(shares / shares.sum())

    return {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in names}, decode


def _flags(space: Space) -> Coding:
    if not isinstance(space, SubsetSpace):
        return _proportions(space)

    def decode(params: dict[str, float]) -> Mixture | None:
        members = tuple(sorted((*space.include, *(n for n in space.free if params[n]))))
        return space.mixture(members) if space.legal(members) else None

    return {n: optuna.distributions.CategoricalDistribution([0, 1]) for n in space.free}, decode


def tpe(task: Task) -> ByOptuna:
    """Tree-structured Parzen estimator: densities of good and bad mixtures.

    Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NIPS 2011.
    """
    first = min(20, max(2, task.trials // 4))
    sampler = optuna.samplers.TPESampler(seed=task.rng_seed, n_startup_trials=first)
    return ByOptuna(task, sampler, lookahead=TPE_OPEN, flags=True)


def cma_population(partitions: int) -> int:
    """Return the mixtures of one generation of CMA-ES, Hansen's default."""
    return 4 + int(3 * np.log(max(2, partitions)))


def nsga2_population(trials: int) -> int:
    """Return the mixtures of one generation of NSGA-II."""
    return max(4, min(50, trials // 5))


def cma_es(task: Task) -> ByOptuna:
    """Covariance matrix adaptation evolution strategy over proportions.

    Source: Hansen, The CMA evolution strategy: a tutorial, arXiv 1604.00772.
    """
    population = cma_population(len(task.space.names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.CmaEsSampler(seed=task.rng_seed, popsize=population)
    return ByOptuna(task, sampler, lookahead=population)


def gaussian_process(task: Task) -> ByOptuna:
    """Optuna's Gaussian process with log expected improvement.

    Source: Ament et al., Unexpected improvements to expected improvement, arXiv 2310.20708.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.GPSampler(seed=task.rng_seed, deterministic_objective=True)
    return ByOptuna(task, sampler, lookahead=1)


def nsga2(task: Task) -> ByOptuna:
    """Non-dominated sorting genetic algorithm: a Pareto set of several objectives.

    Source: Deb et al., A fast and elitist multiobjective genetic algorithm: NSGA-II, 2002.
    """
    population = nsga2_population(task.trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.NSGAIISampler(seed=task.rng_seed, population_size=population)
    return ByOptuna(task, sampler, lookahead=population)
