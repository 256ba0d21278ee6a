"""Tree-structured Parzen estimator over inclusion flags, by Optuna's sampler.

Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NIPS 2011; multivariate as in
Falkner et al. (BOHB, arXiv 1807.01774). Infeasible proposals are told as failures, unscored.
"""

from __future__ import annotations

import numpy as np
import optuna

from ablate.mixture import Mixture
from ablate.search.space import SubsetSpace

FEASIBLE_TRIES = 64


class TPE:
    """Propose member sets from densities of good and bad ones."""

    lookahead = 4

    def __init__(self, space: SubsetSpace, rng_seed: int, trials: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._rng = np.random.default_rng(rng_seed)
        self._study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(
                seed=rng_seed, n_startup_trials=min(20, max(2, trials // 4))
            )
        )
        self._open: dict[tuple[str, ...], optuna.trial.Trial] = {}
        self._seen: set[tuple[str, ...]] = set()

    def ask(self) -> Mixture | None:
        """Return a legal mixture not yet proposed, None when there is none."""
        members = self._next()
        return None if members is None else self._space.mixture(members)

    def _next(self) -> tuple[str, ...] | None:
        for _ in range(FEASIBLE_TRIES):
            trial = self._study.ask()
            chosen = [n for n in self._space.free if trial.suggest_categorical(n, [0, 1])]
            members = tuple(sorted((*self._space.include, *chosen)))
            if members in self._space and members not in self._seen:
                self._seen.add(members)
                self._open[members] = trial
                return members
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return self._unseen()

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Take a value, or None for a trial that failed."""
        members = mixture.partitions
        trial = self._open.pop(members, None)
        if trial is None:
            if value is not None:
                self._study.add_trial(self._finished(members, value))
        elif value is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, value)

    def _unseen(self) -> tuple[str, ...] | None:
        """Return a random legal set when the sampler keeps repeating itself."""
        if len(self._seen) >= self._space.count():
            return None
        for _ in range(FEASIBLE_TRIES * 16):
            members = self._space.sample(self._rng)
            if members is not None and members not in self._seen:
                self._seen.add(members)
                return members
        members = next((m for m in self._space if m not in self._seen), None)
        if members is not None:
            self._seen.add(members)
        return members

    def _finished(self, members: tuple[str, ...], value: float) -> optuna.trial.FrozenTrial:
        flags = {name: int(name in members) for name in self._space.free}
        choices: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution([0, 1]) for name in flags
        }
        return optuna.trial.create_trial(params=flags, distributions=choices, value=value)
